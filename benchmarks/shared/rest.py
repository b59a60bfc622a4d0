"""What has no peer: opening, new keys, locks, limits, topics, and silence."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.run.figures import Figure
from benchmarks.shared.bench import VALUE, Bench, forked, timed_us
from prefork.shared import Cache, Lock, RateLimiter, Topic
from tests.process import procfs
from tests.shared.worlds import Crowd

SILENCE: Final = "silence"


def rest(bench: Bench) -> Iterator[Figure]:
    """What has no goal in the table: opening, locks, limits, topics, and silence."""
    open_ms: list[float] = []
    lock_us: list[float] = []
    limit_us: list[float] = []
    heard_us: list[float] = []
    new_us: list[float] = []
    for number in range(bench.scale.rounds):
        with bench.step():
            folder = bench.folder / f"open-{number}"

            def first(folder: Path = folder) -> float:
                begin = time.perf_counter()
                Cache("x", url=f"lmdb://{folder}?size_mb=64").get("key")
                return (time.perf_counter() - begin) * 1000

            open_ms += forked(first)
            shutil.rmtree(folder)

            def work(number: int = number) -> list[float]:
                lock, limiter = Lock("bench", url=bench.url), RateLimiter("bench", limit=1e9, url=bench.url)
                cache = Cache(f"new {number}", url=bench.url)

                def locked(count: int) -> None:
                    for _ in range(count):
                        with lock:
                            pass

                def limited(count: int) -> None:
                    for each in range(count):
                        limiter.take(f"client {each % 1000}")

                def new(count: int) -> None:
                    for each in range(count):
                        cache.set(f"key {each}", VALUE)

                return [
                    timed_us(locked, 2000),
                    timed_us(limited, bench.scale.calls // 5),
                    timed_us(new, bench.scale.calls // 5),
                ]

            for values, value in zip((lock_us, limit_us, new_us), forked(work)[0], strict=True):
                values.append(value)
            heard_us += _heard_us(bench, 300)
    yield bench.figure("set of a new key, store not full", "µs", new_us)
    yield bench.figure("opening a new store of 64 MB, first call", "ms", open_ms)
    yield bench.figure("lock and release", "µs", lock_us)
    yield bench.figure("rate limit, one take", "µs", limit_us)
    yield bench.figure("topic: from publish to heard in another process", "µs", heard_us)
    with bench.step(SILENCE):
        woken = _silence(bench)
    what = "wake-ups in 3 s of a listener and of one who waits for a lock"
    yield bench.figure(what, "", (woken,), goal="0", is_met=woken == 0)


def _heard_us(bench: Bench, count: int) -> list[float]:
    there, back = Topic("there", url=bench.url), Topic("back", url=bench.url)

    def echo() -> None:
        with there.listen() as listener:
            back.publish("ready")
            for _ in range(count):
                back.publish(listener.get(timeout_s=10))

    with Crowd() as crowd, back.listen() as listener:
        crowd.add(echo)
        crowd.go()
        listener.get(timeout_s=10)
        begin = time.perf_counter()
        for number in range(count):
            there.publish(number)
            listener.get(timeout_s=10)
        return [(time.perf_counter() - begin) / count / 2 * 1e6]


def _silence(bench: Bench) -> int:
    """Wake-ups of a process that waits for a topic, and of one that waits for a lock, in three seconds."""
    topic, lock = Topic("silence", url=bench.url), Lock("silence", url=bench.url)
    read, write = os.pipe()

    def listen() -> None:
        with topic.listen() as listener:
            os.write(write, b"!")
            listener.get()

    def wait() -> None:
        os.write(write, b"!")
        lock.acquire()

    with lock, Crowd() as crowd:
        pids = [crowd.add(listen), crowd.add(wait)]
        crowd.go()
        for _ in pids:
            os.read(read, 1)
        time.sleep(0.5)
        before = [sum(procfs.context_switches(pid)) for pid in pids]
        time.sleep(3.0)
        woken = sum(sum(procfs.context_switches(pid)) for pid in pids) - sum(before)
        topic.publish("end")
    for fd in (read, write):
        os.close(fd)
    return woken
