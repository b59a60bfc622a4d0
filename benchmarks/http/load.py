"""Load, and what it costs a server: wrk beside the CPU clocks of all its processes.

CPU time rather than throughput: on few cores the load generator takes its share of the wall clock, not of this. The
clock of a process counts the threads that have ended too (clock_getcpuclockid(3)).

Not here: WebSocket messages (websocket.py), the memory of a connection (memory.py).
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.http.running import Running
from benchmarks.run.tools import TOOLS, program

PIPELINE_DEPTH: Final = 16
UPLOAD_BYTES: Final = 1024 * 1024
PATIENCE_S: Final = 8.0
"""How much longer than it was told a load generator may take."""
_CPUCLOCK_SCHED: Final = 2
_P999: Final = """
done = function(summary, latency, requests)
   print(string.format("    99.9%%  %.2fus", latency:percentile(99.9)))
end
"""
"""wrk prints no percentile above 99 by itself; called once, at the end."""
_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class LoadError(Exception):
    """The load could not be made, or what came of it cannot be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a load against one server. `cpu_us` is that of all its processes together.

    A percentile that the load generator does not know is NaN.
    """

    served: int
    errors: int
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    pss_mb: float = math.nan
    """Memory of all its processes after the load, shared pages counted once."""

    @property
    def cost_us(self) -> float:
        """CPU time of one request (or message), in microseconds."""
        return self.cpu_us / self.served


@dataclass(frozen=True, slots=True)
class Wrk:
    """wrk with so many threads; `script` is its Lua, `headers` go with each request."""

    script: str = ""
    headers: tuple[str, ...] = ()
    threads: int = 2
    timeout_s: int = 8

    def __call__(self, target: Running, connections: int, seconds: int, directory: Path) -> Sample:
        """Load `target` for some seconds. Raises LoadError if nothing was served."""
        words, threads = [needed("wrk")], self.threads
        if target.halves:
            words = ["taskset", "-c", target.halves.load, *words]
            threads = min(threads, target.halves.load_count)
        words += [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency"]
        words += ["--timeout", f"{self.timeout_s}s"]
        for header in self.headers:
            words += ["-H", header]
        path = directory / f"wrk-{target.port}.lua"
        path.write_text(_P999 + self.script, encoding="ascii")
        words += ["-s", str(path)]
        before_ns = cpu_ns(target.processes())
        try:
            done = subprocess.run(
                [*words, target.url],
                check=False,
                capture_output=True,
                text=True,
                timeout=seconds + PATIENCE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError("wrk never came to an end") from error
        spent_us = spent_since_us(before_ns, target.processes())
        if done.returncode:
            raise LoadError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
        return parsed(done.stdout, spent_us)


@dataclass(frozen=True, slots=True)
class FullHandshakes:
    """`openssl s_time -new`: one connection after the other in each of `connections` processes, none resuming a session."""

    def __call__(self, target: Running, connections: int, seconds: int, directory: Path) -> Sample:  # noqa: ARG002
        """Load `target` for some seconds. Raises LoadError if nothing was served, or an answer never ends."""
        words = [needed("openssl"), "s_time", "-connect", f"127.0.0.1:{target.port}", "-new", "-www", "/"]
        words += ["-time", str(seconds)]
        before_ns = cpu_ns(target.processes())
        with contextlib.ExitStack() as stack:
            started = []
            for _ in range(connections):
                one = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                started.append(stack.enter_context(one))
                stack.callback(one.kill)  # before the wait; does nothing to one that has ended
            deadline_s = time.monotonic() + seconds + PATIENCE_S
            try:
                said = [one.communicate(timeout=deadline_s - time.monotonic())[0] for one in started]
            except subprocess.TimeoutExpired as error:
                raise LoadError("a connection that was asked for `/` by HTTP/1.0 was never closed") from error
        spent_us = spent_since_us(before_ns, target.processes())
        counts = [re.search(r"(\d+) connections in \d+ real seconds", each) for each in said]
        served = sum(int(count[1]) for count in counts if count)
        if not served:
            raise LoadError("no handshake was completed")
        return Sample(served, counts.count(None), spent_us, served / seconds, *[math.nan] * 3)


def needed(name: str) -> str:
    """Where a load generator is. Raises LoadError, with what to do, if it is not there."""
    path = program(name)
    if path is None:
        raise LoadError(f"{name} is not installed: apt-get install {' '.join(TOOLS[name].packages)}")
    return path


PLAIN: Final = Wrk()
CLOSING: Final = Wrk(headers=("Connection: close",))
"""Over TLS: wrk keeps a connection's session, and resumes it where the server lets it."""
SEED: Final = Wrk(
    headers=(
        "Accept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7",
        "Connection: keep-alive",
    ),
    threads=4,
)
"""The seed's own command."""
PIPELINED: Final = Wrk(
    script=f"""
init = function(args)
   local one = wrk.format()
   local all = {{}}
   for i = 1, {PIPELINE_DEPTH} do all[i] = one end
   batch = table.concat(all)
end
request = function() return batch end
"""
)
UPLOADING: Final = Wrk(script=f'wrk.method = "POST"\nwrk.body = string.rep("x", {UPLOAD_BYTES})\n')


def cpu_ns(pids: Sequence[int]) -> dict[int, int]:
    """CPU time that each process has used until now, all its threads together. Who is gone is left out."""
    used = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # ended between the listing and here
            used[pid] = time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    return used


def spent_since_us(before_ns: dict[int, int], pids: Sequence[int]) -> float:
    """What a family has used since then. Raises LoadError if a process of it has ended: its time is lost."""
    after_ns = cpu_ns(pids)
    if gone := before_ns.keys() - after_ns.keys():
        raise LoadError(f"{len(gone)} of the server's processes ended under load")
    return sum(used - before_ns.get(pid, 0) for pid, used in after_ns.items()) / 1000


def parsed(output: str, spent_us: float) -> Sample:
    """What wrk has said, beside the CPU time that was spent. Raises LoadError if nothing was served."""
    counted = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if counted is None or rate is None or not int(counted[1]):
        read = re.search(r"requests in .*", output)
        raise LoadError(f"nothing was served: {read[0] if read else output!r}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    bad = int(failed[1]) if failed else 0
    bad += sum(int(count) for count in errors.groups()) if errors else 0
    percentiles = (_percentile(output, percent) for percent in ("50", "99", "99.9"))
    return Sample(int(counted[1]), bad, spent_us, float(rate[1]), *percentiles)


def _percentile(output: str, percent: str) -> float:
    found = re.search(rf"^\s+{re.escape(percent)}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk gave no {percent} % figure")
    # wrk gives 0 where its correction for coordinated omission has thrown its own count off (pipelining does it).
    return float(found[1]) * _UNITS_MS[found[2]] or math.nan
