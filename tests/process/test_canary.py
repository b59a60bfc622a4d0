"""A canary reload of a real fleet: one that does well, and two that do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import GOOD, UNCACHED, Site, ask, wait_until_ready
from tests.process.controlling import Ctl, control_path, refused
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load

BAD = GOOD.replace('"status": 200', '"status": 500').replace("VERSION", "second")
WAITS = "        import asyncio\n        await asyncio.sleep(0.5)\n        body ="
"""So long that what a busy machine adds to some of a hundred answers is no factor of two."""
SLOW = GOOD.replace("        body =", WAITS).replace("VERSION", "second")
STEADY = GOOD.replace("        body =", WAITS)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def serving(
    fleet_of: Callable[..., Fleet], site: Site, *words: str, workers: int = 2
) -> tuple[Fleet, list[int]]:
    """A fleet of the first version, and its workers."""
    fleet = fleet_of(*site.serving(*words, workers=workers), env=UNCACHED)
    return fleet, wait_until_ready(fleet, workers)


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_errors_roll_it_back_and_the_old_ones_have_never_stopped(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], site: Site, sharing: tuple[str, ...]
) -> None:
    """Long before its time is over; whoever has asked is told why, and the command fails."""
    fleet, old = serving(fleet_of, site, *sharing)
    load = load_on(fleet.url, clients=16)
    site.write(BAD)
    why = refused(fleet, "reload", "--canary", "50%", "--canary-s", "600")
    assert re.search(
        r"reload failed: \d+\.\d% of its answers are errors \(5xx\), of the old ones 0\.0%; generation 1 serves on",
        why,
    )
    wait_until(lambda: set(fleet.workers()) == set(old), "the canary has left", show=lambda: fleet.output)
    report = load.finish()
    assert all("500" in kind for kind in report.failed), report
    assert report.answered > 100
    assert all(ask(fleet).startswith("first") for _ in range(10))
    assert fleet.stop() == 0


def test_one_that_is_slower_is_rolled_back_when_its_time_is_over(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], site: Site
) -> None:
    fleet, old = serving(fleet_of, site)
    load = load_on(fleet.url, clients=64)
    site.write(SLOW)
    why = refused(
        fleet, "reload", "--canary", "50%", "--canary-s", "10"
    )  # time for a hundred answers of its own
    assert re.search(r"reload failed: 99 % of its answers take up to \d{3,} ms, of the old ones \d+ ms", why)
    wait_until(lambda: set(fleet.workers()) == set(old), "the canary has left", show=lambda: fleet.output)
    assert not load.finish().failed
    assert fleet.stop() == 0


def test_one_that_does_as_well_goes_on_and_nothing_is_lost(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], site: Site
) -> None:
    """What is said meanwhile is shown."""
    site.write(STEADY.replace("VERSION", "first"))
    fleet, old = serving(fleet_of, site, workers=3)
    load = load_on(fleet.url, clients=64)
    site.write(STEADY.replace("VERSION", "second"))
    with Ctl("--control", control_path(fleet), "reload", "--canary", "10%", "--canary-s", "6") as asked:
        asked.wait_for("generation 2 serves beside the old one as a canary (1 of 3) for 6 s")
        assert set(old) <= set(fleet.workers())
        asked.wait_for("the canary has done as well as the old generation")
        assert asked.end() == 0
    assert asked.output == "generation 2 serves\n"
    report = load.finish()
    assert not report.failed, report
    wait_until(lambda: not set(old) & set(fleet.workers()), "the old ones have left")
    assert ask(fleet).startswith("second")
    assert fleet.stop() == 0
