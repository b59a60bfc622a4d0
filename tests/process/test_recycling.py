"""Recycling: a worker's successor serves before it leaves, one at a time, and no request is lost by it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import Site, ask, serving, wait_until_ready
from tests.process.controlling import status_of
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load
from tests.process.test_promises_idle import _assert_idle

SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
RECYCLING = r"recycling worker (\d+) \(pid (\d+), generation \d+\)$"
STOPPED = r"worker \d+ \(pid (\d+), generation \d+\) stopped: exit status 0"
READY = r"worker (\d+) \(pid \d+, generation \d+\) ready"


def assert_one_at_a_time(fleet: Fleet) -> int:
    """A successor is ready before its predecessor leaves, and the next is begun when that one has left: how many."""
    story = []
    for line in fleet.lines:
        for kind, pattern in (("begun", RECYCLING), ("left", STOPPED), ("ready", READY)):
            if re.search(pattern, line):
                story.append(kind)
    begun = story.index("begun")
    told = "".join(kind[0] for kind in story[begun:])
    assert re.fullmatch(r"(brl)*(b|br)?", told), fleet.output
    return told.count("l")


@SHARING
def test_age(fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], sharing: tuple[str, ...]) -> None:
    """Under clients that come fresh and clients that stay: all are answered."""
    words = ("--max-age", "1.5", "--recycle-jitter", "0.5", *sharing)
    fleet = fleet_of(*serving("web", *words, workers=3))
    wait_until_ready(fleet, 3)
    load = load_on(fleet.url, clients=16)
    fleet.wait_for_all(RECYCLING, 5, timeout_s=40)
    report = load.finish()
    assert not report.failed, report
    assert report.answered > 100
    assert assert_one_at_a_time(fleet) >= 4
    assert fleet.find_all(r"is to be recycled: it has served for \d s")
    assert not fleet.find_all("crash")
    assert fleet.stop() == 0


@SHARING
def test_requests_over_http(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], sharing: tuple[str, ...]
) -> None:
    """Our own server counts what it has begun, and says when it is enough: nobody notices."""
    fleet = fleet_of(*serving("web", "--max-requests", "200", "--recycle-jitter", "0", *sharing, workers=2))
    wait_until_ready(fleet, 2)
    load = load_on(fleet.url, clients=16)
    fleet.wait_for_all(RECYCLING, 6, timeout_s=40)
    report = load.finish()
    assert not report.failed, report
    assert assert_one_at_a_time(fleet) >= 5
    assert fleet.find_all(r"is to be recycled: it has served 200 requests")
    assert not fleet.find_all("crash")
    assert fleet.stop() == 0


@pytest.mark.slow
def test_until_its_age_a_fleet_is_idle(fleet_of: Callable[..., Fleet]) -> None:
    """Promise 5: a deadline in an hour is no wake-up now."""
    fleet = fleet_of(*serving("web", "--max-age", "3600"))
    wait_until_ready(fleet)
    assert ask(fleet)
    _assert_idle(fleet, processes=5)


COUNTS = """
    from prefork import Prefork

    def serve(listener):
        served = 0
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
            served += 1
            if served == listener.wear.requests:
                listener.wear.say_worn()

    Prefork(serve_func=serve, workers=2, max_requests=200, recycle_jitter=0.25).listen_and_serve("127.0.0.1:0")
    """


def test_requests(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """A server that counts says when it is enough; each worker has a bound of its own."""
    fleet = fleet_of_script(python_script(COUNTS))
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    fleet.wait_for_all(RECYCLING, 6)
    report = load.finish()
    assert not report.failed, report
    assert assert_one_at_a_time(fleet) >= 5
    bounds = {int(match[1]) for match in fleet.find_all(r"is to be recycled: it has served (\d+) requests")}
    assert len(bounds) > 1
    assert all(150 <= bound <= 200 for bound in bounds)


GROWS = """
    import os
    import sys
    from prefork import Prefork, Server
    from prefork.master import recycling

    recycling.MEMORY_EVERY_S = 0.2
    recycling.SETTLED_S = 0.5
    KEPT = []

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/grow":
            KEPT.append(bytearray(os.urandom(1 << 20) * int(scope["query_string"])))
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    if __name__ == "__main__":
        options = {sys.argv[1]: int(sys.argv[2]) if sys.argv[2].isdigit() else sys.argv[2]}
        Prefork(Server(app), workers=2, control="auto", **options).listen_and_serve("127.0.0.1:0")
    """


@pytest.mark.parametrize(
    ("option", "bound", "why"),
    [
        ("max_memory_bytes", str(80 << 20), r"it has \d{3} MiB, more than 80"),
        (
            "max_fleet_memory",
            "130M",
            r"the fleet has \d{3} MiB, more than 130, and it is the largest \(\d{3} MiB\)",
        ),
    ],
)
def test_memory(
    python_script: Callable[..., Path],
    fleet_of_script: Callable[..., Fleet],
    option: str,
    bound: str,
    why: str,
) -> None:
    """Of one worker, and of all together: the one that has grown goes, the other stays."""
    fleet = fleet_of_script(python_script(GROWS), option, bound)
    old = wait_until_ready(fleet)
    grown = int(ask(fleet, "/grow?120").split()[1])
    fleet.wait_for(rf"worker \d \(pid {grown}, generation 1\) is to be recycled: {why}")
    fleet.wait_for(rf"worker \d \(pid {grown}, generation 1\) stopped: exit status 0")
    assert assert_one_at_a_time(fleet) == 1
    (other,) = set(old) - {grown}
    assert other in fleet.workers()
    assert sum(worker["pss_bytes"] for worker in status_of(fleet)["workers"]) < 130 << 20


def test_a_stop_in_the_middle_of_it(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Promise 6: a successor that hangs in its start delays no stop."""
    site = Site(tmp_path)
    marker = tmp_path / "hang"
    site.write(
        f"""
        import time
        from pathlib import Path

        async def app(scope, receive, send):
            assert scope["type"] == "lifespan"
            await receive()
            if Path({str(marker)!r}).exists():
                print("hanging", flush=True)
                time.sleep(1000)
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
            await send({{"type": "lifespan.shutdown.complete"}})
        """
    )
    fleet = fleet_of(*site.serving("--max-age", "1", "--lifespan", "on"))
    wait_until_ready(fleet)
    marker.touch()
    wait_until(lambda: fleet.find_all("hanging"), "somebody hangs", show=lambda: fleet.output)
    assert fleet.stop(signal.SIGTERM) == 0
    fleet.assert_nothing_left()
