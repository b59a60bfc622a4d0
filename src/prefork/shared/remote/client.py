"""Connections to the server, one pool for each process, and what its errors mean.

* Nothing is connected before the first call. A fork never uses what its parent has connected: the process's id is
  looked at in each call. (A connection that two processes use mixes up their answers.)
* No command is sent twice: an addition whose answer was lost may have happened. A connection that the server closed
  while it was idle is noticed before it is used, so a restart of the server is seen by those who call while it is
  away, and by nobody else.
* Each call ends within `timeout_s`, for the connection and for the answer. After one that had to wait so long the
  next ones fail at once, for as long again: a server that is silent, not gone, takes half of a thread's time at most.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from prefork.errors import (
    ConfigError,
    NotANumberError,
    SharedError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
)

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as _error:
    raise ConfigError(
        "a shared store on Redis needs the package redis: pip install prefork[redis]"
    ) from _error

_T = TypeVar("_T")

_GLOB: Final = re.compile(rb"[*?\[\]\\^-]")

_KEEPALIVE: Final[dict[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    },
}
"""Who listens sends nothing: without this it would not learn for two hours (tcp(7)) that the other end has vanished."""

TIMEOUT_S: Final = 1.0
_IDLE: Final = 4
LEASE_S: Final = 10.0
"""Of a lock without a lease of its own: so long after its process has died it is let go."""


@dataclass(slots=True)
class _Mine:
    """What one process has."""

    pid: int
    redis: redis.Redis
    scripts: dict[str, Any] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    """Connections of those who have waited, for the next ones."""


class Client:
    """One server, as this process and its forks see it. Raises ConfigError if the URL cannot work."""

    def __init__(self, url: str) -> None:
        options, self._url, self.shown = _split(url)
        self.prefix = options.get("prefix", "prefork:").encode()
        self.timeout_s = _seconds(self.shown, "timeout_s", options.get("timeout_s", TIMEOUT_S))
        self.lease_s = _seconds(self.shown, "lease_s", options.get("lease_s", LEASE_S))
        self._made: _Mine | None = None
        self._silent_until_s = 0.0
        self._make()  # what is wrong with the URL is told now; nothing is connected

    def _make(self) -> redis.Redis:
        try:
            made = redis.Redis.from_url(
                self._url,
                socket_timeout=self.timeout_s,
                socket_connect_timeout=self.timeout_s,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                decode_responses=False,
                **({} if self._url.startswith("unix:") else _KEEPALIVE),
            )
            made.connection_pool.connection_class(**made.connection_pool.connection_kwargs)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"shared store {self.shown}: {error}; options are prefix, timeout_s, lease_s and those of redis-py"
            ) from error
        return made

    def _mine(self) -> _Mine:
        """What this process has, made if need be."""
        # No lock: two threads may make one each at the same time, and one of the two is thrown away unused.
        pid = os.getpid()
        if self._made is None or self._made.pid != pid:
            self._silent_until_s = 0.0
            self._made = _Mine(pid, self._make())
        return self._made

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._mine().redis.connection_pool.connection_kwargs.get("db") or 0)

    def call(self, do: Callable[[Any], _T]) -> _T:
        """Do something with the server. Raises StoreError. Blocks for `timeout_s` at most for each command."""
        client = self._mine().redis
        if time.monotonic() < self._silent_until_s:
            raise StoreUnavailableError(
                f"shared store {self.shown}: it did not answer within {self.timeout_s:g} s a moment ago"
            )
        try:
            return do(client)
        except (redis.RedisError, OSError) as error:
            raise self.told(error) from error

    def command(self, *words: Any) -> Any:
        """What one command returns. Raises StoreError."""
        return self.call(lambda client: client.execute_command(*words))

    def run(self, script: str, keys: Sequence[bytes], words: Sequence[Any]) -> Any:
        """What a script of `scripts.py` returns. Raises StoreError, NotANumberError."""
        known = self._mine().scripts

        def do(client: redis.Redis) -> Any:
            made = known.get(script)
            if made is None:
                made = known[script] = client.register_script(script)
            return made(keys=keys, args=words)  # loads it where the server does not know it (any more)

        return self.call(do)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys that begin so, in pages; one may come twice. Looks at every key of the database, a thousand at a time."""
        pattern = _GLOB.sub(rb"\\\g<0>", prefix) + b"*"
        cursor: Any = 0
        while True:
            cursor, page = self.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if page:
                yield page
            if not int(cursor):
                return

    def told(self, error: Exception) -> SharedError:
        """What an error of the library means. Never says the password."""
        if isinstance(error, (redis.TimeoutError, TimeoutError)):
            self._silent_until_s = time.monotonic() + self.timeout_s
            return StoreUnavailableError(
                f"shared store {self.shown}: no answer within {self.timeout_s:g} s (timeout_s); what was asked for may have "
                "happened or not"
            )
        if isinstance(error, redis.AuthenticationError):
            return StoreUnavailableError(f"shared store {self.shown}: name or password is wrong: {error}")
        if isinstance(error, (redis.ConnectionError, OSError)):
            return StoreUnavailableError(f"shared store {self.shown}: it is not there: {error}")
        text = str(error)
        if text.startswith("NOTANUMBER"):
            return NotANumberError(text)
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFullError(
                f"shared store {self.shown}: it is full: raise maxmemory, or choose a maxmemory-policy that evicts"
            )
        if text.startswith("WRONGTYPE"):
            return StoreDamagedError(
                f"shared store {self.shown}: another program has written to our keys: choose another prefix or database"
            )
        return StoreUnavailableError(f"shared store {self.shown}: it refuses: {text}")

    def connection(self, *, is_any: bool) -> Any:
        """A connection of its own, for one who waits or listens. Connected. Raises StoreUnavailableError.

        is_any: one that somebody has done with will do, though what it had asked for may still come.
        """

        def connect(client: redis.Redis) -> Any:
            pool = client.connection_pool
            made = pool.connection_class(**pool.connection_kwargs)
            made.connect()
            return made

        idle = self._mine().idle
        return idle.pop() if is_any and idle else self.call(connect)

    def keep(self, connection: Any) -> None:
        """Keep a connection for the next who asks for one, or close it."""
        mine = self._made
        if mine is not None and mine.pid == connection.pid == os.getpid() and len(mine.idle) < _IDLE:
            mine.idle.append(connection)
        else:
            connection.disconnect()

    def close(self) -> None:
        """Let go of this process's connections; the next call makes new ones."""
        made, self._made = self._made, None
        if made is not None and made.pid == os.getpid():
            made.redis.close()
            made.redis.connection_pool.disconnect()
            for connection in made.idle:
                connection.disconnect()


def _split(url: str) -> tuple[dict[str, str], str, str]:
    """Our own options, the URL for redis-py, and the URL as it may be shown."""
    parts = urlsplit(url)
    ours, theirs = {}, []
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in {"prefix", "timeout_s", "lease_s"}:
            ours[name] = text
        else:
            theirs.append((name, text))
    scheme = "redis" if parts.scheme == "valkey" else parts.scheme
    shown = [pair for pair in theirs if "password" not in pair[0] and pair[0] != "username"]
    host = parts.netloc.rpartition("@")[2]
    return (
        ours,
        _joined(scheme, parts.netloc + parts.path, theirs),
        _joined(parts.scheme, host + parts.path, shown),
    )


def _joined(scheme: str, place: str, options: list[tuple[str, str]]) -> str:
    # urlunsplit(3.11) makes unix:/path of unix:///path.
    return f"{scheme}://{place}" + (f"?{urlencode(options)}" if options else "")


def _seconds(shown: str, name: str, text: str | float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 3600:
        raise ConfigError(f"shared store {shown}: {name} must be 0.01 to 3600 seconds, not {text!r}")
    return value


def milliseconds(seconds: float) -> int:
    """For the server: at least one, and never so many that it cannot count them."""
    return min(max(1, -int(-seconds * 1000 // 1)), 2**52)
