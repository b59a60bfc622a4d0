"""How much memory the processes of a fleet have: what the plan is told when it asks.

What counts is PSS: a shared page counts by its share, so the sum is what the fleet really has (proc(5), smaps_rollup).
The kernel walks the page tables for it: 15 ms for a process of 1 GB, 0.3 ms for one of 20 MB (Linux 6.18), and the master
does nothing else meanwhile. RSS costs 20 µs whatever the size, and is never less. So PSS is only read where RSS is above a bound, and only of a process that has run since the last look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from prefork.master import events as e


class Meter(Protocol):
    """What the operating system says of a process; 0 of one that is gone. `system.Meter`."""

    def rss_bytes(self, pid: int) -> int: ...

    def pss_bytes(self, pid: int) -> int: ...

    def cpu_ticks(self, pid: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _Reading:
    ticks: int
    bytes_: int


class Gauge:
    """Reads memory against two bounds, in bytes; None for none. Used by the master's loop only."""

    def __init__(self, meter: Meter, child_bytes: int | None, fleet_bytes: int | None) -> None:
        self._meter = meter
        self._child_bytes = child_bytes
        self._fleet_bytes = fleet_bytes
        self._last: dict[int, _Reading] = {}

    def read(self, children: Mapping[int, int], others: Iterable[int]) -> e.MemorySeen:
        """Look at the children (serial number to pid) and at the pids of the others."""
        others = list(others)
        rss = {pid: self._meter.rss_bytes(pid) for pid in (*children.values(), *others)}
        is_fleet_near = self._fleet_bytes is not None and sum(rss.values()) > self._fleet_bytes
        self._last = {pid: reading for pid, reading in self._last.items() if pid in rss}

        def size(pid: int, bound: int | None) -> int:
            is_near = is_fleet_near or (bound is not None and rss[pid] > bound)
            return self._pss_bytes(pid) if is_near else rss[pid]

        return e.MemorySeen(
            tuple((serial, size(pid, self._child_bytes)) for serial, pid in children.items()),
            sum(size(pid, None) for pid in others),
        )

    def _pss_bytes(self, pid: int) -> int:
        ticks = self._meter.cpu_ticks(pid)
        last = self._last.get(pid)
        if last is None or last.ticks != ticks:
            last = self._last[pid] = _Reading(ticks, self._meter.pss_bytes(pid))
        return last.bytes_
