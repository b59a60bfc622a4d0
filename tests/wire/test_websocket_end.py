"""How a WebSocket ends: by the client, the application, a drain, or nobody's will."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
from websockets.frames import Close

from prefork.http.exchange import ClientDisconnectedError
from prefork.http.response import ResponseError
from prefork.http.websocket import CLOSE_S
from prefork.http.websocket_session import CLOSED, CLOSING, FINISHING
from tests.wire.rig import answers, run
from tests.wire.test_websocket_rig import Told, Wire, both_loops, echo, masked


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

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


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

    run("asyncio", told)
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

    run(loop, told)


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

    run(loop, told)
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
        run("asyncio", told)
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

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


@both_loops
def test_what_was_read_before_a_drain_is_still_given(loop: str) -> None:
    async def told() -> None:
        go = asyncio.Event()
        got: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await go.wait()
            while not got or "code" not in got[-1]:
                got.append(await receive())

        async with Wire(app) as wire:
            await wire.open()
            wire.feed(masked(0x81, b"before") + masked(0x82, b"x" * 200_000) + masked(0x81, b"unread"))
            assert not wire.is_reading
            wire.protocol.say_close()
            assert await wire.ended() == Close(1012, "service restart")
            go.set()
            await wire.until(lambda: not wire.engine.running)
            assert [each.get("text", each.get("code")) for each in got] == ["before", None, 1012]

    run(loop, told)


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

    run(loop, told)


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

    run(loop, told)


def test_a_request_that_comes_while_draining_is_503() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            wire.engine.keeps_alive = False
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [503]
            assert not app.scope

    run("asyncio", told)


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

    run(loop, told)
    assert ("ValueError" in caplog.text) is (last == "raise")


def test_an_application_cannot_end_the_process(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            raise SystemExit(3)

        async with Wire(app) as wire:
            await wire.open()
            assert await wire.ended() == Close(1011, "")

    run("asyncio", told)
    assert "the application called exit(): WebSocket '/chat'" in caplog.text
