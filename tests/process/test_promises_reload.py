"""Promises 2 and 3: a reload loses no request, and code that does not work changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import GOOD, UNCACHED, Site, answering_pid, ask, reload, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load

RELOADS = 5

FAILS_IN_ZYGOTE = {
    "raises": "raise RuntimeError('broken on purpose')",
    "does not parse": "def app(:",
    "exits": "import sys; sys.exit(0)",
    "exits hard": "import os; os._exit(0)",
    "has no application": "something_else = 1",
    "is not callable": "app = 5",
}
FAILS_IN_WORKER = {
    "lifespan raises": """
        async def app(scope, receive, send):
            await receive()
            raise RuntimeError("broken on purpose")
        """,
    "lifespan refuses": """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "not today"})
        """,
    "lifespan crashes": """
        import os
        async def app(scope, receive, send):
            os._exit(1)
        """,
}
HANGS = {
    "import hangs": "import signal; signal.pause()",
    "lifespan hangs": """
        import asyncio
        async def app(scope, receive, send):
            await asyncio.Event().wait()
        """,
    "lifespan blocks": """
        import signal
        async def app(scope, receive, send):
            signal.pause()
        """,
}


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_no_request_fails_while_code_is_reloaded(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], app: str, sharing: tuple[str, ...]
) -> None:
    """Reload after reload under clients that come fresh and clients that stay: every request is answered."""
    fleet = fleet_of(*serving(app, *sharing))
    old = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=16)
    for _ in range(RELOADS):
        fleet.signal(signal.SIGHUP)
        fleet.wait_for("reload done")
    report = load.finish()
    assert not report.failed, report
    assert report.answered > 100
    wait_until(lambda: not set(old) & set(fleet.workers()), "the old have left", show=lambda: fleet.output)
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_reloads_asked_for_faster_than_they_can_be_done_lose_nothing(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """A burst of HUPs is one reload and one more; the last code that was there is what serves."""
    fleet = fleet_of(*serving("web", "--reuseport"))
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    for _ in range(10):
        fleet.signal(signal.SIGHUP)
        fleet.signal(signal.SIGCHLD)
    fleet.wait_for("reload done")
    report = load.finish()
    assert not report.failed, report


def test_a_reload_serves_the_new_code(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """What was edited is what answers, on every worker, although the code is loaded before the fork."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    for version in ("second", "third"):
        site.write_good(version)
        reload(fleet)
        assert {ask(fleet).split()[0] for _ in range(8)} == {version}


def _survives(fleet: Fleet, load: Load, site: Site, brokens: dict[str, str], old: list[int]) -> None:
    """Reload to each broken code, then to good code."""
    for what, source in brokens.items():
        site.write(source)
        fleet.signal(signal.SIGHUP)
        fleet.wait_for(r"reload failed: .*generation 1 serves on")
        assert fleet.workers() == old, what
        assert ask(fleet).startswith("first"), what
    site.write_good("mended")
    reload(fleet)
    assert ask(fleet).startswith("mended")
    report = load.finish()
    assert not report.failed, report


@pytest.mark.parametrize("brokens", [FAILS_IN_ZYGOTE, FAILS_IN_WORKER], ids=["import", "startup"])
def test_a_reload_to_broken_code_leaves_the_old_workers_serving(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path, brokens: dict[str, str]
) -> None:
    """Whatever is wrong with the new code, and wherever it shows: no request notices."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    old = wait_until_ready(fleet)
    _survives(fleet, load_on(fleet.url, clients=8), site, brokens, old)
    assert fleet.stop() == 0


def test_a_reload_to_code_that_hangs_ends_at_the_boot_timeout(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """It is given up in time, its stacks are in the log, and the old workers serve on."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving("--boot-timeout", "4"), env=UNCACHED)
    old = wait_until_ready(fleet)
    _survives(fleet, load_on(fleet.url, clients=8), site, HANGS, old)
    assert len(fleet.find_all("most recent call first")) >= len(HANGS)
    assert fleet.find_all("site_app.py")
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_old_workers_stay_until_new_ones_are_ready(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """While the new code is still loading, every old worker serves; none is told to stop on trust."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    old = wait_until_ready(fleet)
    gate = tmp_path / "gate"
    gate.touch()
    waits = f"""
    import pathlib, time
    print("loading", flush=True)
    while pathlib.Path({str(gate)!r}).exists():
        time.sleep(0.01)
    """
    site.write(waits + GOOD.replace("VERSION", "second"))
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("loading")
    assert fleet.workers() == old
    assert answering_pid(fleet) in old
    gate.unlink()
    new = fleet.wait_for(r"worker 0 \(pid (\d+), generation 2\) ready")
    stopped = fleet.wait_for(r"worker \d \(pid (\d+), generation 1\) stopped: exit status 0")
    assert int(stopped[1]) in old
    assert int(new[1]) not in old
    fleet.wait_for("reload done", since=0)
