"""What our HTTP server costs, and its peers beside it: the goals, measured.

    python -m benchmarks.http [--quick] [--only SCENARIO ...] [--rounds 5] [--seconds 3] [--json FILE]

CPU time of all server processes for each request, requests a second, and latency by `wrk --latency`, two workers each.
Prints each scenario's figures as they are known and the table of goals at the end; the exit status says nothing of them.
Needs Linux and wrk; Go with Debian's golang-github-valyala-fasthttp-dev, nginx, openssl and a package index (once) for
the peers, and says so where one is missing. The Python that runs it is the Python that serves, ours and the peers' too.
Run it from the root of the repository.

Not here: how subjects are started (http_subjects.py), load (http_load.py, http_websocket.py), what is compared
(http_scenarios.py), memory (http_memory.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import http_memory, http_scenarios
from benchmarks.http_report import Figures, Verdict, as_record, goals_table
from benchmarks.http_scenarios import SCENARIOS, Effort
from benchmarks.http_subjects import Subject, build_go, install_peers

MEMORY = "idle"
NAMES = (*SCENARIOS, MEMORY)


def say(line: str) -> None:
    """One line, at once."""
    print(line, flush=True)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http", description="the HTTP server, measured"
    )
    parser.add_argument("--quick", action="store_true", help="everything in about three minutes: noisy")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument(
        "--who", nargs="+", metavar="WORD", help="only subjects whose name has one of these in it"
    )
    parser.add_argument("--connections", type=int, nargs="+", help="in place of each scenario's own")
    parser.add_argument("--rounds", type=int, help="of each subject (5; quick: 1)")
    parser.add_argument("--seconds", type=int, help="of each round (3; quick: 1)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    found = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed")
    found.rounds = found.rounds or (1 if found.quick else 5)
    found.seconds = found.seconds or (1 if found.quick else 3)
    return found


def head(chosen: argparse.Namespace) -> None:
    """The machine, and what is compared."""
    cores = len(os.sched_getaffinity(0))
    say(
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {chosen.workers} workers, {chosen.rounds} rounds of {chosen.seconds} s"
    )
    for line in install_peers():
        say(f"peers: {line}")
    say(f"Go: {build_go()}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = options(arguments)
    head(chosen)
    figures: list[Figures] = []
    memory: list[http_memory.Memory] = []
    verdicts: list[Verdict] = []

    def is_wanted(subject: Subject) -> bool:
        return not chosen.who or any(word.lower() in subject.name.lower() for word in chosen.who)

    with tempfile.TemporaryDirectory(prefix="prefork-bench-") as directory:
        # nginx's workers are another user when its master is root.
        Path(directory).chmod(0o755)
        effort = Effort(chosen.rounds, chosen.seconds, chosen.workers, Path(directory))
        for name in chosen.only or NAMES:
            if name == MEMORY:
                memory, judged = http_memory.measure(effort, say, is_wanted)
            else:
                scenario = http_scenarios.narrowed(SCENARIOS[name], is_wanted, chosen.connections)
                found, judged = http_scenarios.measure(name, scenario, effort, say)
                figures += found
            verdicts += judged
    if verdicts:
        say("\n" + goals_table(verdicts))
    if chosen.json:
        record = {"python": sys.version.split()[0], **as_record(figures, memory, verdicts)}
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
