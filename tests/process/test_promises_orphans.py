"""Promise 4: no process outlives the master, whatever it was doing when the master died."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import UNCACHED, Held, Request, Site, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load
from tests.process.test_promises_stop import (
    IMPORT_WAITS,
    IMPORT_WAITS_STUBBORNLY,
    METHODS,
    STARTUP_BLOCKS,
    STARTUP_WAITS,
)


def _dies_with_its_master(fleet: Fleet) -> None:
    assert fleet.members()  # remembered by the fleet, so that even an orphan in disguise is found
    fleet.kill(fleet.pid)
    fleet.assert_nothing_left()


@METHODS
def test_idle_workers_leave_with_their_master(fleet_of: Callable[..., Fleet], method: str) -> None:
    """Nothing is going on at all: end-of-file on the channel is what they hear."""
    fleet = fleet_of(*serving("web", "--start-method", method))
    wait_until_ready(fleet)
    _dies_with_its_master(fleet)


@METHODS
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_busy_workers_leave_with_their_master(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], app: str, method: str
) -> None:
    """Clients keep their connections and ask on; nobody may hold an orphan."""
    fleet = fleet_of(*serving(app, "--start-method", method))
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    _dies_with_its_master(fleet)
    assert load.finish().answered


def test_a_request_in_flight_does_not_keep_an_orphan(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """The grace period is the master's to give; without one there is a second."""
    fleet = fleet_of(*serving("web", "--grace-period", "1000"))
    wait_until_ready(fleet)
    _held = Held(fleet, tmp_path)
    _dies_with_its_master(fleet)


def test_a_hung_request_does_not_keep_an_orphan(fleet_of: Callable[..., Fleet]) -> None:
    """Nothing of Python's is heard in an interpreter that blocks; the kernel's timer is."""
    fleet = fleet_of(*serving("web", "--grace-period", "1000"))
    wait_until_ready(fleet)
    hung = Request(fleet.connect(), "/hang").send()
    fleet.wait_for("hanging pid")
    _dies_with_its_master(fleet)
    assert hung.answer() == ""


@METHODS
@pytest.mark.parametrize(
    "source",
    [IMPORT_WAITS, IMPORT_WAITS_STUBBORNLY, STARTUP_WAITS, STARTUP_BLOCKS],
    ids=["import", "stubborn import", "startup", "blocking startup"],
)
def test_a_boot_ends_with_the_master(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str, method: str
) -> None:
    """The application's own code runs and cannot be asked."""
    site = Site(tmp_path)
    site.write(source)
    fleet = fleet_of(*site.serving("--start-method", method))
    fleet.wait_for("importing|starting up")
    _dies_with_its_master(fleet)


def test_a_reload_ends_with_the_master(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Two generations are alive, one of them loading."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(IMPORT_WAITS)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("importing")
    _dies_with_its_master(fleet)


@METHODS
def test_a_stopped_worker_ends_with_the_master(fleet_of: Callable[..., Fleet], method: str) -> None:
    """A process under SIGSTOP hears of nothing until the kernel lets it go on."""
    fleet = fleet_of(*serving("web", "--start-method", method))
    workers = wait_until_ready(fleet)
    fleet.kill(workers[0], signal.SIGSTOP)
    wait_until(lambda: procfs.state(workers[0]) == "T", "the worker is stopped")
    _dies_with_its_master(fleet)


def test_the_port_is_free_again(fleet_of: Callable[..., Fleet]) -> None:
    """What is left of a dead master's fleet does not keep the next master from its address."""
    first = fleet_of(*serving("web"))
    wait_until_ready(first)
    bind = f"127.0.0.1:{first.port}"
    _dies_with_its_master(first)
    second = fleet_of(*serving("web", bind=bind))
    wait_until_ready(second)
    assert second.stop() == 0
