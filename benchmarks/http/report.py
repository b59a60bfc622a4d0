"""What was measured of one subject under one load, for people and as figures of the whole run. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.http.load import Sample
from benchmarks.run.figures import Figure, Verdict, dropped_nan

COST: Final = "CPU time of a request"
P99: Final = "p99"
MEASURES: Final = (
    (COST, "µs", "cost_us"),
    ("rate", "requests/s", "per_second"),
    ("p50", "ms", "p50_ms"),
    (P99, "ms", "p99_ms"),
    ("p99.9", "ms", "p999_ms"),
    ("memory of all processes", "MB", "pss_mb"),
)


@dataclass(slots=True)
class Figures:
    """All rounds of one subject in one setting; `failure` says why there are none."""

    scenario: str
    title: str
    setting: str
    who: str
    is_ours: bool = False
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
        text = (
            f"  {self.who:<30} {median(costs):9.1f} µs ({min(costs):.1f} to {max(costs):.1f}, n={len(costs)})"
            f"{self.median_of('per_second'):12.0f}/s   p50 {_ms(self.median_of('p50_ms'))}"
            f"   p99 {_ms(self.median_of('p99_ms'))}   p99.9 {_ms(self.median_of('p999_ms'))}"
            f"   {self.median_of('pss_mb'):.0f} MB"
        )
        text += f"   {self.errors} errors" if self.errors else ""
        return text + (f"   then: {self.failure}" if self.failure else "")

    @property
    def errors(self) -> int:
        return sum(sample.errors for sample in self.samples)

    def figures(self) -> Iterator[Figure]:
        """One for each measure that is known; who did not do the work has one, which says why."""
        for measure, unit, name in MEASURES:
            values = dropped_nan(getattr(sample, name) for sample in self.samples)
            if values or (measure == COST and not self.samples):
                yield Figure(
                    "http",
                    self.scenario,
                    f"{self.title}, {self.setting}",
                    measure,
                    self.who,
                    unit,
                    values,
                    self.is_ours,
                    self.failure,
                    f"{self.errors} errors" if self.errors else "",
                )


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} ms"


def ratio_verdict(what: str, ratio: float | None, limit: float, *, is_strict: bool, note: str) -> Verdict:
    """A goal that is a ratio: at most `limit`, or below it where `is_strict`; None where one side was not measured."""
    holds = None if ratio is None else (ratio < limit if is_strict else ratio <= limit)
    measured = "-" if ratio is None else f"{ratio:.2f}"
    return Verdict("http", what, measured, f"{'<' if is_strict else '<='} {limit:g}", holds, note)
