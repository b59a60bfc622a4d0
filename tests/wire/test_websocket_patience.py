"""WebSocket clients and applications that take nothing, or say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.frames import Close, Opcode

from prefork.http.exchange import ClientDisconnectedError
from prefork.http.websocket_session import CLOSED, OPEN
from tests.wire.rig import run
from tests.wire.test_websocket_rig import Told, Wire, both_loops, masked


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

    run(loop, told)


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

    run("asyncio", told)


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

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


@both_loops
def test_the_send_that_waits_for_a_client_hears_that_it_is_gone(loop: str) -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            await wire.open()
            writer = asyncio.ensure_future(app.send({"type": "websocket.send", "bytes": b"x" * 10**6}))
            await wire.until(lambda: wire.protocol.is_write_paused)
            wire.client.close()
            with pytest.raises(ClientDisconnectedError):
                await writer

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


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

    run("asyncio", told)


def test_nobody_is_given_up_while_we_do_not_read() -> None:
    async def told() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await go.wait()

        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x82, b"x" * 200_000))
            assert not wire.is_reading
            for _ in range(5):
                wire.clock.now_s += wire.limits.ping_s
                wire.protocol.on_deadline(wire.clock.now_s)
            assert wire.protocol.state == OPEN
            go.set()

    run("asyncio", told)
