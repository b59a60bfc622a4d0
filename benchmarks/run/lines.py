"""What was measured, line by line, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One measured figure of one subject. `is_met` is None where no goal is set (a peer's figure)."""

    what: str
    who: str
    measured: str
    goal: str = ""
    is_met: bool | None = None


def spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """Median, range and number of values."""
    middle = statistics.median(values)
    return (
        f"{middle:.{digits}f} {unit} ({min(values):.{digits}f} to {max(values):.{digits}f}, n={len(values)})"
    )


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [("what", "who", "measured", "goal", "")]
    rows += [(x.what, x.who, x.measured, x.goal, _verdict(x)) for x in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [_row(row, widths) for row in rows]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _verdict(line: Line) -> str:
    if line.is_met is None:
        return ""
    return "met" if line.is_met else "MISSED"
