"""Autoscaling, for real: load comes and goes, and so do workers; no request is lost by it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import UNCACHED, Site, answering_pid, serving, wait_until_ready
from tests.process.harness import Fleet, run_to_end, wait_until
from tests.process.load import Load
from tests.process.test_promises_idle import _assert_idle

BUSY = """
    import os, time

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    return
        until_s = time.process_time() + 0.01
        while time.process_time() < until_s:
            pass
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
"""
WAITS = """
    import os, time

    def app(environ, start_response):
        time.sleep(0.05)
        body = b"pid %d" % os.getpid()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


def fleet_that_scales(fleet_of: Callable[..., Fleet], folder: Path, app: str, *words: str) -> Fleet:
    site = Site(folder)
    site.write(app)
    fleet = fleet_of(*serving("site_app", *words, folder=folder), "--workers", "1:3", env=UNCACHED)
    wait_until_ready(fleet, 1)
    return fleet


@pytest.mark.slow
@pytest.mark.timeout(180)  # to come down takes half a minute for each worker
@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_it_grows_under_load_and_comes_down_when_that_is_over(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path, sharing: tuple[str, ...]
) -> None:
    """And when it has come down nobody looks any more (promise 5)."""
    fleet = fleet_that_scales(fleet_of, tmp_path, BUSY, *sharing)
    load = load_on(
        fleet.url, clients=6, pause_s=0
    )  # three of them connect anew each time: too few to be an emergency
    fleet.wait_for(r"autoscale: from 1 to \d workers: they are busy for")
    first, *_ = fleet.wait_for_workers(2, since=0)
    wait_until(lambda: answering_pid(fleet) != first, "the others serve, too", show=lambda: fleet.output)
    report = load.finish()
    assert not report.failed, report
    fleet.wait_for("autoscale: from 2 to 1 workers: 1 are enough", timeout_s=120)
    wait_until(lambda: len(fleet.workers()) == 1, "it has come down", show=lambda: fleet.output)
    _assert_idle(fleet, processes=4)
    assert fleet.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_application_that_waits_grows_too(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path, threads: str
) -> None:
    """It uses no CPU: what shows is a loop that answers late, or threads that are all taken."""
    fleet = fleet_that_scales(fleet_of, tmp_path, WAITS, "--threads", threads)
    load = load_on(fleet.url, clients=8, pause_s=0)
    fleet.wait_for(r"autoscale: from 1 to \d workers")
    assert not load.finish().failed
    assert fleet.stop() == 0


@pytest.mark.parametrize("text", ["8:2", "0:2", "2:", "a:b", "2:3:4"])
def test_bounds_that_cannot_be_are_refused(text: str) -> None:
    """In one line."""
    status, output = run_to_end("web:app", "--workers", text)
    assert status == 2
    assert re.search(rf"whole number from 1, or two such as 2:8, not '{text}'", output), output


def test_with_a_server_that_tells_nothing_it_is_refused() -> None:
    status, output = run_to_end("web:app", "--workers", "2:4", "--server", "uvicorn")
    assert status == 2
    assert "--workers N:M goes by what prefork's own server tells; uvicorn does not" in output
