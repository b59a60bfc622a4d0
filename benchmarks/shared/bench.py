"""What the scenarios of shared state have in common: a store, how much to do, clocks, forked processes.

Everything that is measured runs in forked processes, as workers are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.run.figures import Figure
from benchmarks.run.part import Wish
from benchmarks.run.watch import Watch
from tests.shared.worlds import Crowd

PART: Final = "shared"
VALUE: Final = b"x" * 100
OURS: Final = "prefork (LMDB)"
REDIS: Final = "Redis, Unix socket"
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
QUICK: Final = Scale(rounds=3, calls=10_000, slow_calls=400, kills=20, increments=10_000, zipf=40_000)


class Bench:
    """A scenario's world: a folder of its own for its store, how much to do, and who watches."""

    def __init__(self, scenario: str, folder: Path, scale: Scale, wish: Wish, watch: Watch) -> None:
        self.scenario = scenario
        self.scale = scale
        self.url = f"lmdb://{folder}/store?size_mb=64"
        self.folder = folder
        self.wish = wish
        self.watch = watch

    def step(self, who: str = OURS) -> AbstractContextManager[None]:
        """One round of one subject, while it is done."""
        return self.watch.step(PART, self.scenario, who)

    def figure(
        self,
        measure: str,
        unit: str,
        values: Sequence[float],
        *,
        who: str = OURS,
        setting: str = "",
        goal: str = "",
        is_met: bool | None = None,
        note: str = "",
        failure: str = "",
    ) -> Figure:
        """A figure of this scenario."""
        is_ours = who == OURS
        return Figure(
            PART,
            self.scenario,
            setting,
            measure,
            who,
            unit,
            tuple(values),
            is_ours,
            failure,
            note,
            goal,
            is_met,
        )


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
