"""State that all workers see, measured: every row of the goals in docs/shared.md, with what was got.

Not here: reloads and upgrades under a master, which are tests (tests/process/test_shared_state.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.run.figures import Figure, Run, figure_verdicts
from benchmarks.run.part import Wish
from benchmarks.run.steps import Step
from benchmarks.run.watch import Watch
from benchmarks.shared import peers
from benchmarks.shared.bench import FULL, OURS, PART, QUICK, REDIS, Bench, Scale
from benchmarks.shared.calls import calls, contended, once
from benchmarks.shared.full import SIZES, SKEWS, zipf
from benchmarks.shared.killing import kills
from benchmarks.shared.rest import SILENCE, rest
from tests.shared.worlds import temporary_directory


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who takes its steps, how often, and how many seconds one takes, in full and in a quick run."""

    measure: Callable[[Bench], Iterator[Figure]]
    who: Sequence[str]
    times: Callable[[Scale], int]
    seconds: float
    quick_seconds: float


SCENARIOS: Final[dict[str, Scenario]] = {
    "calls": Scenario(calls, peers.NAMES, lambda scale: scale.rounds, 0.7, 0.25),
    "contended": Scenario(contended, (OURS,), lambda scale: scale.rounds, 1.2, 0.3),
    "kills": Scenario(kills, (), lambda _scale: 1, 0, 0),
    "once": Scenario(once, (OURS,), lambda scale: 3 * scale.rounds, 0.1, 0.1),
    "zipf": Scenario(zipf, (OURS, REDIS), lambda _scale: len(SIZES) * len(SKEWS), 3.0, 0.5),
    "rest": Scenario(rest, (OURS,), lambda scale: scale.rounds, 0.9, 0.4),
}
SILENCE_S: Final = 3.6
KILL_S: Final = 0.03


class Shared:
    """The part of that name."""

    name = PART

    def scenarios(self, wish: Wish) -> dict[str, str]:  # noqa: ARG002  (a quick run has them all)
        return dict.fromkeys(SCENARIOS, "")

    def needs(self, scenarios: Sequence[str]) -> tuple[str, ...]:
        return ("redis-server",) if {"calls", "zipf"} & set(scenarios) else ()

    def steps(self, scenarios: Sequence[str], wish: Wish) -> list[Step]:
        scale, found = _scale(wish), []
        for name in scenarios:
            scenario = SCENARIOS[name]
            seconds = scenario.quick_seconds if wish.is_quick else scenario.seconds
            who = [each for each in scenario.who if each == OURS or wish.is_wanted(each)]
            found += [Step(PART, name, each, seconds) for each in who] * scenario.times(scale)
            if name == "rest":
                found.append(Step(PART, name, SILENCE, SILENCE_S))
            if name == "kills":
                found.append(Step(PART, name, OURS, KILL_S * scale.kills))
        return found

    def prepare(self, scenarios: Sequence[str], run: Run) -> None:
        pass

    def measure(self, scenario: str, wish: Wish, watch: Watch, run: Run, directory: Path) -> None:  # noqa: ARG002
        watch.say()
        # In memory where there is such a place, as a fleet's own is.
        with temporary_directory() as folder:
            for each in SCENARIOS[scenario].measure(Bench(scenario, folder, _scale(wish), wish, watch)):
                run.figures.append(each)
                run.verdicts += figure_verdicts([each])
                watch.say(f"{each.what} | {each.who} | {each}")


def _scale(wish: Wish) -> Scale:
    return QUICK if wish.is_quick else FULL
