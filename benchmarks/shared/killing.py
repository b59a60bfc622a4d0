"""Workers that are killed while they write: nothing acknowledged is lost, and the next call does not wait."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.run.figures import Figure
from benchmarks.shared.bench import Bench
from prefork.shared import Cache, Counter, Lock
from tests.shared.worlds import Crowd

GOAL_MS: Final = 10.0


def kills(bench: Bench) -> Iterator[Figure]:
    """A worker for each core writes and takes a lock in a loop; a random one is killed, again and again."""
    chance = random.Random(3)
    writers = max(2, len(os.sched_getaffinity(0)))
    cache, lock = Cache("kills", url=bench.url), Lock("kills", url=bench.url)
    counter = Counter("kills", url=bench.url)
    workers: dict[int, tuple[int, int]] = {}
    lost = wrong = counted = 0
    waits_ms: list[float] = []
    own_ms: list[float] = []
    locks_ms: list[float] = []

    def work(serial: int, write: int) -> None:
        os.nice(5)  # so that who measures waits for the store, and not for one of two cores
        number = 0
        while True:
            number += 1
            with lock:
                cache.set(f"{serial}/{number % 20}", (serial, number, b"x" * chance.randrange(3000)))
            counter.add()
            os.write(write, b"!")

    with bench.step(), contextlib.ExitStack() as stack:

        def start(serial: int) -> None:
            read, write = os.pipe()
            crowd = stack.enter_context(Crowd())
            pid = crowd.add(lambda: work(serial, write))
            os.close(write)
            crowd.go()
            os.set_blocking(read, False)
            workers[pid] = (serial, read)
            crowds[pid] = crowd

        crowds: dict[int, Crowd] = {}
        for serial in range(writers):
            start(serial)
        acknowledged: dict[int, int] = {}
        for serial in range(writers, writers + bench.scale.kills):
            time.sleep(chance.uniform(0.002, 0.02))
            pid = chance.choice(list(workers))
            crowds.pop(pid).kill(pid)
            begin, queued_ms = time.perf_counter(), _queued_ms()
            cache.set("probe", serial)
            wrong += cache.get("probe") != serial
            waits_ms.append((time.perf_counter() - begin) * 1000)
            own_ms.append(max(0.0, waits_ms[-1] - (_queued_ms() - queued_ms)))
            begin = time.perf_counter()
            with lock:
                locks_ms.append((time.perf_counter() - begin) * 1000)
            killed, read = workers.pop(pid)
            acknowledged[killed] = _count(read)
            start(serial)
            lost += _lost(cache, killed, acknowledged[killed])
            counted += acknowledged[killed]
        for pid in list(workers):
            crowds.pop(pid).kill(pid)
            counted += _count(workers.pop(pid)[1])
    # Each kill may come between an addition and its acknowledgement.
    is_counted = counted <= counter.get() <= counted + bench.scale.kills + writers
    setting = f"{bench.scale.kills} workers killed while they write"
    for measure, count, is_met in (
        ("acknowledged writes lost", lost, not lost),
        ("wrong answers, errors", wrong, not wrong),
        ("acknowledged increments not counted", max(0, counted - counter.get()), is_counted),
    ):
        yield bench.figure(measure, "", (count,), setting=setting, goal="0", is_met=is_met)
    yield bench.figure("next set and get after a kill", "ms", waits_ms, setting=setting)
    most_ms = statistics.quantiles(own_ms, n=20)[-1]
    yield bench.figure(
        "the same, less the time in which it waited for a core",
        "ms",
        own_ms,
        setting=setting,
        goal=f"95 of 100 <= {GOAL_MS:g} ms",
        is_met=most_ms <= GOAL_MS,
        note=f"95 of 100 within {most_ms:.2f} ms",
    )
    yield bench.figure("next lock after a kill, which others want, too", "ms", locks_ms, setting=setting)


def _queued_ms() -> float:
    """How long this process has been ready to run, and had no core (Documentation/scheduler/sched-stats.rst)."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e6


def _count(fd: int) -> int:
    total = 0
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 65536):
            total += len(piece)
    os.close(fd)
    return total


def _lost(cache: Cache, serial: int, acknowledged: int) -> int:
    """How many of the last 20 acknowledged writes are not there, or older than they must be."""
    lost = 0
    for number in range(max(1, acknowledged - 19), acknowledged + 1):
        value = cache.get(f"{serial}/{number % 20}")
        lost += value is None or value[0] != serial or value[1] not in {number, number + 20}
    return lost
