"""Clients that count: one request at a time each, over raw sockets, and every failure has a name.

Rules:

1. No retry. A request that was begun is answered or failed; tried == answered + failed, always.
2. Half of the clients (the even ones) open a fresh connection per request and say `Connection: close`; the
   other half keep theirs, and open another only where the answer says `Connection: close` (or ended by
   closing), or after a failure.
3. A failure is named by the phase it happened in (connect, send, head, body) and by its kind (refused,
   reset, closed, short, garbled, timeout, …); a status of 400 and above is one too, "status: 503".
4. A kept connection that the server has closed *before* the next request is written is not a failed
   request: no request was made. It is counted apart (`idle_closes`), so that a test can forbid it as well.
5. A stop lets each client finish the request it is at.

A worker makes itself known by its pid: in a header `X-Worker-Pid` or `X-Pid`, or in the body as "pid 123",
"pid=123", "pid": 123, or as nothing but digits.

Not here: the process around it, the command line, the report's format (load.py). No TLS, no pipelining.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

READ_BYTES = 65_536
HEAD_LIMIT_BYTES = 65_536
FAILURES_KEPT = 20
PAUSE_AFTER_FAILURE_S = 0.01
"""A refused connection fails in microseconds: without a pause one dead second would count ten thousand."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?\Z")
_PID_HEADERS = (b"x-worker-pid", b"x-pid")
_PID_IN_BODY = re.compile(rb"pid\W{1,4}(\d+)|\A\s*(\d+)\s*\Z", re.IGNORECASE)
_WITHOUT_BODY = frozenset({204, 304})


class RequestFailedError(Exception):
    """One request was not answered as it should; `kind` is what it is counted under."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind} ({detail})" if detail else kind)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go and what to ask for. `path` of a Unix socket, else `host` and `port`."""

    host: str
    port: int
    unix_path: str
    request_path: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """From "http://host:port/path" or "unix:/run/app.sock". ValueError for anything else."""
        if url.startswith("unix:"):
            return cls("", 0, url.removeprefix("unix:").removeprefix("//"), "/")
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            msg = f"not a URL for load: {url!r}; give http://HOST:PORT/PATH or unix:PATH"
            raise ValueError(msg)
        request_path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname, parts.port or 80, "", request_path)

    def request(self, *, keep_alive: bool) -> bytes:
        """The bytes of the one request that a client repeats."""
        host = f"{self.host}:{self.port}" if not self.unix_path else "localhost"
        connection = "" if keep_alive else "Connection: close\r\n"
        return f"GET {self.request_path} HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n".encode()


@dataclass(slots=True)
class Tally:
    """What has been counted. One for all clients: they share one thread."""

    tried: int = 0
    answered: int = 0
    connections: int = 0
    idle_closes: int = 0
    slowest_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    workers: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Answer:
    status: int
    worker: str
    stays_open: bool


class _Connection:
    """One connection, its phase for the naming of failures, and what was read beyond the last answer."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = bytearray()
        self._sock = socket.socket(socket.AF_UNIX if target.unix_path else _family(target.host))
        self._sock.setblocking(False)
        self.phase = "connect"

    async def open(self) -> None:
        target = self._target
        address = target.unix_path or (target.host, target.port)
        await asyncio.get_running_loop().sock_connect(self._sock, address)

    def close(self) -> None:
        self._sock.close()

    def was_closed_by_peer(self) -> bool:
        """Whether the end of the stream has arrived while nothing was asked."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False

    async def ask(self, request: bytes, expected: bytes) -> _Answer:
        self.phase = "send"
        await asyncio.get_running_loop().sock_sendall(self._sock, request)
        self.phase = "head"
        status, version, headers = _parse_head(await self._read_head())
        self.phase = "body"
        body, is_framed = await self._read_body(status, headers)
        if self._buffer:
            raise RequestFailedError(
                "body: garbled", f"more than was announced: {bytes(self._buffer[:60])!r}"
            )
        if status >= 400:
            raise RequestFailedError(f"status: {status}", bytes(body[:200]).decode(errors="replace"))
        if expected not in body:
            raise RequestFailedError("body: garbled", f"not what was expected: {bytes(body[:60])!r}")
        connection = headers.get(b"connection", b"").lower()
        stays_open = (
            is_framed and b"close" not in connection and (version == 1 or b"keep-alive" in connection)
        )
        return _Answer(status, _worker_of(headers, body), stays_open)

    async def _more(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
        self._buffer += data
        return bool(data)

    async def _read_head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise RequestFailedError("head: garbled", "no end of the head")
            if not await self._more():
                raise RequestFailedError("head: short" if self._buffer else "head: closed")
        return self._take(end + 4)[:-4]

    async def _read_body(self, status: int, headers: dict[bytes, bytes]) -> tuple[bytes, bool]:
        if status in _WITHOUT_BODY:
            return b"", True
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return await self._read_chunks(), True
        announced = headers.get(b"content-length")
        if announced is not None:
            if not announced.isdigit():
                raise RequestFailedError("head: garbled", f"Content-Length: {announced!r}")
            return await self._read_exactly(int(announced)), True
        while await self._more():
            pass
        return self._take(len(self._buffer)), False

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = await self._read_line()
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise RequestFailedError("body: garbled", f"chunk size {line[:60]!r}") from None
            if size == 0:
                while await self._read_line():  # trailers
                    pass
                return bytes(body)
            body += await self._read_exactly(size)
            if await self._read_exactly(2) != b"\r\n":
                raise RequestFailedError("body: garbled", "no end of the chunk")

    async def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise RequestFailedError("body: garbled", "no end of the line")
            if not await self._more():
                raise RequestFailedError("body: short")
        return self._take(end + 2)[:-2]

    async def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more():
                raise RequestFailedError("body: short", f"{len(self._buffer)} of {size} bytes")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class Client:
    """One client: asks, counts, asks again, until `stop` is set."""

    def __init__(
        self,
        target: Target,
        tally: Tally,
        stop: asyncio.Event,
        *,
        keep_alive: bool,
        timeout_s: float,
        expected: bytes = b"",
        pause_s: float = 0.0,
    ) -> None:
        self._pause_s = pause_s
        self._target = target
        self._tally = tally
        self._stop = stop
        self._keep_alive = keep_alive
        self._timeout_s = timeout_s
        self._expected = expected
        self._request = target.request(keep_alive=keep_alive)
        self._connection: _Connection | None = None
        self._asked_on_connection = 0
        self.tried_once = asyncio.Event()

    async def run(self) -> None:
        """Ask until told to stop. Raises nothing that a server can cause."""
        try:
            while not self._stop.is_set():
                is_answered = await self._one_request()
                self.tried_once.set()
                if pause_s := self._pause_s if is_answered else PAUSE_AFTER_FAILURE_S:
                    await asyncio.sleep(pause_s)
        finally:
            self.tried_once.set()  # told to stop before it began: nobody shall wait for it
            self._hang_up()

    async def _one_request(self) -> bool:
        tally = self._tally
        self._drop_idle_connection()
        tally.tried += 1
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask()
        except RequestFailedError as error:
            self._count_failure(error.kind, error.detail)
        except TimeoutError:
            # Also what the kernel says when it gives a connection up (ETIMEDOUT): the same to a client.
            self._count_failure(f"{self._phase}: timeout", f"after {time.monotonic() - started_s:.3f} s")
        except OSError as error:
            self._count_failure(f"{self._phase}: {_kind_of(error)}", repr(error))
        else:
            tally.answered += 1
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - started_s)
            if answer.worker:
                tally.workers[answer.worker] += 1
            if not (self._keep_alive and answer.stays_open):
                self._hang_up()
            return True
        self._hang_up()
        return False

    async def _ask(self) -> _Answer:
        if self._connection is None:
            self._connection = _Connection(self._target)
            self._asked_on_connection = 0
            await self._connection.open()
            self._tally.connections += 1
        self._asked_on_connection += 1
        return await self._connection.ask(self._request, self._expected)

    def _drop_idle_connection(self) -> None:
        if self._connection is None:
            return
        try:
            is_closed = self._connection.was_closed_by_peer()
        except OSError:
            is_closed = False  # a reset: the request will meet it again, and be counted for it
        if is_closed:
            self._tally.idle_closes += 1
            self._hang_up()

    @property
    def _phase(self) -> str:
        return self._connection.phase if self._connection else "connect"

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _count_failure(self, kind: str, detail: str) -> None:
        self._tally.failed[kind] += 1
        if len(self._tally.failures) < FAILURES_KEPT:
            self._tally.failures.append(
                {
                    "time": time.time(),
                    "kind": kind,
                    "detail": detail,
                    "client": "keep-alive" if self._keep_alive else "fresh",
                    "request_on_connection": self._asked_on_connection,
                }
            )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _kind_of(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError() | BrokenPipeError():
            return "reset"
        case FileNotFoundError():
            return "missing"  # the Unix socket's file
        case _:
            return error.strerror or type(error).__name__


def _parse_head(head: bytes) -> tuple[int, int, dict[bytes, bytes]]:
    """(status, minor version, headers by lower-case name). RequestFailedError where it is no HTTP."""
    lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.match(lines[0])
    if status_line is None:
        raise RequestFailedError("head: garbled", repr(lines[0][:60]))
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise RequestFailedError("head: garbled", repr(line[:60]))
        headers[name.strip().lower()] = value.strip()
    return int(status_line[2]), int(status_line[1]), headers


def _worker_of(headers: dict[bytes, bytes], body: bytes) -> str:
    for name in _PID_HEADERS:
        if name in headers:
            return headers[name].decode(errors="replace")
    found = _PID_IN_BODY.search(body[:200])
    return (found[1] or found[2]).decode() if found else ""
