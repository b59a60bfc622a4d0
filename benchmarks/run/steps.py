"""What is still to do, and how long it takes: the estimate behind the progress bar. Pure.

Rules:

1. A part says beforehand which steps it will take, and how many seconds each would take on a quiet machine.
2. What is left is the sum of what is planned, times the pace until now: how much longer than planned the steps that are done took.
   A few seconds that went as planned are thought before the first, so that one slow start does not double the whole.
3. Steps that will not be taken any more (a subject that failed) are dropped with their scenario.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

PRIOR_S: Final = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One round of one subject in one scenario; `who` may also name what comes before all of them."""

    part: str
    scenario: str
    who: str
    seconds: float


class Estimate:
    """The plan, and what of it is done."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._left: Counter[Step] = Counter(steps)
        self._planned_s = sum(step.seconds * count for step, count in self._left.items())
        self._done_s = 0.0
        self._took_s = 0.0

    def done(self, step: Step, took_s: float) -> None:
        """Count a step. One that was not planned counts for the pace alone."""
        if self._left[step] > 0:
            self._left[step] -= 1
        self._done_s += step.seconds
        self._took_s += took_s

    def drop(self, part: str, scenario: str) -> None:
        """Whatever is left of a scenario will not be done."""
        for step in [step for step in self._left if (step.part, step.scenario) == (part, scenario)]:
            self._planned_s -= step.seconds * self._left.pop(step)

    @property
    def pace(self) -> float:
        """How many times as long as planned."""
        return (self._took_s + PRIOR_S) / (self._done_s + PRIOR_S)

    @property
    def left_s(self) -> float:
        """Seconds that are still to go."""
        return self.pace * sum(step.seconds * count for step, count in self._left.items())

    @property
    def share(self) -> float:
        """Of all that is planned, what is done: 0 to 1."""
        return min(1.0, self._done_s / self._planned_s) if self._planned_s > 0 else 1.0


def clock(seconds: float) -> str:
    """As m:ss."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def in_turns(items: Sequence[T], rounds: int) -> Iterator[T]:
    """A B C, then B C A, …: so that what else the machine does falls on all of them."""
    for turn in range(rounds):
        first = turn % max(len(items), 1)
        yield from items[first:]
        yield from items[:first]
