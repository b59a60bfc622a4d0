"""What people want to know afterwards: crashes, reloads, recyclings, each with its time; and how often workers were replaced.

Bounded: the oldest are forgotten, the counts are for life. Pure. What is written down is found by `happenings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KEPT: Final = 100
"""Happenings that are remembered: an evening's worth of trouble, in some 10 KB."""
CAUSES: Final = ("crash", "hung", "recycle", "reload", "left")
"""Why a worker has been, or is being, replaced. "left": it ended by itself, with status 0."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the chronicle."""

    number: int
    """From 1 on, without gaps."""
    at_s: float
    kind: str
    """"start", "crash", "hung", "left", "recycle", "reload", "failed" (a reload), "refused" (a request), "scale", "rest", "upgrade", "admin", "stop"."""
    text: str


@dataclass(frozen=True, slots=True)
class Chronicle:
    """All that is remembered of one master's life."""

    happenings: tuple[Happening, ...] = ()
    replaced: tuple[int, ...] = (0,) * len(CAUSES)
    """Workers, by `CAUSES`."""

    def counts(self) -> dict[str, int]:
        """Workers replaced, by cause."""
        return dict(zip(CAUSES, self.replaced, strict=True))
