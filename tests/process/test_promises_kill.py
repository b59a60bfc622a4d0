"""Promise 1: a worker that is killed takes with it what it was working on, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import Held, Litter, Request, answering_pid, pid_of, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load

SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
CLIENTS = 16
KILLS = 5
WAITING = 60


@SHARING
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_no_connection_is_refused_while_workers_are_killed(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], app: str, sharing: tuple[str, ...]
) -> None:
    """Only requests that had been taken up fail: no more than there are clients, none while connecting."""
    fleet = fleet_of(*serving(app, "--recover-threshold", "100", *sharing))
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    for _ in range(KILLS):
        mark = fleet.mark()
        fleet.kill(answering_pid(fleet))
        fleet.wait_for_workers(1, since=mark)
    report = load.finish()
    assert report.failed_count <= KILLS * CLIENTS, report
    assert not {kind for kind in report.failed if kind.startswith(("connect", "status"))}, report
    assert not {kind for kind in report.failed if "timeout" in kind}, report
    assert report.answered > 100
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


@SHARING
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_connections_that_wait_for_a_worker_outlive_it(
    fleet_of: Callable[..., Fleet], app: str, sharing: tuple[str, ...]
) -> None:
    """A worker is stopped, connections pile up behind it, it is killed: its replacement answers every one."""
    fleet = fleet_of(*serving(app, *sharing, workers=2))
    workers = wait_until_ready(fleet)
    for pid in workers:
        fleet.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: procfs.state(pid) == "T", "the worker is stopped")
    waiting = [Request(fleet.connect()).send() for _ in range(WAITING)]
    for pid in workers:
        fleet.kill(pid)
    answers = [request.answer() for request in waiting]
    assert all(answers), f"{answers.count('')} of {WAITING} were lost"
    assert not {pid_of(answer) for answer in answers} & set(workers)


@SHARING
def test_a_request_on_another_worker_is_not_touched(
    fleet_of: Callable[..., Fleet], tmp_path: Path, sharing: tuple[str, ...]
) -> None:
    """Two requests in flight on two workers; one worker is killed; the other request ends as if nothing was."""
    fleet = fleet_of(*serving("web", *sharing))
    wait_until_ready(fleet)
    first = Held(fleet, tmp_path, "first")
    others = []
    while not others or others[-1].pid == first.pid:
        others.append(Held(fleet, tmp_path, f"other{len(others)}"))
        assert len(others) < 50, "the second worker never got a connection"
    fleet.kill(first.pid)
    assert first.answer() == ""
    answers = {other.pid: other.answer() for other in others}
    assert answers.pop(first.pid, "") == ""
    assert {pid: pid_of(answer) for pid, answer in answers.items()} == {others[-1].pid: others[-1].pid}


def test_a_killed_worker_is_replaced_and_the_log_says_so(fleet_of: Callable[..., Fleet]) -> None:
    """One line for the crash with its signal, one for the new worker, in the same slot."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    mark = fleet.mark()
    fleet.kill(workers[1])
    crashed = rf"worker (\d) \(pid {workers[1]}, generation 1\) crashed: killed by signal 9"
    slot = fleet.wait_for(crashed, since=mark)[1]
    fleet.wait_for(rf"worker {slot} \(pid \d+, generation 1\) ready", since=mark)
    assert len(fleet.workers()) == 2
    assert workers[0] in fleet.workers()


def test_what_workers_leave_behind_is_reaped(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A worker's orphans become the master's children, as in a container where it is process 1: no zombies."""
    fleet = fleet_of(*serving("web"))
    wait_until_ready(fleet)
    Litter(fleet, tmp_path, fleet.pid).wait_until_reaped()
    assert fleet.is_running
    assert answering_pid(fleet)
