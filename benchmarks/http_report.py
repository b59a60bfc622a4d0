"""What was measured, as figures, as ratios with their goals, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.http_load import Sample


@dataclass(slots=True)
class Figures:
    """All rounds of one subject in one setting; `failure` says why there are none."""

    scenario: str
    setting: str
    who: str
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    def median_of(self, measure: str) -> float:
        """The median of `cost_us`, `p99_ms`, … over the rounds."""
        values: list[float] = [getattr(sample, measure) for sample in self.samples]
        return median(values)

    def __str__(self) -> str:
        if not self.samples:
            return f"  {self.who:<30} {self.failure or 'not measured'}"
        costs = [sample.cost_us for sample in self.samples]
        errors = sum(sample.errors for sample in self.samples)
        text = (
            f"  {self.who:<30} {median(costs):9.1f} µs ({min(costs):.1f} to {max(costs):.1f}, n={len(costs)})"
            f"{self.median_of('per_second'):12.0f}/s   p50 {_ms(self.median_of('p50_ms'))}"
            f"   p99 {_ms(self.median_of('p99_ms'))}"
        )
        text += f"   {errors} errors" if errors else ""
        return text + (f"   then: {self.failure}" if self.failure else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the goals. `ratio` is None where one side was not measured; `note` says why, or adds the range."""

    what: str
    setting: str
    ratio: float | None
    limit: float
    is_strict: bool
    note: str

    @property
    def holds(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio < self.limit if self.is_strict else self.ratio <= self.limit


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} ms"


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """The goals as a Markdown table."""
    rows = [("goal", "setting", "measured", "wanted", "", "")]
    rows += [
        (
            each.what,
            each.setting,
            "-" if each.ratio is None else f"{each.ratio:.2f}",
            f"{'<' if each.is_strict else '<='} {each.limit:g}",
            {True: "holds", False: "MISSED", None: "not measured"}[each.holds],
            each.note,
        )
        for each in verdicts
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def _record(sample: Sample) -> dict[str, float | None]:
    """JSON has no NaN."""
    values = {**asdict(sample), "cost_us": sample.cost_us}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def as_record(
    figures: Sequence[Figures], memory: Sequence[Any], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Everything, for `json.dump`. `memory` holds `http_memory.Memory`."""
    return {
        "figures": [
            {
                **{name: value for name, value in asdict(each).items() if name != "samples"},
                "samples": [_record(sample) for sample in each.samples],
            }
            for each in figures
        ],
        "memory": [asdict(each) for each in memory],
        "goals": [{**asdict(each), "holds": each.holds} for each in verdicts],
    }
