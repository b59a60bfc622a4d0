"""Promise 7: crash loops are noticed and slowed, failed forks are tried again, the zygote is replaceable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import Site, answering_pid, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load

CRASHES = """
    import os
    async def app(scope, receive, send):
        os._exit(1)
    """
SPAWN_FAILS = r"worker \d: cannot be spawned, will be tried again: .*"


def helpers_of(fleet: Fleet, *, but: Collection[int] = ()) -> tuple[int, int]:
    """Wait until there are a zygote and a worker that it has parked, none of them one of `but`: their pids.

    Both are children of the master; the zygote is the older one. Nobody may be on the way to serve.
    """
    found: list[procfs.Process] = []

    def are_there() -> bool:
        workers = set(fleet.workers())
        seen = [procfs.identify(pid) for pid in procfs.children(fleet.pid) if pid not in workers]
        found[:] = sorted(filter(None, seen), key=lambda process: (process.start_ticks, process.pid))
        return len(found) == 2 and not {process.pid for process in found} & set(but)

    wait_until(
        are_there, "a zygote and the worker that it has parked", show=lambda: f"{found}\n{fleet.output}"
    )
    zygote, parked = found
    return zygote.pid, parked.pid


def zygote_of(fleet: Fleet) -> int:
    """The pid of the zygote, once it has parked a worker."""
    return helpers_of(fleet)[0]


def test_a_crash_loop_at_the_start_ends_the_master(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Workers that die before they serve are started ever more slowly, and in the end not any more."""
    site = Site(tmp_path)
    site.write(CRASHES)
    fleet = fleet_of(*site.serving("--recover-threshold", "4", "--recover-interval", "0.05", workers=1))
    assert fleet.wait() == 4
    delays_s = [float(match[1]) for match in fleet.find_all(r"worker 0: next start in ([\d.]+) s")]
    assert len(delays_s) == 4
    # Doubling, each stretched by at most a half: so the next but one is always the longer.
    assert all(later > earlier for earlier, later in zip(delays_s, delays_s[2:], strict=False)), delays_s
    assert fleet.find_all(r"5 crashes within 60 s exceed the recover threshold of 4: giving up")
    assert "Traceback" not in fleet.output
    fleet.assert_nothing_left()


def test_crashes_in_service_beyond_the_threshold_end_the_master(fleet_of: Callable[..., Fleet]) -> None:
    """The threshold is a count within a window: one more ends everything, with a status of its own."""
    fleet = fleet_of(*serving("web", "--recover-threshold", "2", "--recover-interval", "0.01"))
    wait_until_ready(fleet)
    for _ in range(2):
        mark = fleet.mark()
        fleet.kill(fleet.workers()[0])
        fleet.wait_for_workers(1, since=mark)
    fleet.kill(fleet.workers()[0])
    assert fleet.wait() == 4
    assert fleet.find_all("3 crashes within 60 s exceed")
    fleet.assert_nothing_left()


def test_crashes_outside_the_window_never_add_up(fleet_of: Callable[..., Fleet]) -> None:
    """With a window of nothing, every crash is the first."""
    fleet = fleet_of(
        *serving("web", "--recover-threshold", "1", "--recover-window", "0.001", "--recover-interval", "0")
    )
    wait_until_ready(fleet)
    for _ in range(4):
        mark = fleet.mark()
        fleet.kill(fleet.workers()[0])
        fleet.wait_for_workers(1, since=mark)
    assert fleet.stop() == 0


def test_the_zygote_is_replaced_and_nobody_notices(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """It is killed, and killed again, under load: workers serve on, and the next crash has a zygote to turn to."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    helpers = helpers_of(fleet)
    for _ in range(2):
        fleet.kill(helpers[0])
        fleet.wait_for(r"zygote of generation 1.* killed by signal 9")
        helpers = helpers_of(fleet, but=helpers)
    assert fleet.workers() == workers
    report = load.finish()
    assert not report.failed, report
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for_workers(1, since=mark)
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_a_stopped_zygote_is_noticed_when_it_is_needed(fleet_of: Callable[..., Fleet]) -> None:
    """It does not answer the request for a worker: it is killed in time, and the next one does."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    fleet.kill(zygote_of(fleet), signal.SIGSTOP)
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for(r"zygote of generation 1 does not answer: killing it", since=mark)
    assert answering_pid(fleet) == workers[1]
    fleet.wait_for_workers(1, since=mark)
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_a_parked_worker_that_is_killed_is_not_missed(fleet_of: Callable[..., Fleet]) -> None:
    """Whoever was forked ahead of time may die too: the next crash is answered all the same, no zombie stays."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    _, spare = helpers_of(fleet)
    fleet.kill(spare)
    wait_until(lambda: not procfs.state(spare), "it is reaped")
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for_workers(1, since=mark)
    assert fleet.stop() == 0


# -- no process, no descriptor --------------------------------------------------------------------------


@contextmanager
def _limit(pid: int, limit: str, soft: int, as_user: Sequence[str]) -> Iterator[None]:
    """Lower one soft limit of a running process, and raise it again. By prlimit(1), as the user that owns it."""
    hard = f"$(prlimit --pid {pid} --{limit} --output HARD --noheadings)"
    subprocess.run([*as_user, "prlimit", "--pid", str(pid), f"--{limit}={soft}:"], check=True)
    try:
        yield
    finally:
        subprocess.run([*as_user, "sh", "-c", f"prlimit --pid {pid} --{limit}={hard}:"], check=True)


def _serves_on_without(
    fleet: Fleet, limited: int, limit: str, soft: int, as_user: Sequence[str] = ()
) -> None:
    """Crash workers while the limit holds: said, tried again, and replaced once there is room."""
    serving_pid = answering_pid(fleet)
    crashing = next(pid for pid in fleet.workers() if pid != serving_pid)
    mark = fleet.mark()
    with _limit(limited, limit, soft, as_user):
        fleet.kill(crashing)
        # The worker that was parked before there was a limit may answer the first crash.
        if "ready" in fleet.wait_for(rf"{SPAWN_FAILS}|generation 1\) ready", since=mark)[0]:
            fleet.kill(fleet.workers()[-1])
        fleet.wait_for_all(SPAWN_FAILS, 2, since=mark)
        assert answering_pid(fleet) == serving_pid
        recovering = fleet.mark()
    fleet.wait_for_workers(1, since=recovering)
    assert len(fleet.workers()) == 2
    assert fleet.stop() == 0
    fleet.assert_nothing_left()
    assert "Traceback" not in fleet.output


@pytest.mark.parametrize("who", ["master", "zygote"])
def test_no_descriptor_left(fleet_of: Callable[..., Fleet], who: str) -> None:
    """EMFILE, in the process that asks for a worker and in the one that makes it."""
    fleet = fleet_of(*serving("web", "--recover-threshold", "100"))
    wait_until_ready(fleet)
    pid = fleet.pid if who == "master" else zygote_of(fleet)
    _serves_on_without(fleet, pid, "nofile", 3)


AS_NOBODY = (
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # The checkout and its Python may be readable by their owner only; no other right of root's is kept.
    + [f"--{kind}-caps=-all,+dac_read_search,+dac_override" for kind in ("inh", "ambient")]
)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root: RLIMIT_NPROC counts a user's processes",
)
def test_no_process_left() -> None:
    """EAGAIN: the user may have no more processes."""
    command = [*AS_NOBODY, sys.executable, "-m", "prefork", *serving("web", "--recover-threshold", "100")]
    with Fleet(command) as fleet:
        wait_until_ready(fleet)
        _serves_on_without(fleet, zygote_of(fleet), "nproc", 1, AS_NOBODY)
