"""From the SIGKILL of a worker to the first answer of its replacement.

How it is measured: the other workers are stopped (SIGSTOP), so that nobody but the replacement can answer; the worker
is killed; a connection is opened at once, and its answer ends the measurement. uvicorn's master blocks on a worker
that is stopped, so there clients ask until somebody new answers, which costs it a few milliseconds of luck.

On a machine that others use, too, the median says how fast it is and the range how busy they were. The variant under
SCHED_RR leaves the others out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from benchmarks.supervision.scenario import Reading
from benchmarks.supervision.subjects import (
    GUNICORN,
    GUNICORN_PRELOAD,
    SHARED,
    UVICORN,
    Running,
    Subject,
    ask,
    running,
)
from tests.process import procfs
from tests.process.harness import wait_until

GOAL_MS = 20.0
KILLS = 7
PEER_KILLS = 2
"""In each round."""
PEER_LIMIT_S = 20.0
SETTLED_S = 0.7
"""A worker that dies within half a second of its start is replaced after a delay; that is not measured here."""
SUBJECTS = (SHARED, GUNICORN, GUNICORN_PRELOAD, UVICORN)
QUICK_SUBJECTS = (SHARED, GUNICORN, UVICORN)


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """This process, and what it starts, before everything else that runs. Raises PermissionError, AttributeError."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def replacement(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """Both applications, with 1, 2 and 4 workers; ours also under SCHED_RR. Quick: the trivial one, with 2 workers."""
    kills = KILLS if subject.is_ours and not is_quick else PEER_KILLS
    counts = (1, 2, 4) if subject.is_ours and not is_quick else (2,)
    apps = ("heavy",) if subject is GUNICORN_PRELOAD else ("trivial",) if is_quick else ("trivial", "heavy")
    for app in apps:
        for workers in counts:
            yield _reading(subject, app, workers, kills, "")
    if subject.is_ours and not is_quick:
        # Where that is not permitted there is nothing to be measured, and nothing that would look like it.
        with contextlib.suppress(PermissionError, AttributeError), real_time():
            for app in apps:
                for workers in counts:
                    yield _reading(subject, app, workers, kills, ", SCHED_RR")


def _reading(subject: Subject, app: str, workers: int, kills: int, variant: str) -> Reading:
    with running(subject, app, workers) as one:
        one.wait_until_up()
        times_ms = tuple(_times_ms(one, kills))
    setting = f"{app} app, {workers} worker{'s'[: workers > 1]}{variant}"
    return Reading(setting, "SIGKILL to replacement serving", "ms", times_ms, GOAL_MS)


def _times_ms(one: Running, kills: int) -> Iterator[float]:
    deadline_s = time.monotonic() + PEER_LIMIT_S
    for number in range(kills):
        if number and not one.subject.is_ours and time.monotonic() > deadline_s:
            return
        wait_until(lambda: len(one.worker_pids()) == one.workers, "all workers are back")
        time.sleep(SETTLED_S)
        pids = one.worker_pids()
        victim = pids[number % len(pids)]
        if one.subject is not UVICORN:
            yield _alone_ms(one, victim, [pid for pid in pids if pid != victim])
        else:
            begun_s = time.monotonic()
            one.fleet.kill(victim)
            while ask(one.port) in (0, *pids):
                pass
            yield (time.monotonic() - begun_s) * 1000


def _alone_ms(one: Running, victim: int, others: list[int]) -> float:
    process = procfs.identify(victim)
    assert process is not None
    try:
        for pid in others:
            one.fleet.kill(pid, signal.SIGSTOP)
            wait_until(lambda pid=pid: procfs.state(pid) == "T", "the worker is stopped")  # type: ignore[misc]
        begun_s = time.monotonic()
        procfs.send(process, signal.SIGKILL)
        while ask(one.port) in (0, victim):
            pass
        return (time.monotonic() - begun_s) * 1000
    finally:
        for pid in others:
            one.fleet.kill(pid, signal.SIGCONT)
