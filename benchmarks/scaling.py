"""How many machines a number of users needs, from measured costs: the arithmetic of docs/scaling.md.

    python -m benchmarks.scaling                                   # a million users, the defaults below
    python -m benchmarks.scaling --users 5e6 --application-us 4000
    python -m benchmarks.scaling --sockets                         # what the kernel holds for an idle connection, measured here

Everything but `measure_socket_bytes` is pure. The figures that others measure: a request's cost, an idle connection's memory
(benchmarks.http), a fleet's memory (benchmarks.supervision), a call of the shared state (benchmarks.shared).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Final

SOCKET_PAIRS: Final = 4000
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a plan is made of. Each has the command in docs/scaling.md that measures it anew."""

    users: float = 1e6
    online: float = 0.10
    """Share of all users who have the application open at the busiest hour."""
    seconds_between_requests: float = 30.0
    connections_each: float = 1.0
    """Of a user who is online: 1 with HTTP/2 at the balancer, or one WebSocket."""
    server_us: float = 16.0
    """CPU time of a request in prefork: hello world at 512 connections."""
    application_us: float = 1400.0
    """CPU time of a request in the application: a Django view."""
    shared_calls: float = 2.0
    """Calls of the shared state in a request."""
    shared_us: float = 35.0
    """Of one call on Redis, waited for."""
    connection_kb: float = 6.5
    """Of an idle connection in a worker."""
    socket_kb: float = 3.5
    """Of an idle connection in the kernel."""
    application_mb: float = 200.0
    """PSS of a fleet with a heavy application, without connections."""
    busy: float = 0.5
    """Share of the CPUs that may be busy at the busiest hour."""
    cores: int = 4
    """Of a machine."""
    connections_a_worker: int = 16384


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed at the busiest hour, all machines together, and how many machines that is."""

    connections: float
    requests_s: float
    cores: float
    machines: int
    connections_a_machine: float
    memory_a_machine_mb: float
    shared_calls_s: float


def plan(given: Inputs) -> Plan:
    """The arithmetic. One machine more than the load needs, so that one may be updated, or lost."""
    connections = given.users * given.online * given.connections_each
    requests_s = given.users * given.online / given.seconds_between_requests
    request_us = given.server_us + given.application_us + given.shared_calls * given.shared_us
    cores = requests_s * request_us / 1e6 / given.busy
    by_cpu = math.ceil(cores / given.cores)
    by_connections = math.ceil(connections / (given.cores * given.connections_a_worker))
    serving = max(by_cpu, by_connections, 1)
    each = connections / serving
    memory_mb = given.application_mb + each * (given.connection_kb + given.socket_kb) / 1024
    return Plan(connections, requests_s, cores, serving + 1, each, memory_mb, requests_s * given.shared_calls)


def told(given: Inputs) -> str:
    """The plan, line by line, with its arithmetic."""
    made = plan(given)
    request_us = given.server_us + given.application_us + given.shared_calls * given.shared_us
    return "\n".join(
        [
            (
                f"connections       {given.users:,.0f} users x {given.online:.0%} x {given.connections_each:g}"
                f" = {made.connections:,.0f}"
            ),
            (
                f"requests/s        {given.users:,.0f} x {given.online:.0%} / {given.seconds_between_requests:g} s"
                f" = {made.requests_s:,.0f}"
            ),
            (
                f"CPU a request     {given.server_us:g} + {given.application_us:g} + {given.shared_calls:g} x"
                f" {given.shared_us:g} = {request_us:,.0f} us"
            ),
            (
                f"cores             {made.requests_s:,.0f} x {request_us:,.0f} us / {given.busy:.0%}"
                f" = {made.cores:.1f}"
            ),
            f"machines          {made.machines} of {given.cores} cores, one of them to spare",
            (
                f"a machine         {made.connections_a_machine:,.0f} connections,"
                f" {made.memory_a_machine_mb:,.0f} MB ({given.application_mb:g} +"
                f" {made.connections_a_machine:,.0f} x {given.connection_kb + given.socket_kb:g} KB)"
            ),
            (
                f"shared state      {made.requests_s:,.0f} x {given.shared_calls:g}"
                f" = {made.shared_calls_s:,.0f} calls/s"
            ),
        ]
    )


def measure_socket_bytes() -> list[float]:
    """What the kernel's slabs grow by for one end of an idle TCP connection, round by round."""
    found = []
    for _ in range(ROUNDS):
        before = _slab_bytes()
        with _pairs(SOCKET_PAIRS):
            found.append((_slab_bytes() - before) / SOCKET_PAIRS / 2)
    return found


def _slab_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo says nothing of slabs")


@contextlib.contextmanager
def _pairs(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        for _ in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        yield


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="a plan, from measured costs"
    )
    for each in fields(Inputs):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--sockets", action="store_true", help="measure the kernel's memory for a connection")
    options = vars(parser.parse_args())
    if options.pop("sockets"):
        found = measure_socket_bytes()
        print(f"{median(found):,.0f} bytes ({min(found):,.0f} to {max(found):,.0f}, n={len(found)})")
        return
    print(told(Inputs(**options)))


if __name__ == "__main__":
    main()
