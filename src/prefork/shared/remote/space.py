"""The entries of one cache, as strings of the server with the server's expiry."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from prefork.errors import NotANumberError, StoreError, ValueTooLargeError
from prefork.shared.remote import scripts
from prefork.shared.remote.client import Client, milliseconds
from prefork.shared.store import Stats, When

VALUE_BYTES: Final = 64 * 2**20
"""Largest payload. Redis takes 512 MB, but serves nobody else meanwhile, and not within our time-out."""
_STEP: Final = 500
"""Entries in one command or pipeline, so that others have their turn."""
_TALLY: Final = 64
_TALLY_S: Final = 1.0


class RedisSpace:
    """See `store.Space`."""

    def __init__(self, client: Client, name: bytes) -> None:
        self._client = client
        self._prefix = client.prefix + b"e:" + name + b"\0"
        self._stats_key = client.prefix + b"s:" + name
        self._made = _Tally(client, self._stats_key)

    @property
    def _tally(self) -> _Tally:
        """That of this process: what its parent has not told yet, the parent will tell."""
        if self._made.pid != os.getpid():
            self._made = _Tally(self._client, self._stats_key)
        return self._made

    def get(self, key: bytes) -> bytes | None:
        payload: bytes | None = self._client.command("GET", self._prefix + key)
        self._tally.count([payload])
        return payload

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for some in _steps(keys):
            found += self._client.command("MGET", *(self._prefix + key for key in some))
        self._tally.count(found)
        return found

    def set(self, key: bytes, payload: bytes, ttl_s: float | None, when: When = When.ALWAYS) -> bool:
        _check(payload)
        words: list[Any] = ["SET", self._prefix + key, payload, *_life(ttl_s)]
        if when is not When.ALWAYS:
            words.append("NX" if when is When.ABSENT else "XX")
        return bool(self._client.command(*words))

    def set_many(self, items: Sequence[tuple[bytes, bytes]], ttl_s: float | None) -> None:
        for _, payload in items:
            _check(payload)
        life = _life(ttl_s)
        for some in _steps(items):

            def store(r: Any, some: Sequence[tuple[bytes, bytes]] = some) -> None:
                with r.pipeline(transaction=False) as pipeline:
                    for key, payload in some:
                        pipeline.execute_command("SET", self._prefix + key, payload, *life)
                    pipeline.execute()

            self._client.call(store)

    def swap(self, key: bytes, expected: bytes, payload: bytes, ttl_s: float | None) -> bool:
        _check(payload)
        life = "" if ttl_s is None else milliseconds(ttl_s)
        return bool(self._client.run(scripts.SWAP, [self._prefix + key], [expected, payload, life]))

    def touch(self, key: bytes, ttl_s: float | None) -> bool:
        full = self._prefix + key
        if ttl_s is not None:
            return bool(self._client.command("PEXPIRE", full, milliseconds(ttl_s)))

        def keep(r: Any) -> bool:
            with r.pipeline(transaction=True) as pipeline:
                pipeline.exists(full)
                pipeline.persist(full)
                return bool(pipeline.execute()[0])

        return self._client.call(keep)

    def delete(self, keys: Sequence[bytes]) -> int:
        gone = 0
        for some in _steps(keys):
            gone += int(self._client.command("UNLINK", *(self._prefix + key for key in some)))
        return gone

    def increment(self, key: bytes, amount: int, initial: int | None, ttl_s: float | None) -> int | None:
        if not -(2**63) <= amount < 2**63 or (initial is not None and not -(2**63) <= initial < 2**63):
            raise NotANumberError(f"{key!r} has 64 bits: {amount} more do not fit")
        life = "" if ttl_s is None else milliseconds(ttl_s)
        start = "" if initial is None else initial
        where = [self._prefix + key, self._client.prefix + b"scratch"]
        try:
            answer = self._client.run(scripts.INCREMENT, where, [amount, start, life])
        except NotANumberError as error:
            if "large" in str(error):
                raise NotANumberError(f"{key!r} has 64 bits: {amount} more do not fit") from error
            raise NotANumberError(f"{key!r} is no integer, so nothing can be added to it") from error
        return None if answer is None else int(answer)

    def keys(self) -> Iterator[bytes]:
        cut = len(self._prefix)
        seen: set[bytes] = set()
        for page in self._client.scan(self._prefix):
            new = set(page) - seen  # SCAN may give a key twice when the server's table grows
            seen |= new
            for full in new:
                yield full[cut:]

    def clear(self) -> None:
        for page in self._client.scan(self._prefix):
            self._client.command("UNLINK", *page)

    def stats(self) -> Stats:
        self._tally.tell()

        def ask(r: Any) -> list[Any]:
            with r.pipeline(transaction=False) as pipeline:
                pipeline.hmget(self._stats_key, "hits", "misses")
                pipeline.info("memory")
                pipeline.info("stats")
                answers: list[Any] = pipeline.execute()
                return answers

        (hits, misses), memory, stats = self._client.call(ask)
        return Stats(
            hits=int(hits or 0),
            misses=int(misses or 0),
            evictions=int(stats["evicted_keys"]),
            bytes=int(memory["used_memory"]),
            limit_bytes=int(memory.get("maxmemory", 0)),
        )


class _Tally:
    """Hits and misses of this process that the server has not been told yet: a read shall not have to write each time."""

    def __init__(self, client: Client, key: bytes) -> None:
        self.pid = os.getpid()
        self._client = client
        self._key = key
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        self._told_s = 0.0

    def count(self, found: Sequence[bytes | None]) -> None:
        missed = found.count(None)
        with self._lock:
            self._hits += len(found) - missed
            self._misses += missed
            is_due = self._hits + self._misses >= _TALLY or time.monotonic() >= self._told_s + _TALLY_S
        if is_due:
            self.tell()

    def tell(self) -> None:
        """Tell the server. If it is not there just now, later."""
        with self._lock:
            hits, misses = self._hits, self._misses
            self._hits = self._misses = 0
            self._told_s = time.monotonic()
        if not hits and not misses:
            return

        def add(r: Any) -> None:
            with r.pipeline(transaction=True) as pipeline:
                pipeline.hincrby(self._key, "hits", hits)
                pipeline.hincrby(self._key, "misses", misses)
                pipeline.execute()

        try:
            self._client.call(add)
        except StoreError:  # the read was answered: its count is not worth an error
            with self._lock:
                self._hits += hits
                self._misses += misses


def _life(ttl_s: float | None) -> tuple[Any, ...]:
    return () if ttl_s is None else ("PX", milliseconds(ttl_s))


def _check(payload: bytes) -> None:
    if len(payload) > VALUE_BYTES:
        raise ValueTooLargeError(
            f"a value of {len(payload)} bytes is larger than is sent to a server: {VALUE_BYTES} bytes"
        )


def _steps(items: Sequence[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, _STEP)):
        yield some
