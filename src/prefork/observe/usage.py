"""CPU and memory of processes, as the kernel tells whoever may look: for `preforkctl top` and the admin process.

Not the master: it must not wait. PSS makes the kernel walk the page tables, 15 ms for 1 GB, so it is read anew at most every
`PSS_EVERY_S`, and only of a process that has run since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

PSS_EVERY_S: Final = 5.0


class Meter(Protocol):
    """`system.Meter`; 0 of a process that is gone, or not ours to look at."""

    def pss_bytes(self, pid: int) -> int: ...

    def cpu_ticks(self, pid: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses."""

    cpu_share: float | None
    """Of one CPU, since the look before; None at the first."""
    pss_bytes: int | None
    """None where it cannot be seen."""


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    ticks: int
    pss_bytes: int
    pss_at_s: float
    pss_ticks: int


class Usages:
    """Looks at processes, again and again. Blocks for a look at memory; not in the master."""

    def __init__(self, meter: Meter, ticks_per_s: float | None = None) -> None:
        self._meter = meter
        self._ticks_per_s = ticks_per_s or os.sysconf("SC_CLK_TCK")
        self._seen: dict[int, _Seen] = {}

    def look(self, pids: Iterable[int], now_s: float) -> dict[int, Usage]:
        """What these processes use, by pid; the others are forgotten."""
        before, self._seen = self._seen, {}
        found = {}
        for pid in pids:
            was = before.get(pid)
            ticks = self._meter.cpu_ticks(pid)
            share = None
            if was is not None and now_s > was.at_s:
                share = max(0, ticks - was.ticks) / self._ticks_per_s / (now_s - was.at_s)
            is_new = was is None or (now_s - was.pss_at_s >= PSS_EVERY_S and ticks != was.pss_ticks)
            if was is None or is_new:
                seen = _Seen(now_s, ticks, self._meter.pss_bytes(pid), now_s, ticks)
            else:
                seen = _Seen(now_s, ticks, was.pss_bytes, was.pss_at_s, was.pss_ticks)
            self._seen[pid] = seen
            found[pid] = Usage(share, seen.pss_bytes or None)
        return found
