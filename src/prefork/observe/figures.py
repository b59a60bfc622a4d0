"""From what a master says to what people read: rates, percentiles, totals. `preforkctl top` and the admin process share it.

Rules:

* Counters are counters: they are shown as they were told, and the totals, with those of the workers that are gone, never go
  back.
* A worker tells about once a second, so a rate is taken between two of its own ticks, not between two of our looks, which
  may have two ticks between them, or none.
* A worker that was idle had served nothing since its last tick, so its time counts from the look that saw it idle. So does
  that of one that was not there yet.
* While workers come and go, some have served and have not told, and the fleet's rate is an average of the last seconds. What
  is told late then is not missing, and a reload is no dip.

Pure: a `StatusReport` is a look, and has its own clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from prefork.control import StatusReport, WorkerReport
from prefork.latency import percentile_s

WINDOW_S: Final = 10.0
"""Percentiles are of the last ten seconds: a 99th of a second's handful would jump about."""
STALE_MS: Final = 2500
"""A worker that is awake tells every second; one that has not for this long has a blocked loop, and its rate is unknown."""
UNSETTLED_MS: Final = 2500
"""So long after a worker came or went all have told of what they served since: a second, and one for their looks."""
_AVERAGED_MS: Final = 4000
LONGEST_GAP_S: Final = 30.0
"""Looks that lie farther apart than this say nothing about "just now": it is begun anew."""
_MOST_LOOKS: Final = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """How one worker, or all of them, are doing just now."""

    requests_per_s: float | None = None
    """None until there have been two looks."""
    p50_s: float | None = None
    p99_s: float | None = None
    """None where nothing was answered lately."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One look, and what two or more say together."""

    report: StatusReport
    statuses: tuple[int, ...]
    latencies: tuple[int, ...]
    """Of the whole fleet, since it was started."""
    fleet: Pace
    workers: dict[int, Pace]
    """By serial number."""

    @property
    def requests(self) -> int:
        """Answers since the fleet was started."""
        return sum(self.statuses)

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self.report.workers)

    @property
    def connections(self) -> int:
        return sum(worker.connections or 0 for worker in self.report.workers)


class Looks:
    """The last looks at one fleet; after an upgrade, of the one that took its place."""

    def __init__(self, gap_s: float = LONGEST_GAP_S) -> None:
        self._gap_ms = gap_s * 1000
        self._looks: deque[StatusReport] = deque(maxlen=_MOST_LOOKS)
        self._rates: dict[int, float] = {}
        """Each worker's last known rate, by serial number."""
        self._changed_ms: float = -math.inf
        """When somebody last came or went."""

    def add(self, report: StatusReport) -> Figures:
        """Take a look in, and say what it means beside the ones before."""
        before = self._looks[-1] if self._looks else None
        if before is not None and (
            report.pid != before.pid or not 0 <= report.now_ms - before.now_ms <= self._gap_ms
        ):
            self._looks.clear()  # another master has counters of its own
            self._rates, before = {}, None
        if before is not None:
            self._rates = dict(_rates(before, report, self._rates))
            if _serials(before) != _serials(report):
                self._changed_ms = report.now_ms
        self._looks.append(report)
        past = self._past(report.now_ms)
        statuses = total(report.gone_statuses, *(worker.statuses for worker in report.workers))
        latencies = total(report.gone_latencies, *(worker.latencies for worker in report.workers))
        known = {worker.serial: worker for worker in past.workers} if past is not None else {}
        paces = {
            worker.serial: _pace(
                self._rates.get(worker.serial), worker.latencies, known.get(worker.serial), past
            )
            for worker in report.workers
        }
        recent = latencies if past is None else _since(_all_latencies(past), latencies)
        is_known = past is not None
        fleet = Pace(
            self._rate(),
            percentile_s(recent, 0.5) if is_known else None,
            percentile_s(recent, 0.99) if is_known else None,
        )
        return Figures(report, statuses, latencies, fleet, paces)

    def _rate(self) -> float | None:
        """The fleet's requests a second; None until there have been two looks."""
        if len(self._looks) < 2:
            return None
        now = self._looks[-1]
        if now.now_ms - self._changed_ms >= UNSETTLED_MS:
            return sum(self._rates.values())
        *_, then = (x for x in reversed(self._looks) if x is now or now.now_ms - x.now_ms <= _AVERAGED_MS)
        if then is now:
            then = self._looks[-2]
        return 1000 * (_requests(now) - _requests(then)) / max(1, now.now_ms - then.now_ms)

    def _past(self, now_ms: int) -> StatusReport | None:
        """The look that lies the window back, or the oldest one there is; None if there is no other."""
        while len(self._looks) > 2 and now_ms - self._looks[1].now_ms >= WINDOW_S * 1000:
            self._looks.popleft()
        return self._looks[0] if len(self._looks) > 1 else None


def total(*counts: Sequence[int]) -> tuple[int, ...]:
    """The sum of counters of any length, place by place."""
    return tuple(sum(column) for column in zip_longest(*counts, fillvalue=0))


def _rates(before: StatusReport, now: StatusReport, known: dict[int, float]) -> Iterable[tuple[int, float]]:
    """Each worker's requests a second, where it can be told."""
    past = {worker.serial: worker for worker in before.workers}
    for worker in now.workers:
        if not worker.statuses:
            continue
        was = past.get(worker.serial)
        begun_ms, served = before.now_ms, 0
        if was is not None:
            begun_ms = was.tick_ms if was.is_awake else max(was.tick_ms, before.now_ms)
            served = was.requests
        elapsed_ms = worker.tick_ms - begun_ms
        if elapsed_ms > 0:
            yield worker.serial, 1000 * (worker.requests - served) / elapsed_ms
        elif worker.is_awake and now.now_ms - worker.tick_ms < STALE_MS:
            yield worker.serial, known.get(worker.serial, 0.0)  # its next tick is to come
        else:
            yield worker.serial, 0.0


def _pace(
    rate: float | None, latencies: Sequence[int], was: WorkerReport | None, past: StatusReport | None
) -> Pace:
    if past is None:
        return Pace()
    recent = _since(was.latencies if was is not None else (), latencies)
    return Pace(rate, percentile_s(recent, 0.5), percentile_s(recent, 0.99))


def _serials(report: StatusReport) -> set[int]:
    return {worker.serial for worker in report.workers if worker.statuses}


def _requests(report: StatusReport) -> int:
    return sum(report.gone_statuses) + sum(worker.requests for worker in report.workers)


def _all_latencies(report: StatusReport) -> tuple[int, ...]:
    return total(report.gone_latencies, *(worker.latencies for worker in report.workers))


def _since(before: Sequence[int], now: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, b - a) for a, b in zip_longest(before, now, fillvalue=0))
