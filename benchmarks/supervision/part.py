"""The supervisor's promises, measured, with its peers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.run.figures import Run, figure_verdicts
from benchmarks.run.part import Wish
from benchmarks.run.steps import Step
from benchmarks.run.watch import Watch
from benchmarks.supervision import balancing, costing, ending, recycling, replacing, under_load
from benchmarks.supervision.scenario import PART, Scenario, measured, steps
from benchmarks.supervision.subjects import Subject

SCENARIOS: Final[dict[str, Scenario]] = {
    "start": Scenario(costing.start, costing.SUBJECTS, 5, 4.6, costing.QUICK_SUBJECTS, 3.6),
    "memory": Scenario(costing.memory, costing.SUBJECTS, 3, 8.0, costing.QUICK_MEMORY, 5.0),
    "replacement": Scenario(
        replacing.replacement, replacing.SUBJECTS, 3, 40.0, replacing.QUICK_SUBJECTS, 3.0
    ),
    "reloads": Scenario(under_load.reloads, under_load.SUBJECTS, 3, 12.0, under_load.QUICK_SUBJECTS, 3.5),
    "kills": Scenario(under_load.kills, under_load.SUBJECTS, 3, 12.0, under_load.QUICK_SUBJECTS, 3.5),
    "queue": Scenario(under_load.queue, under_load.SUBJECTS, 3, 2.0, under_load.QUICK_SUBJECTS, 1.8),
    "recycles": Scenario(recycling.recycles, recycling.SUBJECTS, 3, 10.0, recycling.QUICK_SUBJECTS, 3.5),
    "balance": Scenario(balancing.balance, balancing.SUBJECTS, 3, 2.0, balancing.QUICK_SUBJECTS, 1.7),
    "idle": Scenario(costing.idle, costing.IDLE_SUBJECTS, 2, 14.5, costing.QUICK_SUBJECTS, 5.8),
    "orphans": Scenario(ending.orphans, ending.SUBJECTS, 3, 2.2, ending.SUBJECTS, 2.0),
    "term": Scenario(ending.term, ending.SUBJECTS, 3, 14.0),
}
QUICK_ROUNDS: Final = 1


class Supervision:
    """The part of that name."""

    name = PART

    def scenarios(self, wish: Wish) -> dict[str, str]:
        """Of each, why it is left out; "" for most."""
        return {
            name: "not in a quick run" if wish.is_quick and not scenario.quick_subjects else ""
            for name, scenario in SCENARIOS.items()
        }

    def needs(self, scenarios: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002  (Python alone)
        return ()

    def steps(self, scenarios: Sequence[str], wish: Wish) -> list[Step]:
        found = []
        for name in scenarios:
            scenario = SCENARIOS[name]
            found += steps(
                name, scenario, _subjects(scenario, wish), _rounds(scenario, wish), is_quick=wish.is_quick
            )
        return found

    def prepare(self, scenarios: Sequence[str], run: Run) -> None:
        pass

    def measure(self, scenario: str, wish: Wish, watch: Watch, run: Run, directory: Path) -> None:  # noqa: ARG002
        asked = SCENARIOS[scenario]
        subjects, rounds = _subjects(asked, wish), _rounds(asked, wish)
        figures = measured(scenario, asked, subjects, rounds, watch, is_quick=wish.is_quick)
        watch.say()
        for each in figures:
            watch.say(f"{each.what} | {each.who} | {each}")
        run.figures += figures
        run.verdicts += figure_verdicts(figures)


def _subjects(scenario: Scenario, wish: Wish) -> list[Subject]:
    offered = scenario.quick_subjects if wish.is_quick else scenario.subjects
    return [subject for subject in offered if wish.is_wanted(subject.name)]


def _rounds(scenario: Scenario, wish: Wish) -> int:
    return wish.rounds or (QUICK_ROUNDS if wish.is_quick else scenario.rounds)
