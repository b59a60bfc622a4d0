"""One connection of our HTTP server, on a real socket pair, fed piece by exact piece.

The pieces are handed to the protocol itself, since a kernel joins what was written apart; answers come back through the
real transport. No test here waits for time: `settle` turns the loop until the connection has nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import trustme
import uvloop

from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.limits import HttpLimits
from prefork.http.protocol import HttpProtocol
from prefork.http.request import NameCache
from prefork.http.server import HttpServer
from prefork.http.site import Site

T = TypeVar("T")
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
LIMIT_S = 45.0
"""Bound of everything that is waited for."""


def run(loop_name: str, story: Callable[[], Awaitable[T]]) -> T:
    """Run a story on one kind of loop; what reaches the loop's exception handler fails it."""
    escaped: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: escaped.append(context))
        async with asyncio.timeout(LIMIT_S):
            return await story()

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        result = runner.run(bounded())
    assert not escaped
    return result


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with method, path, query and body."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    text = b" ".join(
        (scope["method"].encode(), scope["path"].encode(), b"[%b]" % scope["query_string"], b"[%b]" % body)
    )
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


@dataclass(frozen=True)
class Answer:
    """One answer off the wire."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def __getitem__(self, name: str) -> bytes | None:
        found = [value for key, value in self.headers if key == name.encode()]
        assert len(found) < 2, f"{name} comes twice"
        return found[0] if found else None


def answers(raw: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """Take apart what a connection has answered; every byte must belong to an answer."""
    found: list[Answer] = []
    while raw:
        head, separator, raw = raw.partition(b"\r\n\r\n")
        assert separator, f"no whole head: {head!r}"
        first, *lines = head.split(b"\r\n")
        matched = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*", first)
        assert matched, f"no status line: {first!r}"
        pairs = tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines))
        status = int(matched[1])
        answer = Answer(status, pairs, b"")
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        body, raw = _body(answer, raw, has_none=method == "HEAD" or status in (100, 204, 304))
        found.append(Answer(status, pairs, body))
    return found


def _body(answer: Answer, raw: bytes, *, has_none: bool) -> tuple[bytes, bytes]:
    if has_none:
        return b"", raw
    if answer["transfer-encoding"] == b"chunked":
        body = b""
        while True:
            size, _, raw = raw.partition(b"\r\n")
            chunk, raw = raw[: int(size, 16)], raw[int(size, 16) :]
            assert raw[:2] == b"\r\n"
            raw = raw[2:]
            if not chunk:
                return body, raw
            body += chunk
    length = answer["content-length"]
    if length is None:
        return raw, b""
    assert len(raw) >= int(length), "the body is cut short"
    return raw[: int(length)], raw[int(length) :]


class Wire:
    """A connection from both ends. An async context manager."""

    def __init__(
        self,
        app: Any = echo,
        *,
        limits: HttpLimits | None = None,
        state: Any = None,
        site: Site | None = None,
        kind: type[HttpProtocol] = HttpProtocol,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.connections: Connections[HttpProtocol] = Connections(loop.time)
        self.clock = Clock(loop, self.connections)
        self.engine = Engine(app, loop, self.clock, state or {})
        self.limits = limits or HttpLimits()
        self.site = site or Site()
        self.kind = kind
        self.received = b""

    async def __aenter__(self) -> Self:
        ours, self.client = socket.socketpair()
        self.client.setblocking(False)
        _, self.protocol = await self.loop.connect_accepted_socket(self.make, ours)
        return self

    def make(self) -> HttpProtocol:
        """What the server makes for a connection."""
        return self.kind(self.engine, self.limits, self.connections, NameCache(), self.site)

    async def another(self) -> HttpProtocol:
        """A connection of the same worker, in place of the one before."""
        self.client.close()
        await self.until(lambda: self.protocol not in self.connections)
        return (await self.__aenter__()).protocol

    async def __aexit__(self, *_exc: object) -> None:
        self.client.close()
        if self.protocol in self.connections:
            self.protocol.abort()
        while self.connections or self.engine.running:  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)
        self.clock.stop()

    @property
    def is_closing(self) -> bool:
        """The server has decided to close."""
        return self.protocol._phase >= 3

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if piece and self.protocol in self.connections:
                self.protocol.data_received(piece)

    async def settle(self) -> None:
        """Turn the loop until the connection has nothing to do; for applications that wait for nothing else."""
        protocol = self.protocol
        while not self.is_closing and (
            protocol._exchange or protocol._unfed or protocol._refusal or protocol._reader.queue
        ):
            exchange = protocol._exchange
            if exchange is not None and exchange.is_waiting_for_body:
                break
            self.take()
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until it is so."""
        while not condition():  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)

    def take(self) -> None:
        """Take what has come, without waiting."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            self.received += self.client.recv(2**20)

    async def read(self, until: bytes) -> bytes:
        """Read until `until` has come; all that was read."""
        while until not in self.received:
            data = await self.loop.sock_recv(self.client, 2**16)
            assert data, f"closed before {until!r}: {self.received!r}"
            self.received += data
        return self.received

    async def read_to_end(self) -> bytes:
        """Say that nothing more comes, and read until the server closes: all that was read."""
        self.client.shutdown(socket.SHUT_WR)
        while data := await self._recv():
            self.received += data
        return self.received

    async def _recv(self) -> bytes:
        try:
            return await self.loop.sock_recv(self.client, 2**16)
        except ConnectionResetError:
            self.received += b"<reset>"
            return b""


async def converse(pieces: Iterable[bytes], app: Any = echo, **options: Any) -> tuple[bytes, bool]:
    """Feed all the pieces: what came back, without dates, and whether the server closed by itself."""
    async with Wire(app, **options) as wire:
        for piece in pieces:
            wire.feed(piece)
            await asyncio.sleep(0)
        await wire.settle()
        is_closing = wire.is_closing
        raw = await wire.read_to_end()
        return re.sub(rb"date: [^\r]*GMT", b"date: now", raw), is_closing


class Pair:
    """A certificate for localhost, and who believes it."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self._issued = self.authority.issue_cert("localhost")

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@contextlib.asynccontextmanager
async def served(server: HttpServer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve over loopback: the port. Drained at the end, so what is open there has to end by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = asyncio.ensure_future(server.serve_many([listener], context))
        try:
            yield listener.getsockname()[1]
        finally:
            server.drain()
            await serving
