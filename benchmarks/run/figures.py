"""What was measured: figures, goals, and a whole run of them, as text and as JSON. Pure.

Rules:

1. A figure is one measure of one subject in one setting, with the value of each round; what is shown is the median, with the range.
2. A subject that did not do the work has a figure all the same, without values, and `failure` says why.
3. Whoever reads a run (plots, pages) needs nothing but its JSON.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

VERSION: Final = 1


class NoRunError(Exception):
    """What was given is no run of this benchmark; the message says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """All rounds of one measure of one subject.

    `is_met` is None where no goal is set for it: a peer's, or one whose goal is a ratio (`Verdict`).
    """

    part: str
    scenario: str
    setting: str
    measure: str
    who: str
    unit: str
    values: tuple[float, ...] = ()
    is_ours: bool = False
    failure: str = ""
    note: str = ""
    goal: str = ""
    is_met: bool | None = None

    @property
    def what(self) -> str:
        return f"{self.setting}: {self.measure}" if self.setting else self.measure

    @property
    def median(self) -> float:
        """NaN if there are no values."""
        return statistics.median(self.values) if self.values else math.nan

    def __str__(self) -> str:
        if not self.values:
            return self.failure or "not measured"
        text = spread(self.values, self.unit) + (f"; {self.note}" if self.note else "")
        return text + (f"; then: {self.failure}" if self.failure else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the goals. `holds` is None where it could not be judged, and `note` says why."""

    part: str
    what: str
    measured: str
    wanted: str
    holds: bool | None
    note: str = ""


@dataclass(slots=True)
class Run:
    """Everything of one run."""

    taken: str = ""
    machine: str = ""
    effort: str = ""
    load_before: float = 0.0
    """The machine's load average of the last minute: whether it had something else to do."""
    peers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    figures: list[Figure] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def to_json(self) -> str:
        """JSON has no NaN, and figures have none either."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Raises NoRunError."""
        try:
            given: dict[str, Any] = json.loads(text)
            if given.pop("version", None) != VERSION:
                raise NoRunError(f"not version {VERSION}: measure anew with this version of the benchmark")
            figures = [Figure(**{**each, "values": tuple(each["values"])}) for each in given.pop("figures")]
            verdicts = [Verdict(**each) for each in given.pop("verdicts")]
            texts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
            }
            return cls(**texts, figures=figures, verdicts=verdicts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NoRunError(f"no run of this benchmark: {error}") from error


def groups(figures: Iterable[Figure]) -> dict[tuple[str, str, str, str], list[Figure]]:
    """Figures of the same measure beside each other, in the order in which they came."""
    found: dict[tuple[str, str, str, str], list[Figure]] = {}
    for each in figures:
        found.setdefault((each.part, each.scenario, each.setting, each.measure), []).append(each)
    return found


def figure_verdicts(figures: Iterable[Figure]) -> list[Verdict]:
    """The goals that are set for a figure itself."""
    return [
        Verdict(each.part, f"{each.what}, {each.who}", str(each), each.goal, each.is_met)
        for each in figures
        if each.goal
    ]


def number(value: float) -> str:
    """Three digits that count, and never an exponent; what is whole is shown so."""
    if math.isnan(value):
        return "-"
    if float(value).is_integer():
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def range_of(values: Sequence[float], link: str = " to ") -> str:
    """From the least to the most; "" where they look alike."""
    low, high = number(min(values)), number(max(values))
    return "" if low == high else low + link + high


def spread(values: Sequence[float], unit: str) -> str:
    """Median, range and number of values."""
    middle = f"{number(statistics.median(values))} {unit}".strip()
    if len(values) == 1:
        return f"{middle} (n=1)"
    return f"{middle} ({number(min(values))} to {number(max(values))}, n={len(values)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that can be read as it is, too."""
    cells = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def goals_table(verdicts: Iterable[Verdict]) -> str:
    """A line for each goal."""
    rows = [(x.what, x.measured, x.wanted, said(x.holds, x.wanted), x.note) for x in verdicts]
    return table(("goal", "measured", "wanted", "", ""), rows)


def said(is_met: bool | None, goal: str) -> str:  # noqa: FBT001  (a cell of a table)
    """What a verdict is called."""
    if is_met is None:
        return "not measured" if goal else ""
    return "met" if is_met else "MISSED"


def dropped_nan(values: Iterable[float]) -> tuple[float, ...]:
    """What a load generator does not know is no value."""
    return tuple(value for value in values if not math.isnan(value))
