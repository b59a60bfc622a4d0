"""What a worker has served: counted on its loop, told on the scoreboard with each tick of its clock.

Rules:

* A request costs two additions in plain lists, and one of the clock where it is timed. Timed is each request while there
  are few, and one of so many, counted as so many, where there are more than `TIMED_A_SECOND`: as the
  second before was, and where a burst follows a rest, as soon as so many were timed.
* Told is what is counted, once a second while anything happens, and once more when nothing does any more.

Not here: the page (`scoreboard`), what a bucket is (`latency`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from typing import Any, Final

from prefork.latency import BUCKETS, bucket_of
from prefork.scoreboard import STATUS_CLASSES, Entry

TIMED_A_SECOND: Final = 500
"""Requests timed a second, about: enough for a 99th percentile each second, and a hundredth of what they cost."""

_NEVER: Final = 2**63


class Tally:
    """One worker's. `running` are the exchanges whose application has not returned."""

    def __init__(
        self, running: Sized, entry: Entry | None = None, wear: Any = None, pulse: Any = None
    ) -> None:
        self.statuses = [0] * STATUS_CLASSES
        """Answers by the first digit of their status."""
        self.until_timed = 1
        """Requests until one is timed; counted down with each that begins."""
        self._latencies = [0] * BUCKETS
        self._weight = 1
        self._running = running
        self._entry = entry
        self._say_worn: Callable[[], object] | None = None
        self._worn_at = _NEVER
        if wear is not None and wear.requests:
            self._say_worn, self._worn_at = wear.say_worn, wear.requests
        self._say_awake: Callable[[], object] | None = pulse.say_awake if pulse is not None else None
        self._begun = self._timed = 0
        self._step = 1
        self._at_last_tick = 0
        self._is_resting = True
        self.on_first: Callable[[], object] = _nothing
        """Called when a request begins after a rest: one that blocks is to be missed."""

    def time(self) -> int:
        """The request that begins now is timed: when it began, in nanoseconds, for `took`."""
        if self._is_resting:
            self.on_first()
        self._begun += self._step
        self._timed += 1
        if self._timed > TIMED_A_SECOND:  # a burst after a rest: not all of its first second
            self._timed = TIMED_A_SECOND // 2
            self._weight *= 2
        if self._begun >= self._worn_at and self._say_worn is not None:
            say, self._say_worn = self._say_worn, None
            say()
        self._step = self.until_timed = self._next_step()
        return time.monotonic_ns()

    def _next_step(self) -> int:
        left = self._worn_at - self._begun
        return self._weight if left <= 0 else min(self._weight, left)

    def took(self, begun_ns: int) -> None:
        """A request that was timed has been answered."""
        self._latencies[bucket_of(time.monotonic_ns() - begun_ns)] += self._weight

    # -- the clock calls ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Something happens again."""
        self._is_resting = False
        if self._entry is not None:
            self._entry.wake()
        if self._say_awake is not None:
            self._say_awake()

    def tick(self, *, is_awake: bool = True) -> None:
        """A second is over, or all that was to be done is."""
        answered = sum(self.statuses)
        rate, self._at_last_tick = answered - self._at_last_tick, answered
        self._weight = max(1, rate // TIMED_A_SECOND)
        self._timed = 0
        if not is_awake:
            self._is_resting = True
            self._step -= self.until_timed - 1  # the next one is timed, so that it wakes us
            self.until_timed = 1
        if self._entry is not None:
            self._entry.tell(
                tick_ms=time.monotonic_ns() // 1_000_000,
                in_flight=len(self._running),
                statuses=self.statuses,
                latencies=self._latencies,
                is_awake=is_awake,
            )


def _nothing() -> None:
    """Whoever wants to be called takes its place."""
