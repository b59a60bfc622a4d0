"""`WebSocketProtocol` from the handshake to the close, on a real socket pair, with the `websockets` client at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.exchange import ClientDisconnectedError
from prefork.http.limits import HttpLimits
from prefork.http.response import ResponseError
from prefork.http.websocket import CLOSE_S, WebSocketProtocol
from prefork.http.websocket_session import CLOSED, CLOSING, FINISHING, OPEN
from tests.wire.rig import LOOPS, answers, run

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

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


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
    def payloads(self) -> list[str | bytes]:
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
        transport, self.before = await self.loop.connect_accepted_socket(Before, ours)
        self.transport = cast(asyncio.Transport, transport)
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
        await self.until(lambda: self.pump() or self.peer.state is not State.CONNECTING)
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

    async def heard(self, count: int) -> list[bytes]:
        """The payloads of the first `count` frames from the server."""
        await self.until(lambda: self.pump() or len(self.frames) >= count)
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


def story(loop: str, told: Callable[[], Awaitable[None]]) -> None:
    run(loop, told)


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


# -- the handshake -----------------------------------------------------------------------------------


@both_loops
def test_the_application_gets_the_scope_that_asgi_describes(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept", "subprotocol": "soap", "headers": [(b"X-One", b"1")]})
        async with Wire(app, subprotocols=["chat", "soap"]) as wire:
            await wire.open()
            assert wire.peer.subprotocol == "soap"
            assert b"\r\nx-one: 1\r\n" in wire.raw
            wanted = {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "scheme": "ws",
                "path": "/chat",
                "raw_path": b"/chat",
                "query_string": b"x=1",
                "root_path": "",
                "subprotocols": ["chat", "soap"],
                "state": {"shared": 1},
                "extensions": {"websocket.http.response": {}},
            }
            assert {**app.scope, **wanted} == app.scope
            assert set(app.scope) - set(wanted) == {"headers"}
            assert app.messages == [{"type": "websocket.connect"}]

    story(loop, told)


def test_https_becomes_wss_and_the_tls_extension_stays() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            wire.begin(scope={**wire.request(), "scheme": "https", "extensions": {"tls": {"x": 1}}})
            await wire.until(lambda: app.messages)
            assert app.scope["scheme"] == "wss"
            assert app.scope["extensions"] == {"websocket.http.response": {}, "tls": {"x": 1}}

    story("uvloop", told)


@both_loops
def test_the_connection_takes_the_place_of_the_one_before_it(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            assert wire.connections == {wire.protocol}
            assert wire.transport.get_protocol() is wire.protocol

    story(loop, told)


def without(name: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        scope["headers"] = [header for header in scope["headers"] if header[0] != name]

    return change


def put(name: bytes, value: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        without(name)(scope)
        scope["headers"].append((name, value))

    return change


def twice(name: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        scope["headers"] += [header for header in scope["headers"] if header[0] == name]

    return change


IMPOSSIBLE = {
    "no version": (without(b"sec-websocket-version"), 400),
    "version 12": (put(b"sec-websocket-version", b"12"), 426),
    "two versions": (twice(b"sec-websocket-version"), 426),
    "no key": (without(b"sec-websocket-key"), 400),
    "two keys": (twice(b"sec-websocket-key"), 400),
    "a key of 15 bytes": (put(b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAA"), 400),
    "a key that is not base64": (put(b"sec-websocket-key", b"!GhlIHNhbXBsZSBub25jZQ=="), 400),
    "another upgrade": (put(b"upgrade", b"h2c"), 400),
    "no connection: upgrade": (put(b"connection", b"keep-alive"), 400),
    "POST": (lambda scope: scope.update(method="POST"), 400),
    "HTTP/1.0": (lambda scope: scope.update(http_version="1.0"), 400),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_request_is_refused_and_no_application_is_called(case: str) -> None:
    change, status = IMPOSSIBLE[case]

    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            scope = wire.request()
            change(scope)
            wire.begin(b"what came behind it", scope)
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert answer.status == status
            assert answer["connection"] == b"close"
            assert answer["sec-websocket-version"] == (b"13" if status == 426 else None)
            assert answer["upgrade"] == (b"websocket" if status == 426 else None)
            assert not app.scope

    story("asyncio", told)


def test_the_key_is_answered_as_in_the_rfc() -> None:
    async def told() -> None:
        async with Wire() as wire:
            scope = wire.request()
            put(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")(scope)
            wire.begin(scope=scope)
            while b"\r\n\r\n" not in wire.raw:
                wire.raw += await wire.loop.sock_recv(wire.client, 1000)
            assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in wire.raw

    story("asyncio", told)


@pytest.mark.parametrize(
    "accept",
    [
        {"headers": [(b"Sec-WebSocket-Protocol", b"chat")]},
        {"headers": [(b"Sec-WebSocket-Accept", b"x")]},
        {"headers": [(b"Upgrade", b"x")]},
        {"headers": [(b"Content-Length", b"0")]},
        {"headers": [(b"x", b"1\r\ny: 2")]},
        {"headers": [(b"x y", b"1")]},
        {"subprotocol": "other"},
    ],
)
def test_an_impossible_accept_is_the_applications_mistake(
    accept: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept", **accept})
        async with Wire(app, subprotocols=["chat"]) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [500]
            assert isinstance(app.failure, ResponseError)

    story("asyncio", told)
    assert "the application raised" in caplog.text


@both_loops
def test_what_came_with_the_request_is_the_first_message(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open(masked(0x81, b"early") + masked(0x82, b"bird")[:3])
            wire.feed(masked(0x82, b"bird")[3:])
            assert await wire.heard(2) == [b"early", b"bird"]

    story(loop, told)


@both_loops
def test_a_client_that_does_not_wait_for_the_accept_is_kept_within_bounds(loop: str) -> None:
    async def told() -> None:
        accept = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await accept.wait()
            await echo(scope, receive, send)

        async with Wire(slow) as wire:
            wire.begin(masked(0x82, b"x" * 60_000))
            assert wire.is_reading
            wire.feed(masked(0x82, b"y" * 60_000))
            assert not wire.is_reading
            accept.set()
            assert await wire.heard(2) == [b"x" * 60_000, b"y" * 60_000]
            assert wire.is_reading

    story(loop, told)


# -- refusals ----------------------------------------------------------------------------------------


@both_loops
def test_a_close_before_the_accept_is_403(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.close", "code": 4000})
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [403]
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1006, "")

    story(loop, told)


@both_loops
def test_an_application_may_refuse_with_an_answer_of_its_own(loop: str) -> None:
    async def told() -> None:
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X-Why", b"who")]}
        body = {"type": "websocket.http.response.body", "body": b"no"}
        app = Told(start, {**body, "more_body": True}, {**body, "body": b"body"})
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert (answer.status, answer.body, answer["x-why"]) == (401, b"nobody", b"who")
            assert answer["connection"] == b"close"
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1006, "")

    story(loop, told)


REFUSALS: dict[str, tuple[tuple[dict[str, Any], ...], list[int]]] = {
    "a message before the accept": (({"type": "websocket.send", "text": "x"},), [500]),
    "a body without its head": (({"type": "websocket.http.response.body", "body": b"x"},), [500]),
    "a head, then an accept": (
        ({"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.accept"}),
        [500],
    ),
    "two heads": (({"type": "websocket.http.response.start", "status": 401},) * 2, [500]),
    "an impossible status": (({"type": "websocket.http.response.start", "status": 42},), [500]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_out_of_order_is_the_applications_mistake(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    says, statuses = REFUSALS[case]

    async def told() -> None:
        app = Told(*says)
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == statuses
            assert isinstance(app.failure, ResponseError)

    story("asyncio", told)
    assert "the application raised" in caplog.text


@pytest.mark.parametrize("says", [(), ({"type": "websocket.http.response.start", "status": 200},)])
def test_an_application_that_returns_without_an_answer_is_500(
    says: tuple[dict[str, Any], ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in says:
                await send(message)

        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [500]

    story("asyncio", told)
    assert "returned and has not answered: WebSocket '/chat'" in caplog.text


def test_a_refusal_that_breaks_off_is_no_whole_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.http.response.start", "status": 401})
            await send({"type": "websocket.http.response.body", "body": b"half", "more_body": True})
            raise ValueError("half")

        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert b"0\r\n\r\n" not in wire.raw

    story("asyncio", told)
    assert "ValueError: half" in caplog.text


# -- messages ----------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("deflate", [False, True])
def test_every_size_comes_back(loop: str, deflate: bool) -> None:  # noqa: FBT001
    async def told() -> None:
        async with Wire(deflate=deflate) as wire:
            await wire.open()
            assert bool(wire.peer.extensions) is deflate
            wanted = []
            for size in (0, 1, 125, 126, 127, 128, 2047, 2048, 65535, 65536, 65537, 300_000):
                for payload in (b"t" * size, bytes(range(256)) * (size // 256) + b"b" * (size % 256)):
                    send = wire.peer.send_text if payload[:1] == b"t" else wire.peer.send_binary
                    send(payload)
                    wire.feed(wire.said())
                    wanted.append(payload)
                    assert (await wire.heard(len(wanted)))[-1] == payload
            assert wire.protocol.deadline_s != math.inf

    story(loop, told)


@both_loops
def test_text_is_text_and_bytes_are_bytes(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x81, "grün".encode()) + masked(0x82, b"\xff\0") + masked(0x81, b""))
            await wire.until(lambda: len(app.messages) == 4)
            assert app.messages[1:] == [
                {"type": "websocket.receive", "text": "grün"},
                {"type": "websocket.receive", "bytes": b"\xff\0"},
                {"type": "websocket.receive", "text": ""},
            ]
            assert type(app.messages[2]["bytes"]) is bytes

    story(loop, told)


@both_loops
def test_any_buffer_can_be_sent_and_changed_afterwards(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            buffer = bytearray(b"x" * 70_000)
            await app.send({"type": "websocket.send", "bytes": buffer})
            buffer[:] = b"y" * 70_000
            await app.send({"type": "websocket.send", "bytes": memoryview(b"view"), "text": None})
            assert await wire.heard(2) == [b"x" * 70_000, b"view"]

    story(loop, told)


@both_loops
def test_a_ping_is_answered_in_the_midst_of_a_fragmented_message(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            wire.feed(masked(0x01, b"gr\xc3"), masked(0x89, b"p1") + masked(0x89, b""))
            wire.feed(masked(0x00, b"\xbc"), masked(0x8A, b"unasked"), masked(0x80, b"n"))
            assert await wire.heard(3) == [b"p1", b"", "grün".encode()]
            assert [frame.opcode for frame in wire.frames] == [Opcode.PONG, Opcode.PONG, Opcode.TEXT]

    story(loop, told)


@pytest.mark.parametrize(
    "message", [{}, {"text": None}, {"text": "x", "bytes": b"x"}, {"text": None, "bytes": None}]
)
def test_a_message_is_either_text_or_bytes(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.send", **message})
        async with Wire(app) as wire:
            await wire.open()
            ended = await wire.ended()
            assert isinstance(app.failure, ResponseError)
            assert ended is not None
            assert ended.code == 1011

    story("asyncio", told)
    assert "either text or bytes" in caplog.text


# -- what clients do wrong ---------------------------------------------------------------------------

SMALL = HttpLimits(message_bytes=1000)
WRONG: dict[str, tuple[bytes, int]] = {
    "no mask": (b"\x81\x01x", 1002),
    "no mask, long": (b"\x81\x7e\x00\xff", 1002),
    "opcode 3": (masked(0x83, b""), 1002),
    "opcode 11": (masked(0x8B, b""), 1002),
    "RSV1 without an agreement": (masked(0xC1, b"x"), 1002),
    "RSV2": (masked(0xA1, b"x"), 1002),
    "RSV3": (masked(0x91, b"x"), 1002),
    "a fragmented ping": (masked(0x09, b""), 1002),
    "a ping of 126 bytes": (masked(0x89, b"x" * 126), 1002),
    "a ping of 126 bytes, announced": (b"\x89\xfe\x00\x7e", 1002),
    "a ping with RSV1": (masked(0xC9, b""), 1002),
    "a continuation of nothing": (masked(0x80, b"x"), 1002),
    "a message within another": (masked(0x01, b"x") + masked(0x81, b"y"), 1002),
    "a length in too many bytes": (b"\x81\xfe\x00\x7d\0\0\0\0", 1002),
    "a length in far too many bytes": (b"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", 1002),
    "a close frame of one byte": (masked(0x88, b"\x03"), 1002),
    "a close code that may not be sent": (masked(0x88, struct.pack("!H", 1005)), 1002),
    "a close code of nobody": (masked(0x88, struct.pack("!H", 2999)), 1002),
    "a close reason that is not UTF-8": (masked(0x88, struct.pack("!H", 1000) + b"\xff"), 1007),
    "text that is not UTF-8": (masked(0x81, b"\xff"), 1007),
    "fragmented text that is not UTF-8": (masked(0x01, b"\xc3") + masked(0x80, b"\xc3"), 1007),
    "too big": (masked(0x82, b"x" * 1001), 1009),
    "too big, announced": (b"\x82\xff\0\0\0\0\xff\xff\xff\xff", 1009),
    "too big, in the highest bit": (b"\x82\xff\xff\0\0\0\0\0\0\0", 1009),
    "too big in pieces": (masked(0x02, b"x" * 600) + masked(0x80, b"y" * 401), 1009),
    "too big in small pieces": (masked(0x02, b"x" * 1000) + masked(0x80, b"y"), 1009),
}


@both_loops
@pytest.mark.parametrize("way", ["whole", "byte by byte", "with more behind it"])
@pytest.mark.parametrize("case", WRONG)
def test_what_a_client_does_wrong_is_told_and_ends_the_connection(loop: str, way: str, case: str) -> None:
    frames, code = WRONG[case]
    trailing = masked(0x81, b"ignored") * 10_000 if way == "with more behind it" else b""
    good = masked(0x81, b"good")

    async def told() -> None:
        app = Told()
        async with Wire(app, limits=SMALL) as wire:
            await wire.open()
            if way == "byte by byte":
                wire.feed(*(bytes((byte,)) for byte in good + frames))
            else:
                wire.feed(good + frames + trailing)
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == code
            assert b"<reset>" not in wire.raw
            wire.feed(b"still sending")
            wire.client.close()
            await wire.until(lambda: not wire.engine.running)
            assert app.payloads == ["good"]
            assert app.end == (code, ended.reason)

    story(loop, told)


def test_the_biggest_message_is_as_big_as_the_limit_says() -> None:
    async def told() -> None:
        async with Wire(limits=SMALL) as wire:
            await wire.open()
            wire.feed(masked(0x82, b"x" * 1000), masked(0x02, b"x" * 999), masked(0x80, b"y"))
            assert [len(payload) for payload in await wire.heard(2)] == [1000, 1000]

    story("asyncio", told)


def test_pings_are_not_messages_for_the_limit() -> None:
    async def told() -> None:
        async with Wire(limits=HttpLimits(message_bytes=10)) as wire:
            await wire.open()
            wire.feed(masked(0x89, b"p" * 125), masked(0x81, b"x" * 10))
            assert await wire.heard(2) == [b"p" * 125, b"x" * 10]
            wire.feed(masked(0x81, b"x" * 11))
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == 1009

    story("asyncio", told)


# -- the end -----------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("code", [None, 1000, 1001, 3000, 4999])
def test_a_client_that_closes_is_answered_and_the_application_told(loop: str, code: int | None) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            wire.peer.send_text(b"last words")
            wire.peer.send_close(code, "bye" if code else "")
            wire.feed(wire.said())
            assert await wire.ended() == Close(code or 1005, "")
            await wire.until(lambda: not wire.engine.running)
            assert app.payloads == ["last words"]
            assert app.end == (code or 1005, "bye" if code else "")
            assert (await app.receive())["type"] == "websocket.disconnect"
            with pytest.raises(ClientDisconnectedError):
                await app.send({"type": "websocket.send", "text": "too late"})
            assert not wire.connections

    story(loop, told)


@both_loops
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_a_client_that_vanishes_is_1006(loop: str, how: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            if how == "reset":
                wire.transport.abort()
            else:
                wire.client.shutdown(socket.SHUT_WR)
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1006, "")
            with pytest.raises(OSError):
                await app.send({"type": "websocket.send", "text": "too late"})

    story(loop, told)


@both_loops
def test_a_client_that_leaves_before_the_accept_is_1006(loop: str) -> None:
    async def told() -> None:
        go = asyncio.Event()
        failures: list[Exception] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            assert await receive() == {"type": "websocket.connect"}
            assert (await receive())["code"] == 1006
            try:
                await send({"type": "websocket.accept"})
            except OSError as error:
                failures.append(error)

        async with Wire(app) as wire:
            wire.begin()
            wire.client.close()
            await wire.until(lambda: wire.protocol.state == CLOSED)
            go.set()
            await wire.until(lambda: not wire.engine.running)
            assert failures

    story(loop, told)


@both_loops
def test_the_application_closes_and_the_client_answers(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.close", "code": 4001, "reason": "over"})
        async with Wire(app) as wire:
            await wire.open()
            await wire.heard(1)
            assert wire.peer.close_rcvd == Close(4001, "over")
            assert wire.protocol.state == CLOSING
            wire.feed(masked(0x81, b"crossed") * 1000 + masked(0x89, b"ping"))
            wire.feed(wire.said())
            await wire.ended()
            assert len(wire.frames) == 1
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (4001, "over")
            assert app.payloads == []
            with pytest.raises(ClientDisconnectedError):
                await app.send({"type": "websocket.close"})

    story(loop, told)


@pytest.mark.parametrize(
    "close",
    [{"code": 1005}, {"code": 999}, {"code": "x"}, {"code": 1000, "reason": "x" * 124}, {"reason": 1}],
)
def test_a_close_that_cannot_be_said_is_the_applications_mistake(
    close: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.close", **close})
        async with Wire(app) as wire:
            await wire.open()
            await wire.heard(1)
            assert wire.peer.close_rcvd == Close(1011, "")
            assert isinstance(app.failure, ResponseError)

    story("asyncio", told)
    assert "the application raised" in caplog.text


@both_loops
def test_an_application_that_returns_has_closed(loop: str) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "only this"})

        async with Wire(app) as wire:
            await wire.open()
            assert (await wire.heard(2))[0] == b"only this"
            assert wire.peer.close_rcvd == Close(1000, "")
            wire.feed(wire.said())
            await wire.ended()
            assert not wire.engine.running

    story(loop, told)


@both_loops
def test_an_application_that_raises_is_1011_and_logged(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await receive()
            raise ValueError("broken")

        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x81, b"x"))
            await wire.heard(1)
            assert wire.peer.close_rcvd == Close(1011, "")

    story(loop, told)
    assert "the application raised: WebSocket '/chat'" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_to_have_sent_to_nobody_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await send({"type": "websocket.send", "text": "x"})

        async with Wire(app) as wire:
            await wire.open()
            wire.client.close()
            await wire.until(lambda: not wire.engine.running)

    with caplog.at_level(logging.INFO):
        story("asyncio", told)
    assert not caplog.records


@both_loops
def test_a_client_that_does_not_answer_our_close_is_left(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.close"})
        async with Wire(app) as wire:
            await wire.open()
            assert wire.protocol.deadline_s == wire.clock.now_s + CLOSE_S
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            assert await wire.ended() == Close(1000, "")

    story(loop, told)


@both_loops
def test_a_client_that_goes_on_after_its_mistake_is_read_for_a_while(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            wire.feed(masked(0x83, b""))
            await wire.ended()
            assert wire.protocol.state == FINISHING
            await wire.loop.sock_sendall(wire.client, b"z" * 100_000)
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            await wire.until(lambda: wire.protocol.state == CLOSED)

    story(loop, told)


# -- back-pressure -----------------------------------------------------------------------------------


@both_loops
def test_messages_that_nobody_takes_stop_the_reading(loop: str) -> None:
    async def told() -> None:
        taken: list[Any] = []
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await go.wait()
            while (message := await receive())["type"] == "websocket.receive":
                taken.append(message["text"])

        async with Wire(app) as wire:
            await wire.open()
            for base in (0, 1000):
                wire.feed(b"".join(masked(0x81, b"%d" % index) for index in range(base, base + 1000)))
            assert not wire.is_reading
            assert len(wire.protocol._session.messages) < 200  # type: ignore[union-attr]
            go.set()
            await wire.until(lambda: len(taken) == 2000)
            assert taken == [str(index) for index in range(2000)]
            assert wire.is_reading
            wire.feed(masked(0x88, b""))
            assert await wire.ended() == Close(1005, "")

    story(loop, told)


def test_what_is_decompressed_counts_as_what_came_out() -> None:
    async def told() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await go.wait()

        async with Wire(app, deflate=True) as wire:
            await wire.open()
            for _ in range(100):
                wire.peer.send_binary(b"\0" * 1_000_000)
            said = wire.said()
            assert len(said) < 200_000
            wire.feed(said)
            assert not wire.is_reading
            assert len(wire.protocol._session.messages) == 2  # type: ignore[union-attr]  # connect, and one
            go.set()

    story("asyncio", told)


@both_loops
def test_an_answer_in_the_queue_survives_a_receive_that_was_cancelled(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            await wire.settle()
            reader = asyncio.ensure_future(app.receive())
            await wire.settle()
            wire.feed(masked(0x81, b"one") + masked(0x81, b"two"))
            reader.cancel()
            await wire.until(lambda: len(app.messages) == 3)
            assert app.payloads == ["one", "two"]

    story(loop, told)


@both_loops
def test_send_waits_for_a_client_that_does_not_read(loop: str) -> None:
    async def told() -> None:
        sent: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            for index in range(100):
                await send({"type": "websocket.send", "bytes": b"x" * 50_000})
                sent.append(index)

        async with Wire(app) as wire:
            await wire.open()
            await wire.until(lambda: wire.protocol.is_write_paused)
            await wire.settle()
            assert len(sent) < 20
            assert wire.protocol.deadline_s == wire.clock.now_s + wire.limits.send_s
            assert len(await wire.heard(101)) == 101
            assert wire.peer.close_rcvd == Close(1000, "")

    story(loop, told)


@both_loops
def test_a_client_that_takes_nothing_is_given_up_after_send_s(loop: str) -> None:
    async def told() -> None:
        failures: list[Exception] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 50_000})
            except OSError as error:
                failures.append(error)
                raise

        async with Wire(app) as wire:
            await wire.open()
            await wire.until(lambda: wire.protocol.is_write_paused)
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            if wire.protocol.state < CLOSED:  # a byte or so was still on its way when it began to count
                wire.protocol.on_deadline(wire.protocol.deadline_s)
            await wire.until(lambda: not wire.engine.running)
            assert failures
            assert not wire.connections

    story(loop, told)


@both_loops
def test_a_client_that_pings_and_does_not_read_fills_no_memory(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            writer = asyncio.ensure_future(app.send({"type": "websocket.send", "bytes": b"x" * 10**6}))
            await wire.until(lambda: wire.protocol.is_write_paused)
            before = wire.transport.get_write_buffer_size()
            for index in range(1000):
                wire.feed(masked(0x89, b"%d" % index))
            assert wire.transport.get_write_buffer_size() <= before
            assert (await wire.heard(2))[1] == b"999"
            await writer

    story(loop, told)


# -- keep-alive --------------------------------------------------------------------------------------


@both_loops
def test_silence_is_pinged_and_then_ended(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            ping_s, start_s = wire.limits.ping_s, wire.clock.now_s
            assert wire.protocol.deadline_s == start_s + ping_s
            wire.clock.now_s = start_s + ping_s
            wire.protocol.on_deadline(wire.clock.now_s)
            await wire.heard(1)
            assert wire.frames[0].opcode is Opcode.PING
            assert wire.protocol.deadline_s == start_s + 2 * ping_s
            wire.clock.now_s = start_s + 2 * ping_s
            wire.protocol.on_deadline(wire.clock.now_s)
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == 1011
            wire.client.close()
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1011, "no answer to a ping")

    story(loop, told)


@both_loops
def test_a_pong_keeps_the_connection(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            ping_s = wire.limits.ping_s
            for rounds in range(1, 4):
                wire.clock.now_s += ping_s
                wire.protocol.on_deadline(wire.clock.now_s)
                await wire.heard(rounds)
                wire.feed(wire.said())  # the pong
            assert [frame.opcode for frame in wire.frames] == [Opcode.PING] * 3
            assert wire.protocol.state == OPEN

    story(loop, told)


def test_who_talks_is_not_pinged() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            wire.clock.now_s += 15
            wire.feed(masked(0x81, b"x"))
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            assert wire.protocol.deadline_s == wire.clock.now_s + wire.limits.ping_s
            await wire.settle()
            wire.pump()
            assert not wire.frames

    story("asyncio", told)


def test_nobody_is_given_up_while_we_do_not_read() -> None:
    async def told() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await go.wait()

        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x82, b"x" * 100_000))
            assert not wire.is_reading
            for _ in range(5):
                wire.clock.now_s += wire.limits.ping_s
                wire.protocol.on_deadline(wire.clock.now_s)
            assert wire.protocol.state == OPEN
            go.set()

    story("asyncio", told)


# -- a drain -----------------------------------------------------------------------------------------


@both_loops
def test_a_drain_closes_with_1012_and_waits_for_the_application(loop: str) -> None:
    async def told() -> None:
        go = asyncio.Event()
        ends: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            ends.append(await receive())
            await go.wait()

        async with Wire(app) as wire:
            await wire.open()
            wire.engine.keeps_alive = False
            wire.protocol.say_close()
            await wire.heard(1)
            assert wire.peer.close_rcvd == Close(1012, "service restart")
            wire.feed(wire.said())
            await wire.ended()
            await wire.until(lambda: wire.protocol.state == CLOSED)
            assert ends == [{"type": "websocket.disconnect", "code": 1012, "reason": "service restart"}]
            assert wire.engine.running
            go.set()
            await wire.until(lambda: not wire.engine.running)

    story(loop, told)


@both_loops
def test_who_does_not_answer_the_drains_close_is_left_at_the_end_of_the_linger(loop: str) -> None:
    async def told() -> None:
        async with Wire(Told()) as wire:
            await wire.open()
            wire.engine.keeps_alive = False
            wire.protocol.say_close()
            wire.protocol.say_close()
            await wire.heard(1)
            wire.protocol.close_when_idle()
            assert await wire.ended() == Close(1012, "service restart")
            assert len(wire.frames) == 1

    story(loop, told)


@both_loops
def test_an_application_may_still_accept_while_draining_and_is_closed_then(loop: str) -> None:
    async def told() -> None:
        go = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await echo(scope, receive, send)

        async with Wire(slow) as wire:
            wire.begin(masked(0x81, b"early"))
            wire.engine.keeps_alive = False
            wire.protocol.say_close()
            wire.protocol.close_when_idle()
            await wire.settle()
            go.set()
            await wire.heard(1)
            assert wire.peer.close_rcvd == Close(1012, "service restart")

    story(loop, told)


def test_a_request_that_comes_while_draining_is_503() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            wire.engine.keeps_alive = False
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [503]
            assert not app.scope

    story("asyncio", told)


# -- compression -------------------------------------------------------------------------------------


def test_a_bomb_is_stopped_at_the_limit() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app, deflate=True, limits=HttpLimits(message_bytes=10_000)) as wire:
            await wire.open()
            wire.peer.send_binary(b"\0" * 10_000)
            wire.peer.send_binary(b"\0" * 10_001)
            said = wire.said()
            assert len(said) < 200
            wire.feed(said)
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == 1009
            wire.client.close()
            await wire.until(lambda: not wire.engine.running)
            assert app.payloads == [b"\0" * 10_000]

    story("asyncio", told)


def test_a_message_that_compression_makes_longer_is_within_the_limit() -> None:
    async def told() -> None:
        noise = bytes(hash((index, "noise")) & 0xFF for index in range(100_000))
        async with Wire(deflate=True, limits=HttpLimits(message_bytes=100_000)) as wire:
            await wire.open()
            wire.peer.send_binary(noise)
            wire.feed(wire.said())
            assert await wire.heard(1) == [noise]

    story("asyncio", told)


@both_loops
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_messages_survive_any_fragmentation_and_any_split(loop: str, data: st.DataObject) -> None:
    texts = st.text(max_size=300) | st.sampled_from(["ü" * 70, "a" * 70_000])
    messages = data.draw(st.lists(texts | st.binary(max_size=300), max_size=6))
    deflate = data.draw(st.booleans())
    cuts = data.draw(st.lists(st.integers(0, 400), max_size=12))

    async def told() -> None:
        async with Wire(deflate=deflate) as wire:
            await wire.open()
            for message in messages:
                payload = message.encode() if isinstance(message, str) else message
                send = wire.peer.send_text if isinstance(message, str) else wire.peer.send_binary
                edges = sorted(
                    {min(cut, len(payload)) for cut in data.draw(st.lists(st.integers(0, 300), max_size=3))}
                )
                pieces = [payload[a:b] for a, b in zip([0, *edges], [*edges, len(payload)], strict=True)]
                send(pieces[0], fin=len(pieces) == 1)
                for index, piece in enumerate(pieces[1:], 2):
                    wire.peer.send_ping(b"between")
                    wire.peer.send_continuation(piece, fin=index == len(pieces))
            said = wire.said()
            position = 0
            for cut in cuts:
                wire.feed(said[position : position + cut])
                position += cut
                if data.draw(st.booleans()):
                    await asyncio.sleep(0)
            wire.feed(said[position:])
            wanted = [each.encode() if isinstance(each, str) else each for each in messages]

            def echoes() -> list[bytes]:
                wire.pump()
                return [bytes(frame.data) for frame in wire.frames if frame.opcode is not Opcode.PONG]

            await wire.until(lambda: len(echoes()) >= len(wanted))
            assert echoes() == wanted

    story(loop, told)


# -- what comes together -----------------------------------------------------------------------------


@both_loops
def test_a_refusal_of_many_pieces_waits_for_a_client_that_does_not_read(loop: str) -> None:
    async def told() -> None:
        piece = {"type": "websocket.http.response.body", "body": b"x" * 100_000, "more_body": True}
        start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
        app = Told(start, *[piece] * 30, {**piece, "more_body": False})
        async with Wire(app) as wire:
            wire.begin()
            await wire.until(lambda: wire.protocol.is_write_paused)
            assert wire.protocol.deadline_s == wire.clock.now_s + wire.limits.send_s
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert len(answer.body) == 3_100_000

    story(loop, told)


@both_loops
def test_a_client_that_takes_nothing_of_a_refusal_is_given_up(loop: str) -> None:
    async def told() -> None:
        piece = {"type": "websocket.http.response.body", "body": b"x" * 100_000, "more_body": True}
        app = Told({"type": "websocket.http.response.start", "status": 403}, *[piece] * 30)
        async with Wire(app) as wire:
            wire.begin()
            await wire.until(lambda: wire.protocol.is_write_paused)
            for _ in range(2):
                wire.protocol.on_deadline(wire.protocol.deadline_s)
            await wire.until(lambda: not wire.engine.running)
            assert isinstance(app.failure, ClientDisconnectedError)

    story(loop, told)


@both_loops
@pytest.mark.parametrize("last", ["accept", "close", "send", "return", "raise"])
def test_whatever_is_done_in_the_turn_that_lost_the_client(
    loop: str, last: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if last != "accept":
                await send({"type": "websocket.accept"})
            await go.wait()
            wire.transport.abort()
            if last == "raise":
                raise ValueError(last)
            if last != "return":
                await send({"type": f"websocket.{last}", "text": "x"})

        async with Wire(app) as wire:
            wire.begin()
            await wire.settle()
            go.set()
            await wire.until(lambda: not wire.engine.running)
            await wire.until(lambda: not wire.connections)

    story(loop, told)
    assert ("ValueError" in caplog.text) is (last == "raise")


def test_bad_bytes_that_waited_for_room_end_the_connection_then() -> None:
    async def told() -> None:
        go = asyncio.Event()
        ends: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await go.wait()
            while (message := await receive())["type"] != "websocket.disconnect":
                pass
            ends.append(message["code"])

        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x82, b"x" * 100_000) + masked(0x81, b"\xff"))
            assert wire.protocol.state == OPEN
            go.set()
            await wire.until(lambda: ends)
            assert ends == [1007]

    story("asyncio", told)


def test_bad_bytes_after_our_close_end_the_connection() -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.close"})
        async with Wire(app) as wire:
            await wire.open()
            await wire.heard(1)
            wire.feed(masked(0x83, b""))
            assert wire.protocol.state == FINISHING
            await wire.until(lambda: wire.pump() or wire.is_eof)
            assert wire.peer.close_rcvd == Close(1000, "")

    story("asyncio", told)


def test_messages_out_of_order_are_the_applications_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.accept"})
        async with Wire(app) as wire:
            await wire.open()
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == 1011

    story("asyncio", told)
    assert "'websocket.accept' is no message that an open WebSocket has" in caplog.text


def test_an_application_cannot_end_the_process(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            raise SystemExit(3)

        async with Wire(app) as wire:
            await wire.open()
            assert await wire.ended() == Close(1011, "")

    story("asyncio", told)
    assert "the application called exit(): WebSocket '/chat'" in caplog.text


@both_loops
def test_several_may_send_and_receive_at_once(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            await wire.settle()
            readers = [asyncio.ensure_future(app.receive()) for _ in range(3)]
            piece = {"type": "websocket.send", "bytes": b"x" * 50_000}
            writers = [asyncio.ensure_future(app.send(piece)) for _ in range(40)]
            await wire.until(lambda: wire.protocol.is_write_paused)
            wire.feed(*[masked(0x81, b"m")] * 3)
            assert len(await wire.heard(40)) == 40
            await asyncio.gather(*writers)
            wire.feed(masked(0x88, b""))
            got = [(await reader)["type"] for reader in readers]
            await wire.until(lambda: not wire.engine.running)
            assert len(app.payloads) + got.count("websocket.receive") == 3

    story(loop, told)


class Front(asyncio.Protocol):
    """Reads a request as our server does, for clients that are whole programs."""

    def __init__(self, engine: Engine, connections: Connections[Any]) -> None:
        self.engine, self.connections = engine, connections
        self.read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, end, rest = self.read.partition(b"\r\n\r\n")
        if end:
            pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "https",
                "path": "/",
                "headers": [(name.lower(), value) for name, value in pairs],
            }
            WebSocketProtocol(self.engine, HttpLimits(), self.connections, self.transport, scope).begin(rest)


@both_loops
def test_a_real_client_over_tls(loop: str) -> None:
    """Echo, a drain, and a client's mistake, by the real clock."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    async def told() -> None:
        running = asyncio.get_running_loop()
        connections: Connections[Any] = Connections(running.time)
        clock = Clock(running, connections)
        engine = Engine(echo, running, clock, {})
        server = await running.create_server(
            lambda: Front(engine, connections), "127.0.0.1", 0, ssl=server_side
        )
        port = server.sockets[0].getsockname()[1]

        def dial() -> connect:
            return connect(
                f"wss://localhost:{port}/", ssl=client_side, host="127.0.0.1", port=port, proxy=None
            )

        async with dial() as client, dial() as wrong:
            for message in ("text", b"bytes", "x" * 500_000, b"\0" * 500_000, "ü" * 1000):
                await client.send(message)
                assert await client.recv() == message
            wrong.transport.write(masked(0x83, b""))
            await wrong.wait_closed()
            assert wrong.close_code == 1002
            for connection in list(connections):
                connection.say_close()
            await client.wait_closed()
            assert client.close_code == 1012
        server.close()
        while connections or engine.running:  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)
        clock.stop()

    story(loop, told)
