"""WSGI in threads: who runs where, and that nothing ends a thread, or waits for one in vain."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from prefork.http.clock import Clock
from prefork.http.engine import Engine
from prefork.http.wsgi_pool import ThreadPool
from prefork.http.wsgi_threads import PooledWSGIExchange
from tests.wire.rig import LOOPS, answers, run
from tests.wire.test_wsgi_rig import GET, PLAIN, WsgiWire

LIMIT_S = 45

both_loops = pytest.mark.parametrize("loop", LOOPS)


class Meeting:
    """An application whose requests wait for one another: `size` of them have to be there at once."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.names: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.names.append(threading.current_thread().name)
        self.barrier.wait(LIMIT_S)
        start_response("200 OK", [PLAIN])
        return [b"met"]


async def beside(first: WsgiWire) -> WsgiWire:
    """Another connection to the same application."""
    wire = WsgiWire(first.engine.app, "inline")
    wire.engine = first.engine
    return await wire.__aenter__()


async def leave(*wires: WsgiWire) -> None:
    for wire in wires:
        wire.client.close()
        await wire.until(lambda wire=wire: not wire.connections)
        wire.clock.stop()


@both_loops
def test_requests_run_at_once(loop: str) -> None:
    """As many as there are threads, which are made when they are needed."""
    app = Meeting(2)

    async def story() -> None:
        before = threading.active_count()
        async with WsgiWire(app, "threads") as first:
            second = await beside(first)
            assert threading.active_count() == before
            for _ in range(3):
                for wire in (first, second):
                    wire.feed(GET)
                for wire in (first, second):
                    await wire.read(b"met")
                    wire.received = b""
                await first.rest()
            assert threading.active_count() == before + 2
            await leave(second)
        assert threading.active_count() == before

    run(loop, story)
    assert set(app.names) == {"prefork-wsgi-1", "prefork-wsgi-2"}


@both_loops
def test_one_after_the_other_is_one_thread(loop: str) -> None:
    app = Meeting(1)

    async def story() -> None:
        async with WsgiWire(app, "threads") as wire:
            for _ in range(5):
                wire.feed(GET)
                await wire.read(b"met")
                wire.received = b""
                await wire.rest()

    run(loop, story)
    assert app.names == ["prefork-wsgi-1"] * 5


@both_loops
def test_more_requests_than_threads_wait_their_turn(loop: str) -> None:
    app = Meeting(1)

    async def story() -> None:
        async with WsgiWire(app, "threads") as first:
            wires = [first, *[await beside(first) for _ in range(9)]]
            for wire in wires:
                wire.feed(GET)
            for wire in wires:
                await wire.read(b"met")
            await first.rest()
            await leave(*wires[1:])

    run(loop, story)
    assert len(app.names) == 10
    assert len(set(app.names)) <= 2


@both_loops
@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("where", ["call", "piece", "close"])
def test_nothing_ends_a_thread(
    loop: str, error: BaseException, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor the worker; and it is logged."""

    class Pieces:
        def __init__(self, *, is_bad: bool) -> None:
            self.is_bad = is_bad

        def __iter__(self) -> Any:
            yield b"a"
            if self.is_bad and where == "piece":
                raise error
            yield b"b"

        def close(self) -> None:
            if self.is_bad and where == "close":
                raise error

    threads = []

    def app(environ: Any, start_response: Any) -> Any:
        is_bad = environ["PATH_INFO"] == "/bad"
        threads.append(threading.current_thread())
        start_response("200 OK", [PLAIN])
        if is_bad and where == "call":
            raise error
        return Pieces(is_bad=is_bad)

    async def story() -> None:
        async with WsgiWire(app, "threads") as wire:
            other = await beside(wire)
            wire.feed(GET.replace(b"/ ", b"/bad "))
            await wire.rest()
            other.feed(GET)
            raw = await other.read(b"0\r\n\r\n")
            assert answers(raw)[0].body == b"ab"
            await wire.rest()
            assert all(thread.is_alive() for thread in threads)
            assert wire.is_closing == (where != "close")
            await leave(other)

    run(loop, story)
    assert "Traceback" in caplog.text


@both_loops
def test_no_thread_at_all(
    loop: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system gives none: 500, said in the log; with some the pool goes on."""

    def start(_self: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def story() -> None:
        async with WsgiWire(Meeting(1), "threads") as first:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", start)
                first.feed(GET)
                assert b" 500 " in await first.read(b"\r\n\r\n")
                assert not first.engine.running
            second, third = await beside(first), await beside(first)
            second.feed(GET)
            await second.read(b"met")
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", start)
                second.received = b""
                second.feed(GET)
                third.feed(GET)
                await second.read(b"met")
                await third.read(b"met")
            await first.rest()
            await leave(second, third)

    run(loop, story)
    assert caplog.text.count("Traceback") == 1
    assert "no further thread could be made, and 1 of 2 go on" in caplog.text


def test_a_loop_that_is_gone_ends_nobody() -> None:
    """The worker left without waiting (at the end of its grace, say): its threads find nobody to tell."""
    errors = []

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [PLAIN])
        for _ in range(2):
            try:
                write(b"a")
            except OSError as error:
                errors.append(error)
        return iter([b"b"])

    class Gone:
        """A connection of a worker whose loop is closed."""

        def __init__(self) -> None:
            loop = asyncio.new_event_loop()
            self.engine = Engine(app, loop, Clock(loop, ()), {})
            loop.close()

    exchange = PooledWSGIExchange(Gone(), {}, True)  # type: ignore[arg-type]
    exchange._context = contextvars.copy_context()
    exchange._run()
    assert len(errors) == 2


def test_a_pool_is_closed_behind_its_last_job() -> None:
    """`close` does not wait for what runs; the thread leaves by itself."""
    pool = ThreadPool(2)
    entered, go_on, done = threading.Event(), threading.Event(), []

    def job() -> None:
        entered.set()
        go_on.wait(LIMIT_S)
        done.append(threading.current_thread())

    pool.submit(job)
    entered.wait(LIMIT_S)
    pool.close()
    assert not done
    go_on.set()
    pool = ThreadPool(1)
    ran = threading.Event()
    pool.submit(ran.set)
    assert ran.wait(LIMIT_S)
    pool.done()
    pool.close()


def test_a_job_that_raises_is_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the thread lives on."""
    pool = ThreadPool(1)
    threads = []

    def job() -> None:
        raise KeyboardInterrupt

    pool.submit(job)
    ran = threading.Event()
    pool.submit(lambda: (threads.append(threading.current_thread()), ran.set()))
    assert ran.wait(LIMIT_S)
    pool.done()
    pool.done()
    pool.close()
    assert threads[0].name == "prefork-wsgi-1"
    assert "a defect of prefork" in caplog.text
