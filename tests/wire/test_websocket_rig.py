"""A WebSocket from both ends: ours on a real socket pair, fed piece by exact piece, and a client by the `websockets` library.

Time stands still unless a test moves it. No tests in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Self, cast

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.limits import HttpLimits
from prefork.http.websocket import WebSocketProtocol
from prefork.http.websocket_session import CLOSED
from tests.wire.rig import LOOPS

both_loops = pytest.mark.parametrize("loop", LOOPS)
DATE = b"\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT"


class FakeClock:
    """A clock that only a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.is_awake = True
        self.date_line = DATE

    def wake(self) -> None: ...


class Before(asyncio.Protocol):
    """The connection that has read the request."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and send back what comes until the client goes."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Told:
    """An echo that keeps what it is told, and answers as `says` goes; then it waits for the end."""

    def __init__(self, *says: dict[str, Any]) -> None:
        self.says = says or ({"type": "websocket.accept"},)
        self.messages: list[dict[str, Any]] = []
        self.scope: dict[str, Any] = {}
        self.failure: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.receive, self.send = receive, send
        self.messages.append(await receive())
        try:
            for message in self.says:
                await send(message)
        except BaseException as error:
            self.failure = error
            raise
        while self.messages[-1]["type"] != "websocket.disconnect":
            self.messages.append(await receive())

    @property
    def payloads(self) -> list[Any]:
        return [each.get("text", each.get("bytes")) for each in self.messages if "code" not in each][1:]

    @property
    def end(self) -> tuple[int, str]:
        last = self.messages[-1]
        assert last["type"] == "websocket.disconnect"
        return last["code"], last["reason"]


class Wire:
    """A WebSocket from both ends. An async context manager; the handshake is done by `open`."""

    def __init__(
        self, app: Any = echo, *, limits: HttpLimits | None = None, deflate: bool = False, **options: Any
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = FakeClock()
        self.connections: Connections[Any] = Connections(self.loop.time)
        self.engine = Engine(app, self.loop, cast(Any, self.clock), {})
        self.limits = limits or HttpLimits()
        extensions = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if deflate else None
        self.peer = ClientProtocol(
            parse_uri("ws://a/chat?x=1"), extensions=extensions, max_size=None, **options
        )
        self.frames: list[Frame] = []
        self.is_eof = False
        self.raw = b""

    async def __aenter__(self) -> Self:
        ours, self.client = socket.socketpair()
        for end in (ours, self.client):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self.client.setblocking(False)
        self.transport, self.before = await self.loop.connect_accepted_socket(Before, ours)
        self.connections.add(self.before)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.client.close()
        self.transport.abort()
        await self.until(lambda: not self.connections - {self.before} and not self.engine.running)

    def request(self) -> dict[str, Any]:
        """The scope of the client's own request."""
        self.peer.send_request(self.peer.connect())
        _, *lines = b"".join(self.peer.data_to_send()).decode().strip().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/chat",
            "raw_path": b"/chat",
            "query_string": b"x=1",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in pairs],
            "state": {"shared": 1},
            "extensions": {"http.response.pathsend": {}},
        }

    def begin(self, rest: bytes = b"", scope: dict[str, Any] | None = None) -> None:
        """The request is read, and `rest` behind it."""
        scope = scope or self.request()
        self.protocol = WebSocketProtocol(self.engine, self.limits, self.connections, self.transport, scope)
        self.protocol.begin(rest)

    async def open(self, rest: bytes = b"") -> Self:
        """Shake hands."""
        self.begin(rest)
        await self.hear(lambda: self.peer.state is not State.CONNECTING)
        assert self.peer.handshake_exc is None, self.peer.handshake_exc
        return self

    def pump(self) -> None:
        """Take what has come, without waiting."""
        with contextlib.suppress(BlockingIOError):
            try:
                data = self.client.recv(2**20)
            except ConnectionResetError:
                data = b""
                self.raw += b"<reset>"
            self.raw += data
            if self.is_eof:
                return
            if data:
                self.peer.receive_data(data)
            else:
                self.is_eof = True
                self.peer.receive_eof()
            self.frames += [event for event in self.peer.events_received() if isinstance(event, Frame)]

    def feed(self, *pieces: bytes) -> None:
        """Hand exact pieces to the protocol."""
        for piece in pieces:
            if piece and self.protocol.state < CLOSED:
                self.protocol.data_received(piece)

    def said(self) -> bytes:
        """What the client has to send by now."""
        return b"".join(self.peer.data_to_send())

    async def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until it is so."""
        while not condition():  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)

    async def hear(self, condition: Callable[[], object]) -> None:
        """Take what comes until it is so."""
        while not condition():
            await asyncio.sleep(0)
            self.pump()

    async def heard(self, count: int) -> list[bytes]:
        """The payloads of the first `count` frames from the server."""
        await self.hear(lambda: len(self.frames) >= count)
        return [bytes(frame.data) for frame in self.frames]

    async def ended(self) -> Close | None:
        """The server's close frame, if there was one, once it has closed the connection. The client answers what it hears."""

        def is_over() -> bool:
            self.pump()
            self.feed(self.said())
            return self.is_eof

        await self.until(is_over)
        return self.peer.close_rcvd

    async def settle(self) -> None:
        """Let the application take what there is."""
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def is_reading(self) -> bool:
        return self.transport.is_reading()


def masked(first: int, payload: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """A frame from a client; `first` is its whole first byte."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 0x10000:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
