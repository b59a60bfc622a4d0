"""Whom a worker lets go first: the least loaded of those that have fewer connections, unless they are hung.

Only the least loaded are waited for, and watched: whoever has more than they waits for them too, so that it takes nothing
says nothing of it. A sibling for which connections have waited for `HUNG_AFTER_S` in all, without a move of its load, is
hung (stopped, blocked): it is passed over until it moves, or for `HUNG_S`; after that one wait more is enough.

Whether it was we who took a connection in the end, or another sibling that had lost its patience earlier, makes no
difference. Rejected: to count only the waits that ended with a connection still in the queue. Of several workers that
wait for a hung one the quickest then learns of it, takes all there is from there on, and the others never learn.

Not here: how to wait, and for how long (`accepting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from prefork.scoreboard import Entry

HUNG_AFTER_S: Final = 0.02
"""A sibling that has not moved while connections waited for it as long as this is hung; below it may only lack a CPU."""

HUNG_S: Final = 1.0
"""How long a hung sibling is passed over, unless it moves."""


@dataclass(slots=True)
class _Still:
    """A sibling that has let connections wait since it came to this load."""

    load: int
    waited_s: float = 0.0
    hung_until_s: float = -inf


class Siblings:
    """The other workers on the scoreboard, as the one with `entry` sees them. `now_s` is the loop's time."""

    def __init__(self, entry: Entry, now_s: Callable[[], float]) -> None:
        self._entry = entry
        self._now_s = now_s
        self._still: dict[int, _Still] = {}

    def freer(self, mine: int) -> dict[int, int]:
        """Whom to let go first with `mine` connections: index to load of the least loaded; empty if it is our turn."""
        loads = self._entry.loads()
        least = min(loads)
        if least >= mine:
            if self._still:
                self._still.clear()
            return {}
        if self._still:
            for index in self._hung(loads):
                loads[index] = mine
            least = min(loads)
            if least >= mine:
                return {}
        return {index: load for index, load in enumerate(loads) if load == least}

    def _hung(self, loads: list[int]) -> list[int]:
        now_s = self._now_s()
        for index, still in list(self._still.items()):
            if index >= len(loads) or loads[index] != still.load:
                del self._still[index]
        return [index for index, still in self._still.items() if now_s < still.hung_until_s]

    def waited(self, for_whom: dict[int, int], since_s: float) -> None:
        """A connection has waited for these since then: take note of those that have not moved."""
        loads, now_s = self._entry.loads(), self._now_s()
        for index, load in for_whom.items():
            if index >= len(loads) or loads[index] != load:
                self._still.pop(index, None)
                continue
            still = self._still.setdefault(index, _Still(load))
            still.waited_s += now_s - since_s
            if still.waited_s >= HUNG_AFTER_S:
                still.hung_until_s = now_s + HUNG_S
