"""State that all workers see, measured: `prefork.shared` on LMDB beside Redis, diskcache and multiprocessing's Manager.

    python -m benchmarks.shared [--quick] [SCENARIO ...]

Every row of the goals in docs/shared.md, with what was got; peers in the same run, in turns; medians of rounds. Everything runs in
forked processes, as workers are. Needs redis-server for that peer, and a registry once for diskcache; what is missing is
said. The exit status is 1 if a goal was missed.

Not here: reloads and upgrades under a master, which are tests (tests/process/test_shared_state.py).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, Final

from benchmarks.costing import machine
from benchmarks.report import Line, spread, table
from prefork.shared import Cache, Counter, Lock, RateLimiter, Topic
from prefork.shared.stores import connect
from tests.process import procfs
from tests.shared.worlds import Crowd, RedisServer, temporary_directory

PEERS: Final = Path(__file__).resolve().parents[1] / ".venv-peers-shared"
VALUE: Final = b"x" * 100
OURS: Final = "prefork (LMDB)"
REDIS: Final = "redis-py, Unix socket"
Calls = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    calls: int
    slow_calls: int
    kills: int
    increments: int
    zipf: int


FULL: Final = Scale(rounds=9, calls=50_000, slow_calls=3_000, kills=200, increments=100_000, zipf=400_000)
QUICK: Final = Scale(rounds=3, calls=10_000, slow_calls=500, kills=20, increments=10_000, zipf=60_000)


class Bench:
    """What the scenarios share: a store, peers, and how much to do."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.scale = scale
        self.url = f"lmdb://{folder}/store?size_mb=64"
        self.folder = folder
        self.redis: RedisServer | None = None
        self.manager: SyncManager | None = None

    @contextlib.contextmanager
    def peers(self) -> Iterator[dict[str, tuple[Callable[[], tuple[Calls, Calls, Calls]], int]]]:
        """Each subject: a function that gives its (get, set, add), called in the process that measures; and how many calls."""
        subjects: dict[str, tuple[Callable[[], tuple[Calls, Calls, Calls]], int]] = {
            OURS: (self._ours, self.scale.calls)
        }
        with contextlib.ExitStack() as stack:
            if shutil.which("redis-server"):
                self.redis = RedisServer()
                stack.callback(self.redis.stop)
                self.redis.start()
                url = self.redis.new_url()
                subjects[REDIS] = (lambda: _redis(url), self.scale.slow_calls)
            if _has_diskcache():
                subjects["diskcache"] = (lambda: _diskcache(self.folder / "diskcache"), self.scale.slow_calls)
            manager = stack.enter_context(SyncManager())
            shared = manager.dict()
            subjects["multiprocessing Manager"] = (lambda: _manager(shared), self.scale.slow_calls)
            yield subjects

    def _ours(self) -> tuple[Calls, Calls, Calls]:
        cache, counter = Cache("bench", url=self.url), Counter("bench", url=self.url)
        keys = [f"key:{number}" for number in range(1000)]

        def get(count: int) -> None:
            one = cache.get
            for number in range(count):
                one(keys[number % 1000])

        def put(count: int) -> None:
            one = cache.set
            for number in range(count):
                one(keys[number % 1000], VALUE)

        def add(count: int) -> None:
            one = counter.add
            for _ in range(count):
                one()

        return get, put, add


def _redis(url: str) -> tuple[Calls, Calls, Calls]:
    redis: Any = importlib.import_module("redis")
    client = redis.Redis.from_url(url)
    keys = [f"key:{number}" for number in range(1000)]

    def get(count: int) -> None:
        for number in range(count):
            client.get(keys[number % 1000])

    def put(count: int) -> None:
        for number in range(count):
            client.set(keys[number % 1000], VALUE)

    def add(count: int) -> None:
        for _ in range(count):
            client.incr("counter")

    return get, put, add


def _diskcache(folder: Path) -> tuple[Calls, Calls, Calls]:
    cache: Any = importlib.import_module("diskcache").Cache(str(folder))
    keys = [f"key:{number}" for number in range(1000)]

    def get(count: int) -> None:
        for number in range(count):
            cache.get(keys[number % 1000])

    def put(count: int) -> None:
        for number in range(count):
            cache.set(keys[number % 1000], VALUE)

    def add(count: int) -> None:
        for _ in range(count):
            cache.incr("counter")

    return get, put, add


def _manager(shared: Any) -> tuple[Calls, Calls, Calls]:
    keys = [f"key:{number}" for number in range(1000)]

    def get(count: int) -> None:
        for number in range(count):
            shared.get(keys[number % 1000])

    def put(count: int) -> None:
        for number in range(count):
            shared[keys[number % 1000]] = VALUE

    def add(count: int) -> None:  # not atomic: there is nothing that is
        for _ in range(count):
            shared["counter"] = shared.get("counter", 0) + 1

    return get, put, add


def _has_diskcache() -> bool:
    if not PEERS.exists():
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(PEERS), "diskcache"]
        try:
            subprocess.run(words, check=True, timeout=120, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            return False
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    return importlib.util.find_spec("diskcache") is not None


def timed_us(work: Calls, count: int) -> float:
    """Microseconds a call."""
    begin = time.perf_counter()
    work(count)
    return (time.perf_counter() - begin) / count * 1e6


def best_us(work: Calls, count: int) -> float:
    """Microseconds a call in the best twentieth of them: what it costs where nobody takes the core away (as timeit)."""
    return min(timed_us(work, count // 20) for _ in range(20))


def forked(work: Callable[[], Any], count: int = 1) -> list[Any]:
    """What `work` gives in so many processes at once."""
    with Crowd() as crowd:
        for _ in range(count):
            crowd.add(work)
        return crowd.answers()


# -- scenarios --------------------------------------------------------------------------------------------


def calls(bench: Bench) -> Iterator[Line]:
    """`get`, `set` and `add` of one process, ours and the peers' in turns: in each round the best twentieth, for all alike."""
    found: dict[str, dict[str, list[float]]] = {}
    with bench.peers() as subjects:

        def measure(make: Callable[[], tuple[Calls, Calls, Calls]], count: int) -> list[float]:
            get, put, add = make()
            put(1000)
            for each in (get, add):
                each(count // 10)
            return [best_us(get, count), best_us(put, count), best_us(add, count)]

        for number in range(bench.scale.rounds):
            for name in sorted(subjects, reverse=bool(number % 2)):
                make, count = subjects[name]
                answer = forked(partial(measure, make, count))[0]
                for what, value in zip(("get", "set", "add"), answer, strict=True):
                    found.setdefault(what, {}).setdefault(name, []).append(value)
        for what, goal_us in (("get", 2.0), ("set", 5.0), ("add", 6.0)):
            for name, values in found[what].items():
                is_ours = name == OURS
                goal = f"<= {goal_us:g} µs" if is_ours else ""
                is_met = statistics.median(values) <= goal_us if is_ours else None
                yield Line(
                    f"{what} of 100 bytes" if what != "add" else "counter add",
                    name,
                    spread(values, "µs", 2),
                    goal,
                    is_met,
                )
        for name in found["get"]:
            if name != OURS:
                pairs = zip(found["get"][name], found["get"][OURS], strict=True)
                ratio = statistics.median(theirs / ours for theirs, ours in pairs)
                goal, is_met = (">= 30 x", ratio >= 30) if name == REDIS else ("", None)
                yield Line(f"get: how many times as fast as {name}", OURS, f"{ratio:.0f} x", goal, is_met)


def contended(bench: Bench) -> Iterator[Line]:
    """Four processes add to one counter at once, and nothing is lost."""
    each_us, totals, ids_us = [], [], []
    count = bench.scale.increments
    for number in range(bench.scale.rounds):
        counter = Counter(f"contended {number}", url=bench.url)
        cache = Cache(f"contended {number}", url=bench.url)

        def add(counter: Counter = counter) -> float:
            def add_all(count: int) -> None:
                one = counter.add
                for _ in range(count):
                    one()

            counter.add(0)
            return timed_us(add_all, count)

        each_us += forked(add, 4)
        totals.append(counter.get())

        def number_of_ones_own(cache: Cache = cache) -> float:
            return timed_us(lambda count: [cache.increment("id") for _ in range(count)][:0], count // 10)

        ids_us += forked(number_of_ones_own, 4)
    yield Line(
        "counter add, 4 processes at once",
        OURS,
        spread(each_us, "µs each", 2),
        "<= 6 µs each",
        statistics.median(each_us) <= 6,
    )
    exact = set(totals) == {4 * count}
    yield Line(
        f"4 x {count:,} increments",
        OURS,
        "/".join(sorted({f"{total:,}" for total in totals})),
        f"{4 * count:,}",
        exact,
    )
    yield Line(
        "Cache.increment (a number of one's own), 4 processes at once", OURS, spread(ids_us, "µs each", 2)
    )


def kills(bench: Bench) -> Iterator[Line]:
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

    with contextlib.ExitStack() as stack:

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
    yield Line(
        f"{bench.scale.kills} workers killed while they write: acknowledged writes lost",
        OURS,
        f"{lost}",
        "0",
        lost == 0,
    )
    yield Line("  wrong answers, errors", OURS, f"{wrong}", "0", wrong == 0)
    yield Line(
        "  increments counted, acknowledged", OURS, f"{counter.get():,}, {counted:,}", "not fewer", is_counted
    )
    yield Line("  next set and get after a kill", OURS, spread(waits_ms, "ms", 2))
    what = "  the same, but for the time in which it waited for a core: 95 of 100, all"
    most_ms = statistics.quantiles(own_ms, n=20)[-1]
    yield Line(what, OURS, f"{most_ms:.2f}, {max(own_ms):.2f} ms", "<= 10 ms", most_ms <= 10)
    yield Line("  next lock after a kill, which others want, too", OURS, spread(locks_ms, "ms", 2))


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


def once(bench: Bench) -> Iterator[Line]:
    """Eight processes miss one key at the same moment."""
    counts = []
    for number in range(bench.scale.rounds * 3):
        cache = Cache("once", url=bench.url)
        computed = Counter(f"once {number}", url=bench.url)

        def make(computed: Counter = computed) -> bytes:
            computed.add()
            time.sleep(0.02)
            return VALUE

        forked(partial(cache.get_or_set, f"key {number}", make), 8)
        counts.append(computed.get())
    yield Line(
        f"get_or_set of a missing key by 8 processes: computations ({len(counts)} times)",
        OURS,
        f"{min(counts)} to {max(counts)}",
        "1",
        set(counts) == {1},
    )


def zipf(bench: Bench) -> Iterator[Line]:
    """A full cache under skewed load: its hits beside those of exact LRU, and its memory."""
    for value_bytes, keys in ((100, 100_000), (1_000, 20_000)):
        for skew in (0.8, 1.0, 1.2):
            weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
            sequence = random.Random(5).choices(range(keys), cum_weights=weights, k=bench.scale.zipf)
            folder = bench.folder / f"zipf-{value_bytes}-{skew}"
            answer = forked(partial(_run, folder, sequence, value_bytes))
            hits, entries, largest_kb = answer[0]
            exact = _lru(sequence, entries)
            points = (hits - exact) / len(sequence) * 100
            what = (
                f"Zipf {skew:g}, {value_bytes} bytes, 4 MB: hits, exact LRU of as many ({entries:,} entries)"
            )
            got = f"{hits / len(sequence):.1%}, {exact / len(sequence):.1%}: {points:+.1f} points"
            yield Line(what, OURS, got, ">= -3 points", points >= -3)
            yield Line("  memory, at most", OURS, f"{largest_kb:,} KB", "<= 4,096 KB", largest_kb <= 4096)
            if bench.redis is None and shutil.which("redis-server"):
                redis_hits, redis_entries = _run_redis(sequence, value_bytes)
                got = f"{redis_hits / len(sequence):.1%} ({redis_entries:,} entries)"
                yield Line("  the same of Redis, maxmemory 4 MB, allkeys-lru", "Redis", got)
            shutil.rmtree(folder)


def _run(folder: Path, sequence: Sequence[int], value_bytes: int) -> tuple[int, int, int]:
    space = connect(f"lmdb://{folder}?size_mb=4").space(b"zipf")
    value = b"b" + b"x" * value_bytes
    hits = largest_kb = 0
    counts = []
    for number, key in enumerate(sequence):
        name = b"key:%d" % (key * 7919 % 1_000_003)
        if space.get(name) is not None:
            hits += 1
        else:
            space.set(name, value, None)
        if number % (len(sequence) // 20) == 0:
            size_kb = sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) // 2
            largest_kb = max(largest_kb, size_kb)
            if number > len(sequence) // 2:
                counts.append(len(list(space.keys())))
    return hits, int(statistics.mean(counts)), largest_kb


def _run_redis(sequence: Sequence[int], value_bytes: int) -> tuple[int, int]:
    """The same requests, a pipeline of 50 at a time: the order of hits is hardly another."""
    server = RedisServer()
    try:
        server.start()
        redis: Any = importlib.import_module("redis")
        client = redis.Redis.from_url(server.new_url())
        client.config_set("maxmemory", "4mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        value, hits = b"x" * value_bytes, 0
        for begin in range(0, len(sequence), 50):
            names = list(
                OrderedDict.fromkeys(
                    b"key:%d" % (key * 7919 % 1_000_003) for key in sequence[begin : begin + 50]
                )
            )
            answers = client.mget(names)
            missing = {name for name, answer in zip(names, answers, strict=True) if answer is None}
            hits += len(sequence[begin : begin + 50]) - len(missing)
            if missing:
                pipe = client.pipeline(transaction=False)
                for name in missing:
                    pipe.set(name, value)
                pipe.execute()
        return hits, client.dbsize()
    finally:
        server.stop()


def _lru(sequence: Sequence[int], capacity: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in sequence:
        if key in held:
            held.move_to_end(key)
            hits += 1
        else:
            held[key] = None
            if len(held) > capacity:
                held.popitem(last=False)
    return hits


def rest(bench: Bench) -> Iterator[Line]:
    """What has no goal in the table: opening, locks, limits, topics, and silence."""
    open_ms: list[float] = []
    lock_us: list[float] = []
    limit_us: list[float] = []
    heard_us: list[float] = []
    new_us: list[float] = []
    for number in range(bench.scale.rounds):
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
    yield Line("set of a new key, store not full", OURS, spread(new_us, "µs", 2))
    yield Line("opening a new store of 64 MB, first call", OURS, spread(open_ms, "ms"))
    yield Line("lock and release", OURS, spread(lock_us, "µs"))
    yield Line("rate limit, one take", OURS, spread(limit_us, "µs", 2))
    yield Line("topic: from publish to heard in another process", OURS, spread(heard_us, "µs"))
    yield from _silence(bench)


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


def _silence(bench: Bench) -> Iterator[Line]:
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
    yield Line(
        "wake-ups in 3 s of a listener and of one who waits for a lock", OURS, f"{woken}", "0", woken == 0
    )


SCENARIOS: Final[dict[str, Callable[[Bench], Iterator[Line]]]] = {
    "calls": calls,
    "contended": contended,
    "kills": kills,
    "once": once,
    "zipf": zipf,
    "rest": rest,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: to see that it works")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    print(f"{datetime.now(UTC):%Y-%m-%d} {machine()}")
    if not shutil.which("redis-server"):
        print("redis-server is not installed: that peer is left out")
    if not _has_diskcache():
        print("diskcache cannot be installed: that peer is left out")
    lines: list[Line] = []
    for name in options.scenarios or SCENARIOS:
        with temporary_directory() as folder:
            for line in SCENARIOS[name](Bench(folder, QUICK if options.quick else FULL)):
                lines.append(line)
                print(f"{line.what} | {line.who} | {line.measured} | {line.goal}", flush=True)
    print("\n" + table(lines))
    sys.exit(any(line.is_met is False for line in lines))


if __name__ == "__main__":
    main()
