"""What a scenario is: one round of one subject gives readings; rounds of all subjects in turns give figures.

Not here: what the scenarios do (under_load.py, replacing.py, costing.py, ending.py, recycling.py, balancing.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from benchmarks.run.figures import Figure
from benchmarks.run.steps import Step, in_turns
from benchmarks.run.watch import Watch
from benchmarks.supervision.subjects import DidNotStartError, Subject

PART: Final = "supervision"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one round of one subject gave for one measure.

    `limit` is a goal: of the median of all rounds, or of each value where `is_each`. `note`: what the numbers do not say.
    """

    setting: str
    measure: str
    unit: str
    values: tuple[float, ...]
    limit: float | None = None
    is_each: bool = False
    note: str = ""


class Measure(Protocol):
    """One round of one subject. Raises DidNotStartError, and AssertionError for a wait that was in vain."""

    def __call__(self, subject: Subject, *, is_quick: bool) -> Iterator[Reading]: ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """`seconds` is about what a round of one subject takes, in full and in a quick run; no quick subjects: left out there."""

    measure: Measure
    subjects: Sequence[Subject]
    rounds: int
    seconds: float
    quick_subjects: Sequence[Subject] = ()
    quick_seconds: float = 0.0


@dataclass(slots=True)
class _Gathered:
    """All rounds of one measure."""

    last: Reading
    values: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def steps(
    name: str, scenario: Scenario, subjects: Sequence[Subject], rounds: int, *, is_quick: bool
) -> list[Step]:
    """What `measured` will do."""
    seconds = scenario.quick_seconds if is_quick else scenario.seconds
    return [Step(PART, name, subject.name, seconds) for subject in subjects] * rounds


def measured(
    name: str, scenario: Scenario, subjects: Sequence[Subject], rounds: int, watch: Watch, *, is_quick: bool
) -> list[Figure]:
    """All rounds, in turns; who fails once is measured no more, and its figures say why."""
    gathered: dict[str, dict[tuple[str, str], _Gathered]] = {subject.name: {} for subject in subjects}
    failures: dict[str, str] = {}
    for subject in in_turns(subjects, rounds):
        if subject.name in failures:
            continue
        with watch.step(PART, name, subject.name):
            try:
                for reading in scenario.measure(subject, is_quick=is_quick):
                    key = (reading.setting, reading.measure)
                    found = gathered[subject.name].setdefault(key, _Gathered(reading))
                    found.values += reading.values
                    found.notes += [reading.note] if reading.note else []
            except (DidNotStartError, AssertionError) as error:
                failures[subject.name] = str(error).splitlines()[0]
    return list(_figures(name, subjects, gathered, failures))


def _figures(
    name: str,
    subjects: Sequence[Subject],
    gathered: dict[str, dict[tuple[str, str], _Gathered]],
    failures: dict[str, str],
) -> Iterator[Figure]:
    known = list(dict.fromkeys(key for found in gathered.values() for key in found))
    for setting, measure in known or [("", name)]:
        for subject in subjects:
            failure = failures.get(subject.name, "")
            found = gathered[subject.name].get((setting, measure))
            if found is not None:
                yield _figure(name, subject, found, failure)
            elif failure:
                goal, is_met = ("measured", False) if subject.is_ours else ("", None)
                yield Figure(
                    PART,
                    name,
                    setting,
                    measure,
                    subject.name,
                    "",
                    (),
                    subject.is_ours,
                    failure,
                    goal=goal,
                    is_met=is_met,
                )


def _figure(name: str, subject: Subject, found: _Gathered, failure: str) -> Figure:
    reading, values = found.last, tuple(found.values)
    goal, is_met = "", None
    if reading.limit is not None and subject.is_ours:
        of = "each" if reading.is_each else "median"
        limit = f"{reading.limit:g} {reading.unit}".strip()
        goal = f"<= {limit}, {of}" if reading.limit else "0"
        reached = max(values) if reading.is_each else statistics.median(values)
        is_met = reached <= reading.limit and not failure
    notes = "; ".join(dict.fromkeys(found.notes))
    return Figure(
        PART,
        name,
        reading.setting,
        reading.measure,
        subject.name,
        reading.unit,
        values,
        subject.is_ours,
        failure,
        notes,
        goal,
        is_met,
    )
