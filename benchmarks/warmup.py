"""What a warm-up gives: the first request of each worker, and the memory of the fleet, with and without.

    python -m benchmarks.warmup [--rounds 5] [--workers 4]

The application is a Django site (benchmarks/apps/lazy_site.py) that loads at its first requests what Django loads then, and
makes a table of some 30 MB when it is first asked for. Each worker is held by one connection, so that each is asked its first
request for sure; requests come one after the other, so that they do not compete for the CPU. PSS of all processes of the fleet,
after every worker has answered both pages.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.run.figures import spread, table
from tests.process.harness import Fleet

APPS = Path(__file__).parent / "apps"
PAGES = ("/admin/login/", "/catalogue/")
MIB = 1024 * 1024


@dataclass(slots=True)
class Figures:
    """Of all rounds of one variant."""

    ready_ms: list[float] = field(default_factory=list)
    first_ms: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    later_ms: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    pss_mib: list[float] = field(default_factory=list)


def ask_ms(client: HTTPConnection, page: str) -> float:
    """Milliseconds of one request on a connection that is open."""
    begin_s = time.perf_counter()
    client.request("GET", page)
    answer = client.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{page}: status {answer.status}")
    return (time.perf_counter() - begin_s) * 1000


def one_round(words: Sequence[str], workers: int, figures: Figures) -> None:
    """One fleet, from its start to its end."""
    arguments = ["lazy_site:app", "--app-dir", str(APPS), "--bind", "127.0.0.1:0", "--workers", str(workers)]
    begin_s = time.perf_counter()
    with Fleet.command(*arguments, *words) as fleet, ExitStack() as open_ones:
        fleet.wait_for(rf"ready: {workers} workers?")
        figures.ready_ms.append((time.perf_counter() - begin_s) * 1000)
        clients = held_workers(fleet.port, workers, open_ones)
        for page in PAGES:
            figures.first_ms[page] += [ask_ms(client, page) for client in clients]
        for page in PAGES:
            figures.later_ms[page] += [ask_ms(client, page) for client in clients]
        figures.pss_mib.append(fleet.pss_bytes() / MIB)
        fleet.stop()


def held_workers(port: int, workers: int, open_ones: ExitStack) -> list[HTTPConnection]:
    """A connection to each of the workers, open; told apart by the pid that a request without any loading gives."""
    held: dict[str, HTTPConnection] = {}
    for _ in range(20 * workers):
        client = HTTPConnection("127.0.0.1", port, timeout=30)
        open_ones.callback(client.close)
        client.connect()
        client.request("GET", "/worker/")
        held.setdefault(client.getresponse().read().decode(), client)
        if len(held) == workers:
            return list(held.values())
    raise RuntimeError(f"{len(held)} of {workers} workers were reached")


def lines(figures: Figures) -> dict[str, str]:
    """As the report has them."""
    found = {"start to all workers ready": spread(figures.ready_ms, "ms")}
    for page in PAGES:
        found[f"first request of a worker, {page}"] = spread(figures.first_ms[page], "ms")
        found[f"second request of a worker, {page}"] = spread(figures.later_ms[page], "ms")
    found["PSS of the fleet after both"] = spread(figures.pss_mib, "MiB")
    return found


def main() -> None:
    """Measure both in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warmup", description="What a warm-up gives")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    warm = [word for page in PAGES for word in ("--warmup", page)]
    variants: dict[str, tuple[Sequence[str], Figures]] = {
        "without": ((), Figures()),
        "--warmup": (warm, Figures()),
    }
    for _ in range(options.rounds):
        for words, figures in variants.values():
            one_round(words, options.workers, figures)
    print(
        f"{options.workers} workers, {os.cpu_count()} CPUs, Python {platform.python_version()}, Linux {os.uname().release}"
    )
    measured = {who: lines(figures) for who, (_, figures) in variants.items()}
    whats = next(iter(measured.values()))
    print(table(["", *measured], [[what, *(found[what] for found in measured.values())] for what in whats]))


if __name__ == "__main__":
    main()
