"""Ourselves beside our peers: the HTTP server, the supervisor, and the state that all workers see.

    python -m benchmarks                                  # everything: about an hour
    python -m benchmarks --quick                          # about three minutes: less of everything, and it says what
    python -m benchmarks --only http supervision:kills    # a part, or a scenario of one
    python -m benchmarks --json run.json --plots docs/img # figures for programs, and for eyes
    python -m benchmarks.page run.json                    # the tables of docs/benchmarks.md from them

Peers are measured in the same run, in turns, in an environment of their own (build/peers-X.Y, made at the first run). What is
missing of wrk, Go, nginx, openssl, libuv and redis-server is installed with apt-get if we are root, else named; whoever needs it is
reported as not measured. The exit status is 0 if all was done, whatever the goals say, and 1 if it was interrupted; --strict makes it 1
if a goal was missed, too.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.http.part import Http
from benchmarks.run.choosing import ALL, UnknownScenarioError, chosen_scenarios, effort, left_out
from benchmarks.run.figures import Run, Verdict
from benchmarks.run.part import Part, Wish
from benchmarks.run.peers import install_peers
from benchmarks.run.places import BUILD
from benchmarks.run.steps import clock
from benchmarks.run.tables import HEAD, tables
from benchmarks.run.tools import ensure, may_install, versions
from benchmarks.run.watch import Watch, display
from benchmarks.shared.part import Shared
from benchmarks.supervision.part import Supervision

PARTS: Final[tuple[Part, ...]] = (Http(), Supervision(), Shared())


def machine() -> str:
    """Cores, kernel and Python."""
    cores = len(os.sched_getaffinity(0))
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{cores} cores, {kernel}, CPython {platform.python_version()}"


def _options(arguments: Sequence[str] | None, parts: Sequence[Part], part: str) -> argparse.Namespace:
    scenarios = "; ".join(f"{each.name}: {', '.join(each.scenarios(Wish()))}" for each in parts)
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks{'.' * bool(part)}{part}",
        description="ourselves beside our peers, measured",
        epilog=f"WHAT: {scenarios}",
    )
    parser.add_argument("--quick", action="store_true", help="about three minutes: noisy, and not everything")
    parser.add_argument("what", nargs="*", metavar="WHAT", help="as --only")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WHAT",
        help="a part (http), or a scenario (http:hello, hello)",
    )
    parser.add_argument(
        "--who", nargs="+", default=[], metavar="WORD", help="only subjects whose name has one of these in it"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="in place of each scenario's own number")
    parser.add_argument("--seconds", type=int, metavar="N", help="of an HTTP load (3; quick: 1)")
    parser.add_argument("--connections", type=int, nargs="+", default=[], metavar="N", help="of HTTP loads")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=BUILD / "bench.json", help="default: %(default)s"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", default=BUILD / "plots", help="default: %(default)s"
    )
    parser.add_argument("--no-install", action="store_true", help="install nothing with apt-get")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a goal was missed")
    found = parser.parse_args(arguments)
    try:
        found.chosen = chosen_scenarios([*found.what, *found.only], parts, _wish(found))
    except UnknownScenarioError as error:
        parser.error(str(error))
    return found


def _wish(given: argparse.Namespace) -> Wish:
    return Wish(given.quick, tuple(given.who), given.rounds, given.seconds, tuple(given.connections))


def _prepare(run: Run, parts: Sequence[Part], given: argparse.Namespace) -> None:
    """Peers and programs; what is missing of them."""
    say = partial(print, flush=True)
    needed = [name for part in parts for name in part.needs(given.chosen[part.name])]
    run.missing += tuple(
        ensure(dict.fromkeys(needed), may_install=may_install() and not given.no_install, say=say)
    )
    peers, missing = install_peers(say)
    run.peers += (*peers, *versions(needed))
    run.missing += tuple(missing)
    for part in parts:
        part.prepare(given.chosen[part.name], run)


def main(arguments: Sequence[str] | None = None, *, part: str = ALL) -> int:
    """The command, for all parts or for one. Exit status 2 for wrong words."""
    parts = [each for each in PARTS if part in (ALL, each.name)]
    given = _options(arguments, parts, part)
    # What was started is ended, and what was measured is told, on TERM as on Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    wish = _wish(given)
    run = Run(
        f"{datetime.now(UTC):%Y-%m-%d}",
        machine(),
        effort(wish, [*given.what, *given.only]),
        left_out=left_out(given.chosen, parts, wish),
    )
    print(f"{run.taken}, {run.machine}; {run.effort}", flush=True)
    _prepare(run, parts, given)
    run.load_before = os.getloadavg()[0]
    print("peers: " + ", ".join(run.peers))
    for line in (*run.missing, *(f"left out: {each}" for each in run.left_out)):
        print(line)
    steps = [step for each in parts for step in each.steps(given.chosen[each.name], wish)]
    is_interrupted = False
    with Watch(steps, display()) as watch, tempfile.TemporaryDirectory(prefix="prefork-bench-") as directory:
        watch.say(f"about {clock(watch.estimate.left_s)} (m:ss) on a machine with nothing else to do")
        # nginx's workers are another user when its master is root.
        Path(directory).chmod(0o755)
        try:
            for each in parts:
                for scenario in given.chosen[each.name]:
                    measure(each, scenario, wish, watch, run, directory=Path(directory))
        except KeyboardInterrupt:
            is_interrupted = True
            run.left_out += ("what comes after the interruption",)
            watch.say("interrupted: what was measured until now follows")
    _report(run, given)
    return int(is_interrupted or (given.strict and any(each.holds is False for each in run.verdicts)))


def measure(part: Part, scenario: str, wish: Wish, watch: Watch, run: Run, *, directory: Path) -> None:
    """One scenario; one that breaks is told, counts as missed, and does not take an hour of others along."""
    try:
        part.measure(scenario, wish, watch, run, directory)
    except Exception as error:
        watch.say(traceback.format_exc())
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        run.verdicts.append(Verdict(part.name, scenario, "broke", "to be measured", holds=False, note=why))
    finally:
        watch.close(part.name, scenario)


def _report(run: Run, given: argparse.Namespace) -> None:
    for name, text in tables(run).items():
        if name != HEAD:
            print(f"\n{name}\n\n{text}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(run.to_json(), encoding="utf-8")
    print(f"\nfigures: {given.json}")
    try:
        from benchmarks.run.drawing import draw  # noqa: PLC0415  (matplotlib is not everywhere)
    except ImportError as error:
        print(f"no plots: {error}; `make bench` installs what they need")
        return
    for path in draw(run, given.plots):
        print(f"plot: {path}")


if __name__ == "__main__":
    sys.exit(main())
