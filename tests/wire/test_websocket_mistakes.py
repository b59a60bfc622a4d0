"""What a WebSocket client does wrong: told by a close code, and the end of its connection."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from websockets.frames import Close

from prefork.http.limits import HttpLimits
from prefork.http.websocket_session import FINISHING, OPEN
from tests.wire.rig import run
from tests.wire.test_websocket_rig import Told, Wire, both_loops, masked

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
    "too big in pieces, announced": (masked(0x02, b"x" * 600) + b"\x80\xfe\x01\x91\0\0\0\0", 1009),
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

    run(loop, told)


def test_the_biggest_message_is_as_big_as_the_limit_says() -> None:
    async def told() -> None:
        async with Wire(limits=SMALL) as wire:
            await wire.open()
            wire.feed(masked(0x82, b"x" * 1000), masked(0x02, b"x" * 999), masked(0x80, b"y"))
            assert [len(payload) for payload in await wire.heard(2)] == [1000, 1000]

    run("asyncio", told)


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

    run("asyncio", told)


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
            wire.feed(masked(0x82, b"x" * 200_000) + masked(0x81, b"\xff"))
            assert wire.protocol.state == OPEN
            go.set()
            await wire.until(lambda: ends)
            assert ends == [1007]

    run("asyncio", told)


def test_bad_bytes_after_our_close_end_the_connection() -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept"}, {"type": "websocket.close"})
        async with Wire(app) as wire:
            await wire.open()
            await wire.heard(1)
            wire.feed(masked(0x83, b""))
            assert wire.protocol.state == FINISHING
            await wire.hear(lambda: wire.is_eof)
            assert wire.peer.close_rcvd == Close(1000, "")

    run("asyncio", told)
