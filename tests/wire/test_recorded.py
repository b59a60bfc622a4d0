"""Requests that are told of while they run, and those that are refused: on the wire, in every way of running them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork.http.asgi import ASGIExchange
from prefork.http.recording import TEXT, Steps, record
from prefork.http.standing import _awaited
from prefork.recorder import LastWords, Listed, Recorder, route_of
from prefork.scoreboard import Entry, Scoreboard
from tests.wire.rig import LOOPS, Wire, answers, echo, run
from tests.wire.test_wsgi_rig import THREADS, WsgiWire, answering

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"
NAME = b"GET /a?b=c"
LATER_MS = 2**62
WAYS = ("asgi", *THREADS)

both_loops = pytest.mark.parametrize("loop", LOOPS)
every_way = pytest.mark.parametrize("way", WAYS)


class Pages:
    """A scoreboard with one worker on it: what it would leave behind, and what it is told."""

    def __init__(self) -> None:
        self.board = Scoreboard.create(1, records=True)
        self.board.take()
        self.entry = Entry(self.board.fileno(), 0)
        assert self.entry.recorder is not None
        self.recorder: Recorder = self.entry.recorder

    def last_words(self) -> LastWords:
        """What the master would read if the worker died now."""
        assert self.board.recorders is not None
        return self.board.recorders.last_words(0)

    def publish(self, *listed: Listed) -> None:
        assert self.board.recorders is not None
        self.board.recorders.publish(listed)

    def close(self) -> None:
        self.entry.close()
        self.board.close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.close()


def recorded(pages: Pages, app: Any, way: str = "asgi") -> Wire:
    """A connection whose requests are told of."""
    wire = Wire(app) if way == "asgi" else WsgiWire(app, way)
    record(wire.engine, pages.recorder)
    return wire


def of_way(way: str, call: Callable[[], object]) -> Any:
    """An application of an interface, that calls and then answers."""
    if way == "asgi":

        async def app(scope: Any, receive: Any, send: Any) -> None:
            call()
            await echo(scope, receive, send)

        return app

    def wsgi(environ: Any, start_response: Any) -> Any:
        call()
        return answering(b"ok", headers=(("Content-Length", "2"),))(environ, start_response)

    return wsgi


@both_loops
@every_way
def test_while_its_code_runs_it_is_told_and_then_no_more(loop: str, way: str, pages: Pages) -> None:
    """By its whole target; the second time, too, when the request is known by its bytes."""
    seen: list[LastWords] = []
    app = of_way(way, lambda: seen.append(pages.last_words()))

    async def story() -> None:
        async with recorded(pages, app, way) as wire:
            for _ in range(4):
                wire.feed(GET)
                await wire.settle()
                await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert seen == [LastWords(running=(NAME,))] * 4
    assert pages.last_words() == LastWords()


@both_loops
@every_way
def test_what_is_refused_is_answered_and_not_run(
    loop: str, way: str, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    """503, with the time that is left; the connection stays, and others are served. One line in the log."""
    ran: list[int] = []
    app = of_way(way, lambda: ran.append(1))

    async def story() -> bytes:
        async with recorded(pages, app, way) as wire:
            pages.publish(Listed(NAME, True, LATER_MS))
            for piece in (GET, GET, b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"):
                wire.feed(piece)
                await wire.settle()
                await wire.until(lambda: not wire.engine.running)
            assert wire.engine.tally.statuses[5] == 2
            return await wire.read_to_end()

    first, second, other = answers(run(loop, story))
    assert (first.status, first.body, first["connection"]) == (503, TEXT, None)
    assert int(first["retry-after"] or 0) % 60 == 0
    assert (second.status, other.status, ran) == (503, 200, [1])
    assert pages.board.refused() == 2
    (record_,) = caplog.records
    assert record_.getMessage() == "refused, as all like it will be, since it has killed workers: GET '/a'"


@both_loops
@every_way
def test_a_body_that_is_on_its_way_is_thrown_away(loop: str, way: str, pages: Pages) -> None:
    """And the next request is read behind it."""
    post = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo"

    async def story() -> bytes:
        async with recorded(pages, of_way(way, lambda: None), way) as wire:
            pages.publish(Listed(route_of(b"POST /a"), True, LATER_MS))
            wire.feed(post)
            await asyncio.sleep(0)
            wire.feed(b"dy", GET)
            await wire.settle()
            await wire.until(lambda: not wire.engine.running)
            return await wire.read_to_end()

    assert [answer.status for answer in answers(run(loop, story))] == [503, 200]


@both_loops
@every_way
def test_head_is_answered_without_a_body(loop: str, way: str, pages: Pages) -> None:
    async def story() -> bytes:
        async with recorded(pages, of_way(way, lambda: None), way) as wire:
            pages.publish(Listed(b"HEAD /", True, LATER_MS))
            wire.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.settle()
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story), ["HEAD"])
    assert (answer.status, answer.body) == (503, b"")
    assert answer["content-length"] == b"%d" % len(TEXT)


@both_loops
@every_way
def test_whoever_is_served_is_cleared(loop: str, way: str, pages: Pages) -> None:
    """Suspected until it has come to its end."""

    async def story() -> None:
        async with recorded(pages, of_way(way, lambda: None), way) as wire:
            pages.publish(Listed(NAME, False), Listed(b"GET /other", False))
            assert not pages.last_words().ended
            wire.feed(GET)
            await wire.settle()
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert pages.last_words().ended == (NAME,)


@both_loops
def test_of_several_in_flight_the_one_is_told_that_the_loop_is_at(loop: str, pages: Pages) -> None:
    """Those that await are told to wait: before their first wait, behind it, and when they are thrown at."""
    seen: list[LastWords] = []

    async def story() -> None:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/waits":
                await go_on.wait()
            seen.append(pages.last_words())
            await echo(scope, receive, send)

        async with recorded(pages, app) as one:
            two = Wire(app)
            two.engine = one.engine
            async with two:
                one.feed(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n")
                await one.until(lambda: pages.last_words().waiting)
                two.feed(GET)
                await two.settle()
                go_on.set()
                await one.settle()

    run(loop, story)
    assert seen == [LastWords((NAME,), (b"GET /waits",)), LastWords((b"GET /waits",))]


@both_loops
def test_an_answer_that_has_begun_is_nobody_to_suspect_while_it_waits(loop: str, pages: Pages) -> None:
    """A stream of events waits for hours, and has nothing to do with what others die of."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        await asyncio.get_running_loop().create_future()

    async def story() -> None:
        async with recorded(pages, app) as wire:
            wire.feed(GET)
            await wire.read(b"event")
            assert pages.last_words() == LastWords()
            (exchange,) = wire.engine.running
            exchange.task.cancel()

    run(loop, story)


@both_loops
def test_one_that_is_cancelled_or_raises_has_come_to_its_end(
    loop: str, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    """It has killed nobody."""

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        if scope["path"] == "/raises":
            raise ValueError("a test")
        await asyncio.get_running_loop().create_future()

    async def story() -> None:
        async with recorded(pages, app) as wire:
            pages.publish(Listed(NAME, False), Listed(b"GET /raises", False))
            wire.feed(b"GET /raises HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.until(lambda: not wire.engine.running)
        async with recorded(pages, app) as wire:
            wire.feed(GET)
            await wire.until(lambda: pages.last_words().waiting)
            (exchange,) = wire.engine.running
            exchange.task.cancel()

    run(loop, story)
    assert pages.last_words() == LastWords(ended=(NAME, b"GET /raises"))


@both_loops
def test_more_than_there_are_slots_for_are_told_while_they_run(loop: str, pages: Pages) -> None:
    """Whoever has none while it waits is told of all the same when the loop is at it."""
    seen: list[LastWords] = []

    async def story() -> None:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            seen.append(pages.last_words())
            await echo(scope, receive, send)

        wires = [recorded(pages, app)]
        async with wires[0] as first:
            for _ in range(39):
                wire = Wire(app)
                wire.engine = first.engine
                await wire.__aenter__()
                wires.append(wire)
            for number, wire in enumerate(wires):
                wire.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            await first.until(lambda: len(first.engine.running) == 40)
            await first.until(lambda: len(pages.last_words().waiting) >= 30)
            go_on.set()
            await first.until(lambda: not first.engine.running)
            for wire in wires[1:]:
                await wire.__aexit__(None, None, None)

    run(loop, story)
    assert {words.running for words in seen} == {(b"GET /%d" % number,) for number in range(40)}
    assert pages.last_words() == LastWords()


@both_loops
def test_pieces_of_a_wsgi_answer_are_told_as_they_are_asked_for(loop: str, pages: Pages) -> None:
    """The loop serves others between two of them; it is cleared when the last one is gone."""
    seen: list[LastWords] = []

    def shape(pieces: Any) -> Iterator[bytes]:
        for piece in pieces:
            seen.append(pages.last_words())
            yield piece

    async def story() -> None:
        app = answering(b"one", b"two", b"three", shape=shape)
        async with recorded(pages, app, "inline") as wire:
            pages.publish(Listed(NAME, False))
            wire.feed(GET)
            assert not pages.last_words().ended
            await wire.settle()
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert seen == [LastWords((NAME,))] * 3
    assert pages.last_words() == LastWords(ended=(NAME,))


@both_loops
def test_threads_are_told_each_for_itself(loop: str, pages: Pages) -> None:
    """Two run at once."""
    both = threading.Barrier(2, timeout=10)
    seen: list[LastWords] = []

    def meet() -> None:
        both.wait()
        seen.append(pages.last_words())
        both.wait()

    async def story() -> None:
        async with recorded(pages, of_way("threads", meet), "threads") as one:
            two = Wire()
            two.engine = one.engine
            async with two:
                one.feed(GET)
                two.feed(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
                await one.settle()
                await two.settle()
                await one.until(lambda: not one.engine.running)

    run(loop, story)
    assert [sorted(words.running) for words in seen] == [[NAME, b"GET /two"]] * 2
    assert pages.last_words() == LastWords()


@both_loops
def test_stacks_look_through_it(loop: str, pages: Pages) -> None:
    """Where a request stands is read off its coroutine, in the log of a time-out and by debuggers."""

    async def deep() -> None:
        await asyncio.get_running_loop().create_future()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        await deep()

    async def story() -> list[str]:
        async with recorded(pages, app) as wire:
            wire.feed(GET)
            await wire.until(lambda: pages.last_words().waiting)
            (exchange,) = wire.engine.running
            assert isinstance(exchange.task.get_coro(), Steps)
            assert "_run" in repr(exchange.task)
            names = [frame.f_code.co_name for frame in _awaited(exchange.task.get_coro())]
            exchange.task.cancel()
            return names

    assert run(loop, story)[:3] == ["_run", "app", "deep"]


def test_where_the_option_is_off_nothing_is_of_it() -> None:
    """The class of a request is the one that it always was."""

    async def story() -> None:
        async with Wire() as wire:
            assert wire.engine.exchange is ASGIExchange
            assert wire.engine.recorder is None

    run("asyncio", story)


def test_a_coroutine_that_is_closed_is_closed_below(pages: Pages) -> None:
    """And its slot is free."""
    closed: list[int] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            closed.append(1)

    class Nobody:
        stage = 0

    exchange: Any = Nobody()
    steps = Steps(work(), pages.recorder, NAME, exchange)
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    try:
        steps.send(None)
        assert pages.last_words().waiting == (NAME,)
        steps.close()
    finally:
        asyncio._set_running_loop(None)
        loop.close()
    assert closed
    assert pages.last_words() == LastWords()
    assert sys.exc_info() == (None, None, None)
