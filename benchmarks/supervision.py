"""The supervisor's promises, measured, with gunicorn and uvicorn beside it.

    python -m benchmarks.supervision [--quick] [--only-ours] [SCENARIO ...]

Prints each line as soon as it is known, and all of them as a Markdown table at the end. Run it from the root of
the repository. The exit status is 1 if a goal was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

from benchmarks import costing, ending, replacing, under_load
from benchmarks.report import Line, table
from benchmarks.subjects import DidNotStartError, Subject, install_peers


class Scenario(Protocol):
    """Measures one subject."""

    def __call__(self, subject: Subject, *, is_quick: bool) -> Iterator[Line]: ...


SCENARIOS: dict[str, tuple[Scenario, Sequence[Subject]]] = {
    "reloads": (under_load.reloads, under_load.SUBJECTS),
    "kills": (under_load.kills, under_load.SUBJECTS),
    "queue": (under_load.queue, under_load.SUBJECTS),
    "replacement": (replacing.replacement, replacing.SUBJECTS),
    "start": (costing.start, costing.SUBJECTS),
    "memory": (costing.memory, costing.SUBJECTS),
    "idle": (costing.idle, costing.IDLE_SUBJECTS),
    "orphans": (ending.orphans, ending.SUBJECTS),
    "term": (ending.term, ending.SUBJECTS),
}


def measure(
    names: Sequence[str], *, is_quick: bool, only_ours: bool, say: Callable[[Line], None]
) -> list[Line]:
    """Run the scenarios, one subject after the other; a subject that does not start gets a line of its own."""
    lines: list[Line] = []
    for name in names:
        scenario, subjects = SCENARIOS[name]
        for subject in subjects:
            if only_ours and not subject.is_ours:
                continue
            try:
                for line in scenario(subject, is_quick=is_quick):
                    lines.append(line)
                    say(line)
            except (DidNotStartError, AssertionError) as error:
                why = str(error).splitlines()[0]
                lines.append(
                    Line(name, subject.name, f"FAILED: {why}", is_met=False if subject.is_ours else None)
                )
                say(lines[-1])
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.supervision", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: to see that it works")
    parser.add_argument("--only-ours", action="store_true", help="prefork without its peers")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    print(f"{datetime.now(UTC):%Y-%m-%d} {costing.machine()}")
    print("peers:", "not asked for" if options.only_ours else install_peers(), flush=True)
    lines = measure(
        options.scenarios or list(SCENARIOS),
        is_quick=options.quick,
        only_ours=options.only_ours,
        say=lambda line: print(f"{line.what} | {line.who} | {line.measured}", flush=True),
    )
    print("\n" + table(lines))
    sys.exit(any(line.is_met is False for line in lines))


if __name__ == "__main__":
    main()
