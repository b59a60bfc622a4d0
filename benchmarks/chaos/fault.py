"""What a fault is, and how one comes out.

Rules:

1. A fault says what is done, and what is expected, before it is done; and which promises of docs/design.md those are.
2. It comes out as held, broken or left out. Left out is for what cannot be made on this machine, and has a reason.
3. Whatever else goes wrong in it, a wait that is over or an error of its own, is a broken promise: nothing is forgiven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.chaos.stage import Stage


class LeftOutError(Exception):
    """This fault cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `promises` are numbers of the promises in docs/design.md; `run` makes it on a stage of its own."""

    name: str
    promises: str
    done: str
    expected: str
    run: Callable[[Stage], None]


@dataclass(slots=True)
class Outcome:
    """What came of one fault."""

    fault: Fault
    tried: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    left_out: str = ""
    said: str = ""
    """What the fleet has said, where a promise broke."""

    @property
    def verdict(self) -> str:
        """One of "held", "BROKEN", "left out"."""
        if self.broken:
            return "BROKEN"
        return "left out" if self.left_out else "held"
