"""What a part of the benchmark is to the command that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.run.figures import Run
from benchmarks.run.steps import Step
from benchmarks.run.watch import Watch


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, of all parts alike. `who`: words of which a subject's name has one; empty: all subjects."""

    is_quick: bool = False
    who: tuple[str, ...] = ()
    rounds: int | None = None
    seconds: int | None = None
    connections: tuple[int, ...] = ()
    workers: int = 2

    def is_wanted(self, name: str) -> bool:
        return not self.who or any(word.lower() in name.lower() for word in self.who)


class Part(Protocol):
    """One subject of measurement, with scenarios of its own."""

    @property
    def name(self) -> str:
        """As it stands on the command line."""

    def scenarios(self, wish: Wish) -> dict[str, str]:
        """Each scenario, and why it is left out; "" for one that is not. Quick leaves some out."""

    def needs(self, scenarios: Sequence[str]) -> tuple[str, ...]:
        """Programs that these scenarios need beside Python, as tools.py names them."""

    def steps(self, scenarios: Sequence[str], wish: Wish) -> list[Step]:
        """What `measure` will do, with its seconds on a quiet machine."""

    def prepare(self, scenarios: Sequence[str], run: Run) -> None:
        """What has to be built for them; what cannot be is added to what is missing."""

    def measure(self, scenario: str, wish: Wish, watch: Watch, run: Run, directory: Path) -> None:
        """Measure one, and add its figures and verdicts to the run. Raises nothing that a peer can cause."""
