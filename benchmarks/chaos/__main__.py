"""All faults in a row. Exit status: 0 if every promise was kept, 1 if one broke, 2 for wrong words."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import certificates, clients, clocks, disks, killing, reloading, starving
from benchmarks.chaos.fault import Fault, LeftOutError, Outcome
from benchmarks.chaos.report import paragraph, table, write_json
from benchmarks.chaos.stage import Stage

FAULTS: tuple[Fault, ...] = (
    *killing.FAULTS,
    *reloading.FAULTS,
    *starving.FAULTS,
    *disks.FAULTS,
    *clocks.FAULTS,
    *clients.FAULTS,
    *certificates.FAULTS,
)


def run(fault: Fault, *, is_quick: bool) -> Outcome:
    """Make one fault, and say what came of it. Raises nothing that the fleet can cause."""
    outcome = Outcome(fault)
    begun_s = time.monotonic()
    try:
        with Stage(outcome, is_quick=is_quick) as stage:
            fault.run(stage)
    except LeftOutError as error:
        outcome.left_out = str(error)
    except Exception as error:
        # A wait that is over says all that the fleet has said; that is shown once, apart.
        first = str(error).partition("\n")[0]
        outcome.broken.append(
            first if isinstance(error, AssertionError) else f"{type(error).__name__}: {first}"
        )
    outcome.seconds = time.monotonic() - begun_s
    return outcome


def main(arguments: Sequence[str] | None = None, faults: Sequence[Fault] = FAULTS) -> int:
    """The command."""
    names = [fault.name for fault in faults]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of each fault, under 3 minutes")
    parser.add_argument("--only", nargs="+", metavar="FAULT", choices=names, help=f"of: {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what came of it to this file, too")
    options = parser.parse_args(arguments)
    chosen = [fault for fault in faults if not options.only or fault.name in options.only]
    outcomes = []
    for number, fault in enumerate(chosen, 1):
        print(
            f"[{number}/{len(chosen)}] {fault.name}: {fault.done}\n  expected: {fault.expected}", flush=True
        )
        outcomes.append(run(fault, is_quick=options.quick))
        print(paragraph(outcomes[-1]), flush=True)
    print(f"\n{table(outcomes)}\n")
    if options.json:
        write_json(options.json, outcomes)
    broken = [outcome.fault.name for outcome in outcomes if outcome.broken]
    left_out = [outcome.fault.name for outcome in outcomes if outcome.left_out]
    print(
        f"{len(outcomes) - len(broken) - len(left_out)} held, {len(broken)} broken, {len(left_out)} left out"
        + (f"; broken: {', '.join(broken)}" if broken else "")
    )
    return 1 if broken else 0


if __name__ == "__main__":
    # However it is ended, its fleets end with it; a shell's background jobs would ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
