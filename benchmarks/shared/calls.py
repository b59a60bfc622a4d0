"""What a call costs, alone and contended, and that one of many computes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from benchmarks.run.figures import Figure
from benchmarks.run.steps import in_turns
from benchmarks.shared.bench import OURS, REDIS, VALUE, Bench, best_us, forked, timed_us
from benchmarks.shared.peers import Trio, subjects
from prefork.shared import Cache, Counter

GOALS_US: Final = {"get": 2.0, "set": 5.0, "add": 6.0}
NAMES: Final = {"get": "get of 100 bytes, a hit", "set": "set of 100 bytes", "add": "counter add"}
REDIS_GOAL: Final = 30


def calls(bench: Bench) -> Iterator[Figure]:
    """`get`, `set` and `add` of one process, in turns: in each round the best twentieth, for all alike."""
    found: dict[str, dict[str, list[float]]] = {what: {} for what in NAMES}
    with subjects(bench) as peers:

        def measure(make: Callable[[], Trio], count: int) -> list[float]:
            get, put, add = make()
            put(1000)
            for each in (get, add):
                each(count // 10)
            return [best_us(get, count), best_us(put, count), best_us(add, count)]

        for name in in_turns(list(peers.makers), bench.scale.rounds):
            if name in peers.missing:
                continue
            with bench.step(name):
                count = bench.scale.calls if name == OURS else bench.scale.slow_calls
                try:
                    answer = forked(partial(measure, peers.makers[name], count))[0]
                except AssertionError as error:
                    if name == OURS:
                        raise
                    # A traceback, whose last line says what it was.
                    peers.missing[name] = str(error).strip().splitlines()[-1]
                    continue
                for what, value in zip(NAMES, answer, strict=True):
                    found[what].setdefault(name, []).append(value)
    for what, by_name in found.items():
        for name, values in by_name.items():
            if name in peers.missing:
                continue
            is_ours = name == OURS
            goal = f"<= {GOALS_US[what]:g} µs" if is_ours else ""
            is_met = statistics.median(values) <= GOALS_US[what] if is_ours else None
            yield bench.figure(NAMES[what], "µs", values, who=name, goal=goal, is_met=is_met)
        for name, why in peers.missing.items():
            yield bench.figure(NAMES[what], "µs", (), who=name, failure=why)
    if OURS in found["get"]:
        yield from _how_many_times(bench, found["get"])


def _how_many_times(bench: Bench, found: dict[str, list[float]]) -> Iterator[Figure]:
    for name, values in found.items():
        if name != OURS and len(values) == len(found[OURS]):
            ratios = [theirs / ours for theirs, ours in zip(values, found[OURS], strict=True)]
            goal, is_met = (
                (f">= {REDIS_GOAL}", statistics.median(ratios) >= REDIS_GOAL) if name == REDIS else ("", None)
            )
            yield bench.figure(f"get: times as fast as {name}", "x", ratios, goal=goal, is_met=is_met)


def contended(bench: Bench) -> Iterator[Figure]:
    """Four processes add to one counter at once, and nothing is lost."""
    each_us, totals, ids_us = [], [], []
    count = bench.scale.increments
    for number in range(bench.scale.rounds):
        with bench.step():
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
    yield bench.figure(
        "counter add, 4 processes at once, each",
        "µs",
        each_us,
        goal=f"<= {GOALS_US['add']:g} µs",
        is_met=statistics.median(each_us) <= GOALS_US["add"],
    )
    lost = [4 * count - total for total in totals]
    yield bench.figure(f"lost of 4 x {count:,} increments", "", lost, goal="0", is_met=not any(lost))
    yield bench.figure("Cache.increment (a number of one's own), 4 processes at once, each", "µs", ids_us)


def once(bench: Bench) -> Iterator[Figure]:
    """Eight processes miss one key at the same moment."""
    counts = []
    for number in range(bench.scale.rounds * 3):
        with bench.step():
            cache = Cache("once", url=bench.url)
            computed = Counter(f"once {number}", url=bench.url)

            def make(computed: Counter = computed) -> bytes:
                computed.add()
                time.sleep(0.02)
                return VALUE

            forked(partial(cache.get_or_set, f"key {number}", make), 8)
            counts.append(computed.get())
    yield bench.figure(
        "get_or_set of a missing key by 8 processes: computations",
        "",
        counts,
        goal="1",
        is_met=set(counts) == {1},
    )
