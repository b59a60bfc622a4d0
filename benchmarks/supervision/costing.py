"""What a fleet costs: its start, its memory, and its wake-ups while nobody asks for anything."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from benchmarks.run.places import APPS
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
from tests.process.harness import Fleet, free_port

WORKERS = 4
QUICK_WORKERS = 2
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
QUICK_SUBJECTS = (SHARED, GUNICORN, UVICORN)
QUICK_MEMORY = (SHARED, GUNICORN)


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


def start(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """The heavy application from the command to the first answer, beside its plain import in the same round."""
    workers = QUICK_WORKERS if is_quick else WORKERS
    import_s, process_s = _plain_import_s()
    begun_s = time.monotonic()
    with running(subject, "heavy", workers) as one:
        one.wait_for_first_answer()
        took_s = time.monotonic() - begun_s
    setting = f"heavy app, {workers} workers"
    yield Reading(setting, "start to first answer", "s", (took_s,))
    yield Reading(
        setting, "start / a process that imports it and ends", "x", (took_s / process_s,), START_GOAL
    )
    yield Reading(setting, "start / the import statement alone", "x", (took_s / import_s,))


def _pss_of_one(process: Fleet, word: str) -> float:
    """Megabytes of one process once it has said `word`."""
    with process as one:
        one.wait_for(word)
        return one.pss_bytes() / 1e6


def _one_uvicorn() -> Fleet:
    words = ["-m", "uvicorn", "heavy:app", "--port", str(free_port())]
    return Fleet([sys.executable, *words], env={"BENCHMARK_COLLECT": "1"}, cwd=APPS)


def memory(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """PSS of the whole family, each worker having collected garbage, beside one process in the same round."""
    workers = QUICK_WORKERS if is_quick else WORKERS
    plain_mb = 0.0 if is_quick else _pss_of_one(_python(IMPORT_AND_WAIT), "done")
    served_mb = _pss_of_one(_one_uvicorn(), "startup complete")
    with running(subject, "heavy", workers, env={"BENCHMARK_COLLECT": "1"}) as family:
        family.wait_until_up()
        # A process parked ahead of time is part of the family, and comes after the workers.
        time.sleep(0.5)
        all_mb = family.fleet.pss_bytes() / 1e6
    setting = f"heavy app, {workers} workers"
    yield Reading(setting, "PSS of all processes", "MB", (all_mb,))
    yield Reading(
        setting, "PSS / one uvicorn process that serves it", "x", (all_mb / served_mb,), MEMORY_GOAL
    )
    if plain_mb:
        yield Reading(setting, "PSS / one process that imported it", "x", (all_mb / plain_mb,))


def idle(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """Context switches of every thread of every process, while nobody asks for anything."""
    seconds = 1.5 if is_quick else 10
    with running(subject) as one:
        _settle(one)
        before = one.fleet.context_switches()
        time.sleep(seconds)
        after = one.fleet.context_switches()
    woken = {pid: (after[pid].voluntary - before[pid].voluntary) / seconds for pid in before if pid in after}
    master = woken.pop(one.fleet.pid)
    total = master + sum(woken.values())
    note = f"master {master:.1f}, {len(woken)} other processes {total - master:.1f}"
    yield Reading("idle, 2 workers", "wake-ups a second", "", (total,), 0, is_each=True, note=note)


def _settle(one: Running) -> None:
    if one.subject is ECHO:
        one.fleet.wait_for(r"ready: \d+ workers")
    else:
        one.wait_until_up()
        ask(one.port)
    time.sleep(3.0)  # what a start leaves to be done is done by then: no figure hangs on it
