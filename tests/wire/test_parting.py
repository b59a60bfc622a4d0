"""The last word to a client whose request has hung its worker; here the application asks for it itself, from within."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from prefork import channel
from prefork.http.inflight import InFlight
from prefork.http.parting import answer_hung
from prefork.http.server import HttpServer
from prefork.http.websocket_session import Session
from prefork.master import hangs
from tests.wire.rig import LOOPS, Pair, Wire, answers, run, served
from tests.wire.test_wsgi_rig import WsgiWire, answering

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}

both_loops = pytest.mark.parametrize("loop", LOOPS)


async def answer_ok(send: Any) -> None:
    await send(OK)
    await send({"type": "http.response.body", "body": b"ok"})


@both_loops
@pytest.mark.parametrize("raw", [GET, HEAD], ids=["get", "head"])
def test_it_is_504_and_nothing_follows(loop: str, raw: bytes) -> None:
    """Even if the loop turns again, and the application answers after all."""

    async def story() -> bytes:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            InFlight(wire.engine.running).part(sys._getframe())
            await answer_ok(send)

        async with Wire(app) as wire:
            wire.feed(raw)
            await wire.until(lambda: not wire.engine.running)
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story), [raw[:4].decode().strip()])
    assert (answer.status, answer["connection"]) == (504, b"close")
    assert answer.body == (b"504 Gateway Timeout\n" if raw is GET else b"")


@both_loops
def test_a_wsgi_handler_on_the_loop_too(loop: str) -> None:
    """Its answer, which comes late, goes nowhere."""

    async def story() -> bytes:
        def app(environ: Any, start_response: Any) -> Any:
            InFlight(wire.engine.running).part(sys._getframe())
            return answering(b"late")(environ, start_response)

        async with WsgiWire(app) as wire:
            wire.feed(GET)
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story))
    assert answer.status == 504


@both_loops
def test_an_answer_that_has_begun_is_left_alone(loop: str) -> None:
    async def story() -> bytes:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send(OK)
            await send({"type": "http.response.body", "body": b"o", "more_body": True})
            InFlight(wire.engine.running).part(sys._getframe())
            await send({"type": "http.response.body", "body": b"k"})

        async with Wire(app) as wire:
            wire.feed(GET)
            await wire.until(lambda: not wire.engine.running)
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story))
    assert (answer.status, answer.body) == (200, b"ok")


@both_loops
def test_who_has_not_taken_the_last_answer_gets_nothing_in_between(loop: str) -> None:
    """What waits to be written would be torn apart."""
    big = b"x" * 4_000_000
    said: list[bool] = []

    async def story() -> None:
        async def app(scope: Any, _receive: Any, send: Any) -> None:
            if scope["path"] == "/big":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": big})
                return
            exchange = wire.protocol._exchange
            said.append(answer_hung(exchange))
            await answer_ok(send)

        async with Wire(app) as wire:
            wire.feed(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", GET)
            await wire.until(lambda: wire.protocol.is_write_paused)
            wire.protocol.is_write_paused = False
            wire.protocol._proceed()
            await wire.until(lambda: said)

    run(loop, story)
    assert said == [False]


@both_loops
def test_a_client_that_is_gone_is_no_trouble(loop: str) -> None:
    said: list[bool] = []

    async def story() -> None:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            exchange = wire.protocol._exchange
            wire.client.close()
            said.append(answer_hung(exchange))
            await send(OK)

        async with Wire(app) as wire:
            wire.feed(GET)
            await wire.until(lambda: said)

    run(loop, story)
    assert said == [False]


@both_loops
def test_over_tls_nothing_can_be_written_past_the_loop(loop: str) -> None:
    """The answer is the application's, if it comes."""
    pair = Pair()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        InFlight(()).part(sys._getframe())
        await answer_ok(send)

    async def story() -> bytes:
        async with served(HttpServer(app), pair.server()) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=pair.client(), server_hostname="localhost"
            )
            writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            raw = await reader.read()
            writer.close()
            return raw

    (answer,) = answers(run(loop, story))
    assert answer.status == 200


def test_what_is_no_request_of_ours_gets_no_answer() -> None:
    """A loop that hangs in a background task, or in a WebSocket."""
    session: Any = object.__new__(Session)
    assert not answer_hung(None)
    assert not answer_hung(session)


def test_master_and_worker_mean_the_same_by_nobody() -> None:
    """Whose stacks are told with a last word."""
    assert hangs.NOBODY == channel.NOBODY
