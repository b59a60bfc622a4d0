"""How connections are shared out, and what that costs: our own accepting beside the loop's own (plain sharing).

    python -m benchmarks.accepting [--rounds 9] [--seconds 1] [--workers 4]

Both are our server under our master, with the same application; plain sharing takes connections by `loop.create_server`.
Slow clients come one by one and stay; a burst comes at once; the rate is that of a connection for each request. Rounds
are in turns, and compared in pairs. Needs Linux (/proc) and wrk.

Not here: what a request on an open connection costs (`http`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.process import procfs
from tests.process.harness import Fleet

ROOT: Final = Path(__file__).resolve().parents[1]
OURS: Final = "fewest first"
PLAIN: Final = "plain sharing"
CLIENTS: Final = 64
GOAL: Final = 0.9


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Say which worker it was."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    import os  # noqa: PLC0415  (only the served process needs it)

    body = b"pid %d" % os.getpid()
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


class PlainAcceptors:
    """The loop's own accepting, in the place of `prefork.http.admission.Acceptors`."""

    def __init__(self, connections: Any, factory: Callable[[], Any], **_options: Any) -> None:
        self._connections = connections
        self._factory = factory
        self._listening: list[asyncio.Task[Any]] = []

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Listen on all of them."""
        loop = asyncio.get_running_loop()

        def make() -> Any:
            protocol = self._factory()
            self._connections.expect(protocol)
            return protocol

        for listener in listeners:
            self._listening.append(loop.create_task(loop.create_server(make, sock=listener, backlog=2048)))

    def stop(self) -> None:
        """Accept nothing more."""
        for task in self._listening:
            task.result().close()


def serve(kind: str, workers: int) -> None:
    """Be a master with that kind of accepting."""
    from prefork import Prefork  # noqa: PLC0415  (only the served process needs them)
    from prefork.http import server  # noqa: PLC0415

    if kind == PLAIN:
        vars(server)["Acceptors"] = PlainAcceptors
    Prefork(server.HttpServer(app), workers=workers).listen_and_serve("127.0.0.1:0")


@dataclass(frozen=True, slots=True)
class Round:
    """One run of wrk."""

    rate: float
    cpu_us: float
    p99_ms: float


def cpu_us(fleet: Fleet) -> float:
    """CPU time that the family has used until now, in microseconds."""
    total_ns = 0
    for pid in (fleet.pid, *procfs.descendants(fleet.pid)):
        with contextlib.suppress(OSError):
            total_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total_ns / 1000


def run_wrk(fleet: Fleet, seconds: int) -> Round:
    """A connection for each request, 64 at a time."""
    before_us = cpu_us(fleet)
    words = ["wrk", "-t2", f"-c{CLIENTS}", f"-d{seconds}s", "-H", "Connection: close", "--latency", fleet.url]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    spent_us = cpu_us(fleet) - before_us
    counted, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if counted is None or rate is None or p99 is None:
        raise RuntimeError(f"wrk said something else:\n{said}")
    unit_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return Round(float(rate[1]), spent_us / int(counted[1]), float(p99[1]) * unit_ms)


def share(fleet: Fleet, *, is_burst: bool) -> list[int]:
    """How many of 64 clients that stay each worker has, most first."""
    with contextlib.ExitStack() as leaving:
        found = Counter[bytes]()
        clients = []
        for _ in range(CLIENTS):
            client = leaving.enter_context(fleet.connect())
            clients.append(client)
            if not is_burst:
                found[_pid_behind(client)] += 1
        if is_burst:
            found.update(_pid_behind(client) for client in clients)
    time.sleep(0.2)  # until the workers have heard that they left
    return sorted(found.values(), reverse=True)


def _pid_behind(client: socket.socket) -> bytes:
    client.sendall(b"GET / HTTP/1.1\r\nHost: benchmark\r\n\r\n")
    answer = b""
    while (pid := re.search(rb"pid (\d+)$", answer)) is None:
        answer += client.recv(4096)
    return pid[1]


def measure(rounds: int, seconds: int, workers: int) -> None:
    """Run both kinds in turns, and print what came out."""
    results: dict[str, list[Round]] = {PLAIN: [], OURS: []}
    with contextlib.ExitStack() as stack:
        fleets = {}
        for kind in results:
            words = [sys.executable, "-m", "benchmarks.accepting", "--serve", kind, "--workers", str(workers)]
            fleets[kind] = stack.enter_context(Fleet(words, cwd=ROOT))
            fleets[kind].wait_for_workers(workers)
        for kind, fleet in fleets.items():
            slow, burst = share(fleet, is_burst=False), share(fleet, is_burst=True)
            print(f"{kind:14} {CLIENTS} slow {'/'.join(map(str, slow)):16} burst {'/'.join(map(str, burst))}")
            run_wrk(fleet, 1)
        for number in range(rounds):
            for kind in sorted(fleets, reverse=bool(number % 2)):
                results[kind].append(run_wrk(fleets[kind], seconds))
    for kind, found in results.items():
        print(
            f"{kind:14} {median(each.rate for each in found):8.0f} connections/s  "
            f"{median(each.cpu_us for each in found):6.1f} µs CPU  p99 {median(each.p99_ms for each in found):.1f} ms"
        )
    pairs = list(zip(results[OURS], results[PLAIN], strict=True))
    rate = median(ours.rate / plain.rate for ours, plain in pairs)
    cpu = median(ours.cpu_us / plain.cpu_us for ours, plain in pairs)
    verdict = "met" if rate >= GOAL else "MISSED"
    print(
        f"{OURS} / {PLAIN}, median of {rounds} pairs: rate {rate:.2f} (goal >= {GOAL}: {verdict}), CPU {cpu:.2f}"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accepting", description="Who gets a connection"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each round")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--serve", metavar="KIND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.workers)
    else:
        measure(options.rounds, options.seconds, options.workers)


if __name__ == "__main__":
    main()
