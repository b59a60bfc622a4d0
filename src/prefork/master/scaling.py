"""How many workers there should be: the policy of autoscaling, on numbers alone. Pure.

Rules:

* **Up fast.** Workers that are busy for more than `HIGH` of their time get as many to help them as bring that down to
  `TARGET`, at once; at most as many again as there are. Then their effect is waited for.
* **Emergency.** `QUEUED` connections for each worker wait in the queue in two looks in a row, and not fewer in the second:
  half as many workers more, without waiting for averages.
* **Down slow.** One leaves when those that stay would have been busy for less than `LOW` of their time, in every moment of
  the last `CALM_S`, with nobody in the queue. Then the wait begins anew.
* `LOW` is below `HIGH` by more than one worker's share makes, and is reckoned for those that stay; so no constant load
  leads up and down again.

What is busy: the larger of a worker's share of a CPU, used or waited for, and of its threads that are taken, by the time that
requests have taken (an application on the loop's own thread has one); and 1 where its loop does not turn. A loop that waits for
many at once has room, however many those are. uWSGI's "cheaper busyness" is the model.

Not here: who leaves, how memory forbids growth (`autoscale`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

HIGH: Final = 0.75
TARGET: Final = 0.6
LOW: Final = 0.5
SMOOTH_S: Final = 5.0
"""Time constant of the average: a burst of a second is no load."""
EVERY_S: Final = 1.0
"""Between two looks while there is something to look at; in a longer pause there was nothing to do."""
SETTLE_S: Final = 5.0
"""After a change, until its effect shows in the average."""
HURRY_S: Final = 2.0
"""As much in an emergency."""
QUEUED: Final = 4
"""Connections that wait, for each worker. One or two wait for the end of a request now and then, at half of the load, too."""
CALM_S: Final = 30.0
"""uWSGI's cheaper-busyness steps down after some tens of seconds, too."""
SILENT_S: Final = 1.5
"""A loop that has not turned for so long is at one thing: it tells once a second."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How few and how many workers there may be."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one look has shown."""

    workers: int
    """Those that serve."""
    busy: float
    """Their share of time, 0 to 1, on average."""
    queue: int
    """Connections that nobody has accepted yet."""


@dataclass(frozen=True, slots=True)
class Trend:
    """What is remembered from look to look."""

    at_s: float = -math.inf
    busy: float = 0.0
    """Smoothed."""
    queue: int = 0
    changed_s: float = -math.inf
    calm_since_s: float | None = None
    cpu_s: tuple[tuple[int, float], ...] = ()
    """CPU time of each worker in the last look, by serial number."""
    served_s: tuple[tuple[int, float], ...] = ()
    """How long all requests together have taken that each had answered by then."""


@dataclass(frozen=True, slots=True)
class Size:
    """What follows: how many are wanted from now on, and why it is another number than before; "" where it is not."""

    trend: Trend
    wanted: int
    why: str = ""


def busyness(*, cpu: float, at_work: float, capacity: int, silent_s: float) -> float:
    """How busy one worker is, 0 to 1.

    cpu: its share of one CPU, used or waited for. at_work: requests that it has been at, on average. capacity: of so many at once; 0: no bound is known.
    silent_s: since when its loop has not turned.
    """
    threads = at_work / capacity if capacity else 0.0
    blocked = 1.0 if silent_s >= SILENT_S else 0.0
    return min(1.0, max(cpu, threads, blocked))


def size(
    bounds: Bounds, trend: Trend, wanted: int, load: Load, now_s: float, *, may_grow: bool = True
) -> Size:
    """The number of workers that is wanted from now on."""
    trend, queue_before = _seen(trend, load, now_s), trend.queue
    if load.workers >= wanted and may_grow and wanted < bounds.most:
        more, why = _more(trend, wanted, load, queue_before, now_s)
        if more:
            return _changed(trend, wanted, min(wanted + more, bounds.most), why, now_s)
    if wanted < bounds.least:
        return _changed(trend, wanted, bounds.least, "that is the least", now_s)
    return _fewer(bounds, trend, wanted, load, now_s)


def _seen(trend: Trend, load: Load, now_s: float) -> Trend:
    before = trend.busy * _faded(max(0.0, now_s - trend.at_s - EVERY_S))
    busy = load.busy + (before - load.busy) * _faded(EVERY_S)
    return replace(trend, at_s=now_s, busy=busy, queue=load.queue)


def _faded(seconds: float) -> float:
    """What is left of an average after so long."""
    return math.exp(-seconds / SMOOTH_S)


def _more(trend: Trend, wanted: int, load: Load, queue_before: int, now_s: float) -> tuple[int, str]:
    since_s = now_s - trend.changed_s
    if QUEUED * wanted <= queue_before <= load.queue and since_s >= HURRY_S:
        return max(1, wanted // 2), f"{load.queue} connections wait, and not fewer"
    if trend.busy >= HIGH and since_s >= SETTLE_S:
        needed = math.ceil(wanted * trend.busy / TARGET)
        return min(max(1, needed - wanted), wanted), f"they are busy for {trend.busy:.0%} of their time"
    return 0, ""


def _fewer(bounds: Bounds, trend: Trend, wanted: int, load: Load, now_s: float) -> Size:
    is_calm = wanted > bounds.least and load.workers >= wanted and load.queue == 0
    is_calm = is_calm and trend.busy * load.workers <= LOW * (wanted - 1)
    if not is_calm:
        return Size(replace(trend, calm_since_s=None), wanted)
    since_s = now_s if trend.calm_since_s is None else trend.calm_since_s
    if now_s - since_s < CALM_S:
        return Size(replace(trend, calm_since_s=since_s), wanted)
    why = f"{wanted - 1} are enough: {wanted} were busy for {trend.busy:.0%} of their time"
    return _changed(trend, wanted, wanted - 1, why, now_s)


def _changed(trend: Trend, before: int, wanted: int, why: str, now_s: float) -> Size:
    # The same work, shared out anew: otherwise the average of before would ask for more still.
    busy = min(1.0, trend.busy * before / wanted)
    return Size(replace(trend, busy=busy, changed_s=now_s, calm_since_s=None), wanted, why)
