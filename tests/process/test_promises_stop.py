"""Promise 6: TERM is obeyed at once, at any moment; every wait has a bound; the end leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork.options import FleetOptions
from tests.process.apps import UNCACHED, Held, Request, Site, pid_of, serving, wait_until_ready
from tests.process.harness import STOP_WITHIN_S, Fleet, wait_until

IMPORT_WAITS = """
    import time
    print("importing", flush=True)
    time.sleep(1000)
    """
IMPORT_WAITS_STUBBORNLY = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("importing", flush=True)
    while True:
        time.sleep(1000)
    """
STARTUP_WAITS = """
    import asyncio
    async def app(scope, receive, send):
        print("starting up", flush=True)
        await asyncio.Event().wait()
    """
STARTUP_BLOCKS = """
    import time
    async def app(scope, receive, send):
        print("starting up", flush=True)
        time.sleep(1000)
    """
CRASHES = """
    import os
    async def app(scope, receive, send):
        os._exit(1)
    """

METHODS = pytest.mark.parametrize("method", ["fork", "exec"])
ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])


def _ends_at_once(fleet: Fleet, number: signal.Signals = signal.SIGTERM) -> None:
    """It is told to stop, is gone with status 0 before the grace period and the boot time-out, and nobody is left."""
    assert FleetOptions().shutdown_grace_period_s > STOP_WITHIN_S
    assert fleet.stop(number) == 0
    fleet.assert_nothing_left()


@METHODS
@pytest.mark.parametrize(
    ("source", "word"),
    [
        (IMPORT_WAITS, "importing"),
        (IMPORT_WAITS_STUBBORNLY, "importing"),
        (STARTUP_WAITS, "starting up"),
        (STARTUP_BLOCKS, "starting up"),
    ],
    ids=["import", "stubborn import", "startup", "blocking startup"],
)
def test_term_ends_a_boot(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str, word: str, method: str
) -> None:
    """The application is still being loaded, or is starting: it is not waited for."""
    site = Site(tmp_path)
    site.write(source)
    grace = ["--grace-period", "2"] if source is IMPORT_WAITS_STUBBORNLY else []
    fleet = fleet_of(*site.serving("--start-method", method, *grace))
    fleet.wait_for(word)
    _ends_at_once(fleet)
    assert "Traceback" not in fleet.output


@ENDS
def test_a_stop_before_anything_has_begun(fleet_of: Callable[..., Fleet], number: signal.Signals) -> None:
    """The first line has been said, the zygote perhaps not even forked."""
    fleet = fleet_of(*serving("web"))
    fleet.wait_until_serving()
    _ends_at_once(fleet, number)


@pytest.mark.parametrize(
    "source", [IMPORT_WAITS, STARTUP_WAITS, STARTUP_BLOCKS], ids=["import", "startup", "block"]
)
@ENDS
def test_term_ends_a_reload(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str, number: signal.Signals
) -> None:
    """A new generation is on its way and will not come: old and new end together."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(source)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("importing|starting up")
    _ends_at_once(fleet, number)


def test_term_ends_a_crash_loop(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Between two starts of a worker that cannot live, the delay is not sat out."""
    site = Site(tmp_path)
    site.write(CRASHES)
    fleet = fleet_of(*site.serving("--recover-interval", "60", "--recover-threshold", "1000"))
    fleet.wait_for_all(r"next start in", 2)
    _ends_at_once(fleet)


@pytest.mark.parametrize("app", ["web", "wsgi"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_finished(
    fleet_of: Callable[..., Fleet], tmp_path: Path, app: str, number: signal.Signals
) -> None:
    """The master says that it stops; the request that a worker is at gets its answer; then all are gone."""
    fleet = fleet_of(*serving(app))
    wait_until_ready(fleet)
    held = Held(fleet, tmp_path)
    fleet.signal(number)
    fleet.wait_for(r"stopping \(graceful\)")
    # The idle worker has left, so the order to drain has been obeyed.
    fleet.wait_for(r"worker \d .*stopped: exit status 0")
    assert pid_of(held.answer()) == held.pid
    assert fleet.wait() == 0
    fleet.assert_nothing_left()


def test_a_hung_request_is_ended_at_the_grace_period(fleet_of: Callable[..., Fleet]) -> None:
    """A worker whose event loop is blocked hears nothing: it is killed, and the log names it."""
    fleet = fleet_of(*serving("web", "--grace-period", "1"))
    wait_until_ready(fleet)
    request = Request(fleet.connect(), "/hang").send()
    hung = fleet.wait_for(r"hanging pid (\d+)")[1]
    fleet.signal(signal.SIGTERM)
    fleet.wait_for(rf"pid {hung}, generation 1\) did not finish within 1 s: killing it", since=0)
    assert fleet.wait() == 0
    assert request.answer() == ""
    fleet.assert_nothing_left()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGQUIT])
def test_a_second_interrupt_is_fast(
    fleet_of: Callable[..., Fleet], tmp_path: Path, second: signal.Signals
) -> None:
    """Somebody presses Ctrl-C once more: requests in flight are not waited for."""
    fleet = fleet_of(*serving("web", "--grace-period", "1000"))
    wait_until_ready(fleet)
    _held = Held(fleet, tmp_path)
    fleet.signal(signal.SIGINT)
    fleet.wait_for(r"stopping \(graceful\)")
    _ends_at_once(fleet, second)


def test_quit_is_fast(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """QUIT at once, with a request in flight and with a worker that hears nothing."""
    fleet = fleet_of(*serving("web", "--grace-period", "1000"))
    wait_until_ready(fleet)
    _held = Held(fleet, tmp_path)
    _hung = Request(fleet.connect(), "/hang").send()
    fleet.wait_for(r"hanging pid")
    _ends_at_once(fleet, signal.SIGQUIT)


@METHODS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_a_graceful_stop(
    fleet_of: Callable[..., Fleet], tmp_path: Path, method: str, number: signal.Signals
) -> None:
    """Ctrl-C reaches every process of the family; the request in flight is finished all the same."""
    fleet = fleet_of(*serving("web", "--start-method", method))
    wait_until_ready(fleet)
    held = Held(fleet, tmp_path)
    fleet.signal_group(number)
    fleet.wait_for(r"worker \d .*stopped: exit status 0")
    assert pid_of(held.answer()) == held.pid
    assert fleet.wait() == 0
    fleet.assert_nothing_left()
    assert "Traceback" not in fleet.output


SERVES_BLOCKING = """
    import os, sys
    from prefork import Prefork

    def serve(listener):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\nserved")

    Prefork(serve_func=serve, workers=2, reuseport="reuseport" in sys.argv).listen_and_serve(sys.argv[1])
    """
SERVES_WSGI = """
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"served"]
    """
SERVES_AIOHTTP = """
    from aiohttp import web

    async def served(request):
        return web.Response(text="served")

    app = web.Application()
    app.add_routes([web.get("/", served)])
    """
QUEUED = 40


@pytest.fixture(params=["no-reuseport", "reuseport"])
def held_up(
    request: pytest.FixtureRequest,
    fleet_of: Callable[..., Fleet],
    fleet_of_script: Callable[..., Fleet],
    python_script: Callable[..., Path],
    tmp_path: Path,
    server: str,
) -> tuple[Fleet, list[int], list[Request]]:
    """A fleet, its two workers, which are held by SIGSTOP, and forty who wait in their queues."""
    listening = request.param
    if server == "blocking":
        fleet = fleet_of_script(python_script(SERVES_BLOCKING), "127.0.0.1:0", listening)
    else:
        site = Site(tmp_path)
        if server in ("waitress", "aiohttp"):
            site.write(SERVES_WSGI if server == "waitress" else SERVES_AIOHTTP)
        fleet = fleet_of(*site.serving("--server", server, f"--{listening}"))
    workers = fleet.wait_for_workers(2)
    for pid in workers:
        fleet.kill(pid, signal.SIGSTOP)
    return fleet, workers, [Request(fleet.connect()).send() for _ in range(QUEUED)]


SERVERS = pytest.mark.parametrize(
    "server", ["prefork", "uvicorn", "hypercorn", "aiohttp", "waitress", "blocking"]
)


@SERVERS
def test_a_stop_answers_who_waits_in_the_queue(held_up: tuple[Fleet, list[int], list[Request]]) -> None:
    """TERM comes, and nobody serves after these workers."""
    fleet, workers, waiting = held_up
    fleet.signal(signal.SIGTERM)
    fleet.wait_for("stopping")
    for pid in workers:
        fleet.kill(pid, signal.SIGCONT)
    assert all(request.answer() for request in waiting)
    assert fleet.wait() == 0


@SERVERS
def test_workers_that_hear_of_the_stop_first_answer_who_waits(
    held_up: tuple[Fleet, list[int], list[Request]],
) -> None:
    """TERM goes to the whole group, and the master has not said yet what that means: it is held by SIGSTOP, too."""
    fleet, workers, waiting = held_up
    fleet.signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGCONT):
        for pid in workers:
            fleet.kill(pid, number)
    assert all(request.answer() for request in waiting)
    fleet.signal(signal.SIGTERM)
    fleet.signal(signal.SIGCONT)
    assert fleet.wait() == 0


def test_who_comes_while_a_stop_finishes_is_refused(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A request holds its worker; others are not left in a queue that nobody empties any more."""
    fleet = fleet_of(*serving("web"))
    wait_until_ready(fleet)
    held = Held(fleet, tmp_path)
    fleet.signal(signal.SIGTERM)
    wait_until(lambda: not _is_let_in(fleet), "a newcomer is refused")
    assert pid_of(held.answer()) == held.pid
    assert fleet.wait() == 0


def test_who_comes_while_an_older_worker_finishes_is_refused(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A reload has told a worker to drain, and its request holds it; then the fleet stops. It heard of no last call."""
    fleet = fleet_of(*serving("web"))
    wait_until_ready(fleet)
    held = Held(fleet, tmp_path)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for_all(r"generation 2\) ready", 2)
    fleet.signal(signal.SIGTERM)
    wait_until(lambda: not _is_let_in(fleet), "a newcomer is refused")
    assert pid_of(held.answer()) == held.pid
    assert fleet.wait() == 0


def _is_let_in(fleet: Fleet) -> bool:
    try:
        fleet.connect().close()
    except ConnectionError:  # a reset: it had come in the moment of the close
        return False
    return True
