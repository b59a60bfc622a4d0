"""Messages of a WebSocket, both ways, whatever their size, shape and compression."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode

from prefork.http.limits import HttpLimits
from prefork.http.response import ResponseError
from tests.wire.rig import run
from tests.wire.test_websocket_rig import Told, Wire, both_loops, masked


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

    run(loop, told)


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

    run(loop, told)


@both_loops
def test_any_buffer_can_be_sent_and_changed_afterwards(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            buffer = bytearray(b"x" * 3_000_000)
            writer = asyncio.ensure_future(app.send({"type": "websocket.send", "bytes": buffer}))
            await wire.until(lambda: wire.protocol.is_write_paused)
            buffer[:] = b"y" * 3_000_000
            assert await wire.heard(1) == [b"x" * 3_000_000]
            await writer
            await app.send({"type": "websocket.send", "bytes": memoryview(b"view"), "text": None})
            assert (await wire.heard(2))[1] == b"view"

    run(loop, told)


@both_loops
def test_a_ping_is_answered_in_the_midst_of_a_fragmented_message(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            wire.feed(masked(0x01, b"gr\xc3"), masked(0x89, b"p1") + masked(0x89, b""))
            wire.feed(masked(0x00, b"\xbc"), masked(0x8A, b"unasked"), masked(0x80, b"n"))
            assert await wire.heard(3) == [b"p1", b"", "grün".encode()]
            assert [frame.opcode for frame in wire.frames] == [Opcode.PONG, Opcode.PONG, Opcode.TEXT]

    run(loop, told)


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

    run("asyncio", told)
    assert "either text or bytes" in caplog.text


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

    run("asyncio", told)


def test_a_message_that_compression_makes_longer_is_within_the_limit() -> None:
    async def told() -> None:
        noise = bytes(hash((index, "noise")) & 0xFF for index in range(100_000))
        async with Wire(deflate=True, limits=HttpLimits(message_bytes=100_000)) as wire:
            await wire.open()
            wire.peer.send_binary(noise)
            wire.feed(wire.said())
            assert await wire.heard(1) == [noise]

    run("asyncio", told)


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

    run(loop, told)


def test_messages_out_of_order_are_the_applications_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.accept"})
        async with Wire(app) as wire:
            await wire.open()
            ended = await wire.ended()
            assert ended is not None
            assert ended.code == 1011

    run("asyncio", told)
    assert "'websocket.accept' is no message that an open WebSocket has" in caplog.text


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

    run(loop, told)
