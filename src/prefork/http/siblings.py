"""Whom a worker lets go first: those that have fewer connections, unless connections wait for them in vain.

A sibling is watched only where a connection has waited for it. If its load has not moved for `HUNG_AFTER_S` while
connections waited, it is hung (stopped, blocked), and passed over until it moves, or for `HUNG_S`.

Not here: how to wait, and for how long (`accepting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prefork.scoreboard import Entry

HUNG_AFTER_S: Final = 0.02
"""A sibling that has not moved in this time, while connections waited for it, is hung; below it may only lack a CPU."""

HUNG_S: Final = 1.0
"""How long a hung sibling is passed over, unless it moves."""


@dataclass(slots=True)
class _Still:
    """A sibling that lets connections wait."""

    load: int
    since_s: float
    hung_until_s: float = 0.0


class Siblings:
    """The other workers on the scoreboard, as the one with `entry` sees them. `now_s` is the loop's time."""

    def __init__(self, entry: Entry, now_s: Callable[[], float]) -> None:
        self._entry = entry
        self._now_s = now_s
        self._still: dict[int, _Still] = {}

    def freer(self, mine: int) -> dict[int, int]:
        """Whom to let go first with `mine` connections: index to load of each that accepts, has fewer, and is not hung."""
        loads = self._entry.loads()
        if min(loads) >= mine:
            return {}
        freer = {index: load for index, load in enumerate(loads) if load < mine}
        for index, still in list(self._still.items()):
            if freer.get(index) != still.load:
                del self._still[index]  # it has moved, or is no longer freer than we are
            elif self._now_s() < still.hung_until_s:
                del freer[index]
        return freer

    def waited_in_vain(self, for_whom: dict[int, int], since_s: float) -> None:
        """A connection has waited for these since then, and still waits: take note of those that have not moved."""
        loads, now_s = self._entry.loads(), self._now_s()
        for index, load in for_whom.items():
            if index >= len(loads) or loads[index] != load:
                self._still.pop(index, None)
                continue
            still = self._still.setdefault(index, _Still(load, since_s))
            if now_s - still.since_s >= HUNG_AFTER_S:
                still.hung_until_s = now_s + HUNG_S

    def waits_no_more(self) -> None:
        """Nobody waits in the queue: who has not moved had no reason to."""
        now_s = self._now_s()
        self._still = {index: still for index, still in self._still.items() if still.hung_until_s > now_s}
