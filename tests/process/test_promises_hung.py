"""Promise 6: one hung worker delays neither a signal nor its siblings."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.process import procfs
from tests.process.apps import answering_pid, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load


def _stop_one(fleet: Fleet, workers: int = 2) -> tuple[int, list[int]]:
    """SIGSTOP one worker: (its pid, the others)."""
    hung, *others = wait_until_ready(fleet, workers)
    fleet.kill(hung, signal.SIGSTOP)
    wait_until(lambda: procfs.state(hung) == "T", "the worker is stopped")
    return hung, others


def test_siblings_answer(fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]) -> None:
    """With one listener for all, nobody waits for the worker that does not accept."""
    fleet = fleet_of(*serving("web"))
    hung, others = _stop_one(fleet)
    load = load_on(fleet.url, clients=8)
    report = load.finish()
    assert not report.failed, report
    assert set(map(int, report.workers)) <= set(others)
    fleet.kill(hung, signal.SIGCONT)


def test_a_reload_completes(fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]) -> None:
    """The hung worker is replaced like the others, and killed once its grace is over."""
    fleet = fleet_of(*serving("web", "--grace-period", "4"))  # enough for the others on a busy machine
    hung, _ = _stop_one(fleet)
    load = load_on(fleet.url, clients=8)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    fleet.wait_for(rf"pid {hung}, generation 1\) stopped: killed by signal 9", since=0)
    report = load.finish()
    assert not report.failed, report
    wait_until(lambda: len(fleet.workers()) == 2, "two workers", show=lambda: fleet.output)


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_the_fleet_grows_and_shrinks(fleet_of: Callable[..., Fleet], sharing: tuple[str, ...]) -> None:
    """TTIN and TTOU are obeyed while a worker hangs."""
    fleet = fleet_of(*serving("web", *sharing))
    _stop_one(fleet)
    mark = fleet.mark()
    fleet.signal(signal.SIGTTIN)
    fleet.wait_for_workers(1, since=mark)
    fleet.signal(signal.SIGTTOU)
    fleet.wait_for(r"worker 2 .* stopped: exit status 0", since=mark)


def test_a_stop_ends_it_at_the_grace_period(fleet_of: Callable[..., Fleet]) -> None:
    """TERM drains the healthy at once, the hung one is killed in time, and the status is still 0."""
    fleet = fleet_of(*serving("web", "--grace-period", "1"))
    hung, others = _stop_one(fleet)
    fleet.signal(signal.SIGTERM)
    fleet.wait_for(rf"pid {others[0]}, generation 1\) stopped: exit status 0")
    fleet.wait_for(rf"pid {hung}, generation 1\) did not finish within 1 s: killing it")
    assert fleet.wait() == 0
    fleet.assert_nothing_left()


def test_a_hung_worker_that_is_let_go_serves_on(fleet_of: Callable[..., Fleet]) -> None:
    """A pause, however long, is no crash: nobody is killed for a suspended machine."""
    fleet = fleet_of(*serving("web", workers=1))
    hung, _ = _stop_one(fleet, workers=1)
    fleet.kill(hung, signal.SIGCONT)
    assert answering_pid(fleet) == hung
    assert not fleet.find_all("crashed|killing")
