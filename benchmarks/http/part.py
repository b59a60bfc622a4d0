"""What our HTTP server costs, and its peers beside it: the goals, measured.

CPU time of all server processes for each request, requests a second, latency (wrk) and memory, two workers each. The Python that
runs it is the Python that serves, ours and the peers' too.

Not here: how subjects are started (running.py), load (load.py, websocket.py), what is compared (scenarios.py), memory (memory.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.http import measuring, memory
from benchmarks.http.fasthttp import NotBuiltError, build_go
from benchmarks.http.measuring import PART, Effort
from benchmarks.http.scenarios import SCENARIOS, Scenario, narrowed
from benchmarks.run.figures import Run
from benchmarks.run.part import Wish
from benchmarks.run.steps import Step
from benchmarks.run.watch import Watch

ROUNDS: Final = 5
SECONDS: Final = 3
QUICK_ROUNDS: Final = 2
QUICK_SECONDS: Final = 1


class Http:
    """The part of that name."""

    name = PART

    def scenarios(self, wish: Wish) -> dict[str, str]:
        """Of each, why it is left out; "" for most."""
        found = dict.fromkeys((*SCENARIOS, memory.NAME), "")
        if wish.is_quick:
            left_out = {name for name, scenario in SCENARIOS.items() if not scenario.quick_subjects}
            found |= dict.fromkeys({*left_out, memory.NAME}, "not in a quick run")
        return found

    def needs(self, scenarios: Sequence[str]) -> tuple[str, ...]:
        return ("wrk", "fasthttp", "nginx", "openssl", "libuv") if scenarios else ()

    def steps(self, scenarios: Sequence[str], wish: Wish) -> list[Step]:
        effort = _effort(wish, Path())
        found = []
        for name in scenarios:
            if name == memory.NAME:
                found += memory.steps(effort, wish.is_wanted)
            else:
                found += measuring.steps(name, _narrowed(name, wish), effort)
        return found

    def prepare(self, scenarios: Sequence[str], run: Run) -> None:
        if scenarios:
            try:
                run.peers += (build_go(),)
            except NotBuiltError as error:
                run.missing += (str(error),)

    def measure(self, scenario: str, wish: Wish, watch: Watch, run: Run, directory: Path) -> None:
        effort = _effort(wish, directory)
        if scenario == memory.NAME:
            measured, verdicts = memory.measure(effort, watch, wish.is_wanted)
        else:
            found, verdicts = measuring.measure(scenario, _narrowed(scenario, wish), effort, watch)
            measured = [figure for each in found for figure in each.figures()]
        run.figures += measured
        run.verdicts += verdicts


def _effort(wish: Wish, directory: Path) -> Effort:
    rounds = wish.rounds or (QUICK_ROUNDS if wish.is_quick else ROUNDS)
    seconds = wish.seconds or (QUICK_SECONDS if wish.is_quick else SECONDS)
    return Effort(rounds, seconds, wish.workers, directory, is_brief=wish.is_quick)


def _narrowed(name: str, wish: Wish) -> Scenario:
    return narrowed(SCENARIOS[name], wish.is_wanted, wish.connections, is_quick=wish.is_quick)
