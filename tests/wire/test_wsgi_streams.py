"""WSGI answers that take their time: back-pressure, clients that leave, and the loop beneath."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.wire.rig import answers, run
from tests.wire.test_wsgi_rig import GET, PLAIN, WsgiWire, ask, both_ways, posting

PIECE = b"x" * 64 * 1024
MANY = 120
HELD = 30
"""Pieces that transport, kernel and thread hold together, at most."""

pytestmark = both_ways


class Stream:
    """An application that sends many pieces, and counts; for /quick it answers at once."""

    def __init__(self, *, is_written: bool = False) -> None:
        self.count = 0
        self.closed = 0
        self.is_written = is_written
        self.error: BaseException | None = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [PLAIN])
        if environ["PATH_INFO"] == "/quick":
            return [b"quick"]
        if not self.is_written:
            return self
        try:
            for _ in range(MANY):
                self.count += 1
                write(PIECE)
        except BaseException as error:
            self.error = error
            raise
        return []

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(MANY):
            self.count += 1
            yield PIECE

    def close(self) -> None:
        self.closed += 1


async def stalled(wire: WsgiWire, app: Stream) -> None:
    """Until the application cannot send any more."""
    await wire.until(lambda: wire.protocol.is_write_paused)
    count = -1
    while count != app.count:
        count = app.count
        for _ in range(20):
            await asyncio.sleep(0)


def test_a_slow_reader_is_waited_for(loop: str, way: str) -> None:
    """The application goes no further than what fits on the way; then it goes on to the end."""
    app = Stream()

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET)
            await stalled(wire, app)
            assert app.count < HELD
            assert not app.closed
            raw = await wire.read(b"\r\n0\r\n\r\n")
            assert answers(raw)[0].body == PIECE * MANY
            await wire.rest()
            assert app.closed == 1
            assert not wire.is_closing

    run(loop, story)


def test_others_are_served_meanwhile(loop: str, way: str) -> None:
    app = Stream()

    async def story() -> None:
        async with WsgiWire(app, way) as slow:
            slow.feed(GET)
            await stalled(slow, app)
            async with WsgiWire(app, "inline") as quick:
                quick.engine = slow.engine
                async with asyncio.timeout(2):
                    quick.protocol.engine = slow.engine
                    quick.feed(GET.replace(b"/ ", b"/quick "))
                    await quick.read(b"quick")
                    # A client that leaves is noticed, too; and `engine.running` is the slow one's.
                    slow.client.close()
                    await slow.rest()

    run(loop, story)
    assert app.closed == 1
    assert app.count < HELD


def test_a_fast_reader_does_not_keep_others_waiting(loop: str, way: str) -> None:
    """Between two pieces the loop serves all."""
    app = Stream()

    async def story() -> None:
        async with WsgiWire(app, way) as greedy:
            greedy.feed(GET)
            turns = 0
            while greedy.engine.running:
                greedy.take()
                greedy.received = b""
                turns += 1
                await asyncio.sleep(0)
            assert turns >= MANY / HELD
            assert app.count == MANY

    run(loop, story)


def test_a_client_that_leaves_ends_the_stream(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """No mistake of the application, and none is logged."""
    app = Stream()

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET)
            await stalled(wire, app)
            wire.client.close()
            await wire.rest()

    run(loop, story)
    assert app.closed == 1
    assert app.count < HELD
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_a_client_that_is_gone_ends_writing(loop: str, way: str) -> None:
    """`write` raises an OSError; in a thread it waits for the client before."""
    if way == "inline":
        pytest.skip("nothing can be noticed while the application has the loop's thread")
    app = Stream(is_written=True)

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET)
            await stalled(wire, app)
            assert app.count < HELD
            wire.client.close()
            await wire.rest()

    run(loop, story)
    assert isinstance(app.error, OSError)


def test_what_is_sent_goes_out_before_more_is_asked_for(loop: str, way: str) -> None:
    """PEP 3333: a block is on its way, however long the application takes for the next."""
    asked = []
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        yield b"first"
        asked.append(True)
        if way == "threads":
            go_on.wait(45)
        yield b"second"

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET)
            if way == "inline":
                wire.take()
                while b"first" not in wire.received:
                    assert not asked
                    await asyncio.sleep(0)
                    wire.take()
            else:
                await wire.read(b"first")
                go_on.set()
            await wire.read(b"0\r\n\r\n")
            await wire.rest()

    run(loop, story)


def test_an_application_sees_no_loop(loop: str, way: str) -> None:
    """Django refuses its database where a loop runs, and asyncio another loop."""
    seen: list[Any] = []

    async def nothing() -> str:
        return "ran"

    def look() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        seen.append(asyncio.run(nothing()))

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            look()
            yield b"a"
            look()
            yield b"b"
            look()

        def close(self) -> None:
            look()

    def app(environ: Any, start_response: Any) -> Any:
        look()
        start_response("200 OK", [PLAIN])
        return Pieces()

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            for raw in (GET, posting(b"abc"), GET):
                wire.received = b""
                wire.feed(raw)
                await wire.read(b"0\r\n\r\n")
                await wire.rest()
                assert asyncio.get_running_loop() is wire.loop

    run(loop, story)
    assert seen == ["ran"] * 15


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_the_loop_is_back_after_a_mistake(loop: str, way: str, error: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise error

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET)
            assert asyncio.get_running_loop() is wire.loop
            await wire.read(b" 500 ")
            await wire.rest()

    run(loop, story)


def test_a_drain_says_close(loop: str, way: str) -> None:
    """What has begun is finished; its head says that it is the last, if it is not gone."""
    entered, go_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        entered.set()
        if way == "threads":
            go_on.wait(45)
        start_response("200 OK", [PLAIN])
        return [b"abc"]

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            raw = posting(b"abc")
            wire.feed(raw[:-1])
            if way == "threads":
                wire.feed(raw[-1:])
                await wire.until(entered.is_set)
            wire.engine.keeps_alive = False
            wire.protocol.say_close()
            if way == "inline":
                wire.feed(raw[-1:])
            go_on.set()
            found = await wire.read(b"abc")
            assert b"connection: close" in found
            await wire.rest()
            assert wire.is_closing

    run(loop, story)


def test_a_request_after_a_stream_is_answered(loop: str, way: str) -> None:
    app = Stream()

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET + GET.replace(b"/ ", b"/quick "))
            raw = await wire.read(b"quick")
            assert [len(answer.body) for answer in answers(raw)] == [MANY * len(PIECE), 5]
            await wire.rest()

    run(loop, story)


def test_a_stream_whose_length_is_wrong(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The application is asked for nothing more once it has gone too far."""
    app = Stream()

    def too_long(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(PIECE) * 3 // 2))])
        return app

    async def story() -> None:
        async with WsgiWire(too_long, way) as wire:
            wire.feed(GET)
            await wire.rest()
            assert wire.is_closing

    run(loop, story)
    assert app.count <= 3
    assert app.closed == 1
    assert "the body differs from its content-length" in caplog.text


def test_one_answer_one_write(loop: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whole is handed to the transport once; from a thread in one call."""

    async def story() -> tuple[int, int]:
        async with WsgiWire(lambda _environ, start: start("200 OK", [PLAIN]) and [b"abc"], way) as wire:
            written, called = [], []
            write, hand_over = wire.protocol.write, wire.loop.call_soon_threadsafe
            wire.protocol.write = lambda data: (written.append(data), write(data))
            if way == "threads":

                def counted(*given: Any, **more: Any) -> Any:
                    called.append(given)
                    return hand_over(*given, **more)

                wire.engine.loop = type("Loop", (), {"call_soon_threadsafe": staticmethod(counted)})()
            wire.feed(GET)
            await wire.rest()
            return len(written), len(called)

    assert run(loop, story) == (1, 1 if way == "threads" else 0)


def test_an_answer_with_a_body_unread(loop: str, way: str) -> None:
    """The application has not looked at it: the next request is where it belongs all the same."""
    answer, is_closing = ask(
        loop, way, lambda _environ, start: start("200 OK", [PLAIN]) and [b"abc"], posting(b"x")
    )
    assert (answer.body, is_closing) == (b"abc", False)
