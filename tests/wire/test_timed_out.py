"""Requests that take too long: what their clients get, what is logged, and what goes on."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from typing import Any

import pytest

from prefork.http.inflight import MOST_DESCRIBED, InFlight, thread_of
from tests.wire.rig import LOOPS, Wire, answers, run
from tests.wire.test_wsgi_rig import PLAIN, WsgiWire

GET = b"GET /slow?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
LIMIT_S = 45.0
TIMEOUT_S = 10.0

both_loops = pytest.mark.parametrize("loop", LOOPS)


class Watch:
    """What is in flight on a wire, on a clock that is set by hand."""

    def __init__(self, wire: Wire, timeout_s: float = TIMEOUT_S) -> None:
        self.now_s = 0.0
        self.in_flight = InFlight(wire.engine.running, timeout_s, lambda: self.now_s)

    def tick(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        self.in_flight.look()

    def expire(self) -> None:
        """Let a request be seen, and then let its time be over."""
        self.tick()
        self.tick(TIMEOUT_S)


@both_loops
def test_the_client_gets_504_and_the_task_is_cancelled(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the log has the request, its age and where it stands."""
    ended: list[str] = []

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def story() -> bytes:
        async with Wire(app) as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await asyncio.sleep(0)
            watch.tick()
            watch.tick(TIMEOUT_S - 0.1)
            assert wire.engine.running
            watch.tick(0.1)
            await wire.until(lambda: not wire.engine.running)
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story))
    assert (answer.status, answer["connection"], answer.body) == (504, b"close", b"Gateway Timeout\n")
    assert ended == ["cancelled"]
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("timed out after 10 s: GET '/slow'; it stands at:\n")
    assert "in wait_for_ever" in text


@both_loops
def test_an_answer_that_has_begun_is_reset(loop: str) -> None:
    """Half an answer is not to be taken for a whole one."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.get_running_loop().create_future()

    async def story() -> None:
        async with Wire(app) as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await wire.read(b"half")
            watch.expire()
            await wire.until(lambda: not wire.connections and not wire.engine.running)
            assert b"504" not in wire.received

    run(loop, story)


@both_loops
def test_what_is_answered_may_go_on(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """A background task behind the answer is the application's own affair."""

    async def story() -> None:
        end = asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            await end.wait()
            ended.append(1)

        ended: list[int] = []
        async with Wire(app) as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await wire.read(b"ok")
            watch.expire()
            assert wire.engine.running
            end.set()
            await wire.until(lambda: ended)

    run(loop, story)
    assert not caplog.records


@both_loops
def test_an_application_that_will_not_be_cancelled_is_told_once(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may go on as it likes; what it sends is nobody's."""

    async def story() -> bytes:
        end = asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async with Wire(app) as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await asyncio.sleep(0)
            watch.expire()
            watch.tick(TIMEOUT_S)
            watch.tick(TIMEOUT_S)
            await asyncio.sleep(0)
            end.set()
            await wire.until(lambda: not wire.engine.running)
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story))
    assert answer.status == 504
    assert [record.getMessage()[:9] for record in caplog.records if "timed out" in record.getMessage()] == [
        "timed out"
    ]


class Sleeper:
    """A WSGI application whose requests wait to be let go on."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.begun = 0

    def __call__(self, _environ: Any, start_response: Any) -> Any:
        self.begun += 1
        self.has_begun.set()
        assert self.may_end.wait(LIMIT_S)
        start_response("200 OK", [PLAIN])
        return [b"too late"]


@both_loops
def test_a_thread_goes_on_and_its_client_gets_504(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """What comes of it later reaches nobody; the log says where the thread stands."""
    app = Sleeper()

    async def story() -> bytes:
        async with WsgiWire(app, "threads") as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await wire.until(app.has_begun.is_set)
            watch.expire()
            raw = await wire.read(b"Gateway Timeout\n")
            app.may_end.set()
            await wire.rest()
            return raw

    (answer,) = answers(run(loop, story))
    assert (answer.status, answer.body) == (504, b"Gateway Timeout\n")
    (record,) = [each for each in caplog.records if each.levelname != "DEBUG"]
    assert "in __call__" in record.getMessage()


@both_loops
def test_one_that_waits_for_a_thread_is_never_run(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its client has left with 504: nobody is there to work for."""
    app = Sleeper()

    async def story() -> int:
        async with WsgiWire(app, "threads") as wire:
            wires = [wire]
            for _ in range(2):
                other = WsgiWire(app, "inline")
                other.engine = wire.engine
                wires.append(await other.__aenter__())
            watch = Watch(wire)
            for each in wires:
                each.feed(GET)
            await wire.until(lambda: app.begun == 2)
            watch.expire()
            for each in wires:
                await each.read(b"Gateway Timeout\n")
            app.may_end.set()
            await wire.rest()
            for each in wires[1:]:
                each.client.close()
                await each.until(lambda each=each: not each.connections)
                each.clock.stop()
            return app.begun

    assert run(loop, story) == 2
    assert any("it waits for a thread" in record.getMessage() for record in caplog.records)


@both_loops
def test_the_request_that_the_loop_is_at_is_told_first(loop: str) -> None:
    """As a signal's handler sees it: in the midst of the application."""
    told: list[str] = []

    async def story() -> None:
        may_go_on = asyncio.Event()

        async def app(scope: Any, _receive: Any, _send: Any) -> None:
            if scope["path"] == "/slow":
                await asyncio.get_running_loop().create_future()
            await may_go_on.wait()
            told.extend(watch.in_flight.describe(sys._getframe()))

        async with Wire(app) as wire:
            watch = Watch(wire)
            wire.feed(GET)
            await asyncio.sleep(0)
            watch.tick()
            watch.tick(4)
            second = await wire.loop.connect_accepted_socket(wire.make, (pair := socket.socketpair())[0])
            second[1].data_received(GET.replace(b"/slow", b"/at"))
            watch.now_s += 3
            may_go_on.set()
            await wire.until(lambda: told)
            watch.expire()
            pair[1].close()
            await wire.until(lambda: len(wire.connections) < 2)

    run(loop, story)
    assert told == [
        "request: GET '/at', for 3 s: the loop is at it",
        "request: GET '/slow', for 7 s",
    ]


def test_no_more_are_told_than_a_message_holds() -> None:
    """The oldest ones."""

    class Request:
        def __init__(self, number: int) -> None:
            self.number = number

        def describe(self) -> str:
            return f"GET '/{self.number}'"

    requests = [Request(number) for number in range(MOST_DESCRIBED + 5)]
    in_flight = InFlight(requests)
    told = list(in_flight.describe(None))
    assert len(told) == MOST_DESCRIBED + 1
    assert told[0] == "request: GET '/0', for less than 1 s"
    assert told[-1] == "and 5 more requests"
    assert thread_of(requests[0]) is None
