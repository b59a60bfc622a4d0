"""What a request costs: CPU time of all server processes for each "hello, world", ours beside uvicorn's.

    python -m benchmarks.http [--quick] [--connections 64 512] [--rounds 5] [--seconds 4]

Both are served by the same master with as many workers, and measured in turns, so that what else the machine does falls
on both. CPU time rather than throughput: on few cores the load generator takes its share of the clock, not of this.
Needs Linux (/proc) and wrk.

Not here: other peers (Go fasthttp, granian, nginx), latency percentiles, bodies.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.process import procfs
from tests.process.harness import Fleet

HERE: Final = Path(__file__).resolve()
OWN: Final = "prefork"
UVICORN: Final = "uvicorn"
_GREETING: Final = b"Hello, World!"


async def app(scope: Mapping[str, Any], _receive: Any, send: Any) -> None:
    """The application that both serve."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _GREETING})


@dataclass(frozen=True, slots=True)
class Round:
    """One run of wrk against one server."""

    requests: int
    errors: int
    cpu_us: float
    requests_a_second: float

    @property
    def cost_us(self) -> float:
        """CPU time of a request, in microseconds, in all server processes together."""
        return self.cpu_us / self.requests


def fleet(server: str, workers: int) -> Fleet:
    """A master with `workers` workers on a free port."""
    if server == OWN:
        return Fleet(
            [sys.executable, "-m", "benchmarks.http", "--serve", str(workers)], cwd=HERE.parent.parent
        )
    return Fleet.command(
        *("benchmarks.http:app", "--server", server, "--workers", str(workers), "--bind", "127.0.0.1:0"),
        cwd=HERE.parent.parent,
    )


def serve(workers: int) -> None:
    """Serve `app` with our own server, on a free port."""
    from prefork import Prefork  # noqa: PLC0415  (only the served process needs them)
    from prefork.http.server import HttpServer  # noqa: PLC0415

    Prefork(HttpServer(app), workers=workers).listen_and_serve("127.0.0.1:0")


def cpu_us(pid: int) -> float:
    """CPU time that a process and its descendants have used until now, in microseconds."""
    total_ns = 0
    for each in (pid, *procfs.descendants(pid)):
        for schedstat in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                total_ns += int(schedstat.read_text().split()[0])
    return total_ns / 1000


def run_wrk(url: str, pid: int, connections: int, seconds: float) -> Round:
    """Load `url` for some seconds, and see what it costs the family of `pid`."""
    before_us = cpu_us(pid)
    output = subprocess.run(
        ["wrk", "-t2", f"-c{connections}", f"-d{seconds:g}s", url],  # noqa: S607  (wrk is found on the PATH)
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    spent_us = cpu_us(pid) - before_us
    counted = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if counted is None or rate is None:
        raise RuntimeError(f"wrk said something else:\n{output}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", output)
    bad = int(failed[1]) if failed else 0
    bad += sum(int(count) for count in errors.groups()) if errors else 0
    return Round(int(counted[1]), bad, spent_us, float(rate[1]))


def compare(connections: int, *, rounds: int, seconds: float, workers: int) -> dict[str, list[Round]]:
    """Interleaved rounds of all servers at one number of connections."""
    results: dict[str, list[Round]] = {OWN: [], UVICORN: []}
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[str, int]] = {}
        for server in results:
            master = stack.enter_context(fleet(server, workers))
            master.wait_for_workers(workers)
            running[server] = (master.url, master.pid)
        for url, pid in running.values():
            run_wrk(url, pid, connections, 1)  # caches, adaptive bytecode
        for _ in range(rounds):
            for server, (url, pid) in running.items():
                results[server].append(run_wrk(url, pid, connections, seconds))
    return results


def report(connections: int, results: Mapping[str, Sequence[Round]]) -> None:
    """Print medians, and how they compare."""
    print(f"\n{connections} connections          CPU µs/request (all rounds)            requests/s   errors")
    costs: dict[str, float] = {}
    for server, rounds in results.items():
        costs[server] = median(each.cost_us for each in rounds)
        every = " ".join(f"{each.cost_us:.1f}" for each in rounds)
        rate = median(each.requests_a_second for each in rounds)
        errors = sum(each.errors for each in rounds)
        print(f"  {server:<18} {costs[server]:6.1f}  ({every})".ljust(62) + f"{rate:10.0f} {errors:8}")
    print(f"  {OWN} / {UVICORN}: {costs[OWN] / costs[UVICORN]:.2f}   (goal: at most 0.42)")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description="CPU time of a request")
    parser.add_argument("--quick", action="store_true", help="three rounds of two seconds")
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--serve", type=int, metavar="WORKERS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed")
    rounds, seconds = (3, 2.0) if options.quick else (options.rounds, options.seconds)
    print(
        f"Python {sys.version.split()[0]}, {options.workers} workers, wrk -t2, {rounds} rounds of {seconds:g} s"
    )
    for connections in options.connections:
        report(connections, compare(connections, rounds=rounds, seconds=seconds, workers=options.workers))


if __name__ == "__main__":
    main()
