"""What a fleet costs: its start, its memory, and its wake-ups while nobody asks for anything."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.report import Line, spread
from benchmarks.subjects import (
    APPS,
    GUNICORN,
    GUNICORN_PRELOAD,
    SHARED,
    UVICORN,
    Running,
    Subject,
    ask,
    running,
)
from tests.process.harness import Fleet, free_port

WORKERS = 4
IMPORT_AND_WAIT = "import heavy, gc, time; gc.collect(); print('done', flush=True); time.sleep(60)"
START_GOAL = 1.2
MEMORY_GOAL = 1.2
SUBJECTS = (SHARED, GUNICORN, GUNICORN_PRELOAD, UVICORN)

ECHO = Subject(
    "prefork, serve_func program",
    lambda _app, port, workers: [sys.executable, str(APPS / "echo.py"), f"127.0.0.1:{port}", str(workers)],
    is_ours=True,
)
IDLE_SUBJECTS = (SHARED, ECHO, GUNICORN, UVICORN)


def _python(code: str) -> Fleet:
    return Fleet([sys.executable, "-c", code], cwd=APPS)


def _plain_import_s() -> tuple[float, float]:
    """Seconds that the import of the heavy application takes in one process, alone and with Python's own start."""
    code = "import time; t = time.perf_counter(); import heavy; print('took', time.perf_counter() - t, flush=True)"
    begun_s = time.monotonic()
    with _python(code) as one:
        import_s = float(one.wait_for(r"took ([\d.]+)")[1])
        one.wait()
    return import_s, time.monotonic() - begun_s


def start(subject: Subject, *, is_quick: bool) -> Iterator[Line]:
    """The heavy application from the command to the first answer, beside its plain import."""
    times_s, plain_s, process_s = [], [], []
    for _ in range(1 if is_quick else 5):
        # In turn, so that both see the same neighbours.
        import_s, all_s = _plain_import_s()
        plain_s.append(import_s)
        process_s.append(all_s)
        begun_s = time.monotonic()
        with running(subject, "heavy", WORKERS) as one:
            one.wait_for_first_answer()
            times_s.append(time.monotonic() - begun_s)
    ratio, of_process = median(times_s) / median(plain_s), median(times_s) / median(process_s)
    yield Line(
        f"heavy app, {WORKERS} workers: start to first answer / plain import",
        subject.name,
        f"{ratio:.2f} ({of_process:.2f} of a process that imports it and ends); {spread(times_s, 's', 2)}",
        f"<= {START_GOAL}" if subject.is_ours else "",
        ratio <= START_GOAL if subject.is_ours else None,
    )


def _pss_of_one(process: Fleet, word: str) -> float:
    """Megabytes of one process once it has said `word`."""
    with process as one:
        one.wait_for(word)
        return one.pss_bytes() / 1e6


def _one_uvicorn() -> Fleet:
    words = ["-m", "uvicorn", "heavy:app", "--port", str(free_port())]
    return Fleet([sys.executable, *words], env={"BENCHMARK_COLLECT": "1"}, cwd=APPS)


def memory(subject: Subject, *, is_quick: bool) -> Iterator[Line]:
    """PSS of the whole family, each worker having collected garbage, beside one process that imported it."""
    plain_mb, served_mb, sums_mb = [], [], []
    for _ in range(1 if is_quick else 3):
        plain_mb.append(_pss_of_one(_python(IMPORT_AND_WAIT), "done"))
        served_mb.append(_pss_of_one(_one_uvicorn(), "startup complete"))
        with running(subject, "heavy", WORKERS, env={"BENCHMARK_COLLECT": "1"}) as family:
            family.wait_until_up()
            time.sleep(
                0.5
            )  # a process parked ahead of time is part of the family, and comes after the workers
            sums_mb.append(family.fleet.pss_bytes() / 1e6)
    ratio = median(sums_mb) / median(plain_mb)
    yield Line(
        f"heavy app, {WORKERS} workers: PSS of all processes / one process",
        subject.name,
        f"{ratio:.2f} ({median(sums_mb) / median(served_mb):.2f} of one uvicorn process that serves it); "
        f"{spread(sums_mb, 'MB', 0)}",
        f"<= {MEMORY_GOAL}" if subject.is_ours else "",
        ratio <= MEMORY_GOAL if subject.is_ours else None,
    )


def idle(subject: Subject, *, is_quick: bool) -> Iterator[Line]:
    """Context switches of every thread of every process, while nobody asks for anything."""
    seconds = 3 if is_quick else 10
    with running(subject) as one:
        _settle(one)
        before = one.fleet.context_switches()
        time.sleep(seconds)
        after = one.fleet.context_switches()
    woken = {pid: (after[pid].voluntary - before[pid].voluntary) / seconds for pid in before if pid in after}
    master = woken.pop(one.fleet.pid)
    total = master + sum(woken.values())
    yield Line(
        f"idle, 2 workers, {seconds} s: wake-ups a second",
        subject.name,
        f"{total:.1f} (master {master:.1f}, {len(woken)} other processes {total - master:.1f})",
        "0" if subject.is_ours else "",
        total == 0 if subject.is_ours else None,
    )


def _settle(one: Running) -> None:
    if one.subject is ECHO:
        one.fleet.wait_for(r"ready: \d+ workers")
    else:
        one.wait_until_up()
        ask(one.port)
    time.sleep(3.0)  # what a start leaves to be done is done by then: no figure hangs on it


def machine() -> str:
    """Cores, kernel and Python, for the head of the table."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
