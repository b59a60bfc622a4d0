"""A real fleet in a real process: start it, wait for what it says, signal it, leave nothing behind.

Rules:

1. Tests wait for log lines, never for time. Every wait has a bound; past it, or once the fleet is gone,
   it fails at once and shows all that the fleet has said.
2. Each fleet runs in a session of its own, so that a Ctrl-C at the suite does not reach it, and carries a
   mark of its own in its environment, so that its orphans are found whoever their parent is now.
3. At the end, whatever is left of it is killed: the master and what descends from it, or bears the mark.
   Nothing else is ever signalled. `stop()` and `leftovers()` are for tests; the end is for safety.

The patterns on top are the master's log lines as the tests know them; they change together.

Not here: load (load.py), reading /proc (procfs.py), fixtures (conftest.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from types import TracebackType
from typing import Self

from tests.process import procfs
from tests.process.procfs import Process

# The master's lines. Named groups are what the helpers below use.
SERVING = r"serving (?P<url>https?://[^\s,]+|unix:[^\s,]+)"
WORKER_READY = r"worker (?P<slot>\d+) \(pid (?P<pid>\d+), generation (?P<generation>\d+)\) ready"

WAIT_S = 45.0
"""Default bound of every wait: far above any honest delay. Where eight want each CPU a fleet was seen to start in 20 s."""

STOP_WITHIN_S = 25.0
"""Bound of a stop: as generous, and below the default grace period, after which everything ends, hung or not."""

GONE_WITHIN_S = 10.0
"""Bound of every end that is promised at once, or within a second: what is promised is measured, not tested, because the
scheduler of a machine with ten that want each CPU is late by seconds itself (benchmarks/supervision.py)."""

KILL_LIMIT_S = 20.0
"""A killed process is gone within milliseconds; after this something is badly wrong."""

LOWEST_FREE_PORT = 10_000

MARK = "TEST_PREFORK_FLEET"
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = WAIT_S, *, show: Callable[[], str] = str
) -> None:
    """Return once `condition()` is true; AssertionError naming `what` after `timeout_s` seconds.

    For what Linux gives no event for (a process's state, a child's parent). Where there is a log line,
    wait for the line.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not condition():
        if time.monotonic() > deadline:
            msg = f"not within {timeout_s:g} s: {what}\n{show()}"
            raise AssertionError(msg)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Fleet:
    """A prefork master and its family, run as a user runs them. A context manager.

    `arguments` is the whole command; see `Fleet.command` and `Fleet.script`. `env` is laid over this
    process's environment, a value of None removes the name. stdout and stderr are read together.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.arguments = list(arguments)
        self._cwd = cwd
        self._mark = uuid.uuid4().hex
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name, value in (env or {}).items():
            if value is None:
                self._env.pop(name, None)
            else:
                self._env[name] = value
        self._env[MARK] = self._mark
        self._popen: subprocess.Popen[bytes] | None = None
        self._master: Process | None = None
        self._reader: threading.Thread | None = None
        self._said = threading.Condition()
        self._lines: list[str] = []
        self._is_silent = False
        self._cursor = 0
        self._seen: set[Process] = set()

    @classmethod
    def command(
        cls, *arguments: str, env: Mapping[str, str | None] | None = None, cwd: Path | None = None
    ) -> Self:
        """`prefork ARGUMENTS`, run as `python -m prefork` by this interpreter."""
        return cls([sys.executable, "-m", "prefork", *arguments], env=env, cwd=cwd)

    @classmethod
    def script(
        cls,
        path: Path,
        *arguments: str,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> Self:
        """A Python program of the user's own that calls prefork as a library."""
        return cls([sys.executable, str(path), *arguments], env=env, cwd=cwd)

    # -------------------------------------------------------------------------------- beginning and end

    def start(self) -> Self:
        """Start the process. `with` does it too."""
        self._popen = subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        self._master = procfs.identify(self._popen.pid)
        self._reader = threading.Thread(target=self._read, name="fleet-reader", daemon=True)
        self._reader.start()
        return self

    def __enter__(self) -> Self:
        return self if self._popen else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what is left of this fleet, and of nothing else; AssertionError if anything survives that."""
        if self._popen is None:
            return

        def none_is_left() -> bool:
            # Again and again, because a master that is killed last may have forked meanwhile.
            for process in self.leftovers():
                procfs.send(process, SIGKILL)
            return not self.leftovers()

        wait_until(none_is_left, "the end of this fleet's processes", KILL_LIMIT_S, show=lambda: self.output)
        self._popen.wait(KILL_LIMIT_S)
        if self._reader is not None:
            self._reader.join(KILL_LIMIT_S)
        if self._popen.stdout is not None and not (self._reader and self._reader.is_alive()):
            self._popen.stdout.close()

    def stop(self, number: Signals = SIGTERM, timeout_s: float = STOP_WITHIN_S) -> int:
        """Ask the master to stop, and wait until it has: its exit status (-N for signal N)."""
        self.signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait until the master has ended by itself: its exit status, as `subprocess` gives it.

        All that the master has said is in `output` then, unless a leftover keeps the pipe open.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            msg = f"the master still runs after {timeout_s:g} s\n{self.output}"
            raise AssertionError(msg) from None
        if self._reader is not None:
            self._reader.join(1.0)
            wait_until(lambda: self._is_silent or self.leftovers(), "the last of its words", GONE_WITHIN_S)
        return status

    # -------------------------------------------------------------------------------- what it says

    @property
    def lines(self) -> list[str]:
        """What it has said until now, line by line."""
        with self._said:
            return list(self._lines)

    @property
    def output(self) -> str:
        """What it has said until now, as one text."""
        return "\n".join(self.lines)

    def mark(self) -> int:
        """Where its words end now: for `since=`."""
        with self._said:
            return len(self._lines)

    def wait_for(self, pattern: str, timeout_s: float = WAIT_S, *, since: int | None = None) -> re.Match[str]:
        """Wait for a line in which `pattern` is found, and return the match.

        Looks from the line after the last one found this way, so that a story reads in order; with
        `since` (0: from the start; or a `mark()`) from there, leaving the cursor alone. Fails at once
        when nobody is left to say it.
        """
        moves_cursor = since is None
        first = self._cursor if since is None else since
        index, match = self._find(re.compile(pattern), first, timeout_s)
        if moves_cursor:
            self._cursor = index + 1
        return match

    def wait_for_all(
        self, pattern: str, count: int, timeout_s: float = WAIT_S, *, since: int = 0
    ) -> list[re.Match[str]]:
        """Wait until `pattern` is found in `count` lines after `since`; the matches in their order."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        found: list[re.Match[str]] = []
        while len(found) < count:
            index, match = self._find(compiled, since, deadline - time.monotonic())
            found.append(match)
            since = index + 1
        return found

    def find_all(self, pattern: str, since: int = 0) -> list[re.Match[str]]:
        """Where `pattern` is found in what has been said until now; does not wait."""
        compiled = re.compile(pattern)
        return [match for line in self.lines[since:] if (match := compiled.search(line))]

    def _find(self, pattern: re.Pattern[str], first: int, timeout_s: float) -> tuple[int, re.Match[str]]:
        deadline = time.monotonic() + timeout_s
        with self._said:
            while True:
                for index in range(first, len(self._lines)):
                    if match := pattern.search(self._lines[index]):
                        return index, match
                first = max(first, len(self._lines))
                remaining_s = deadline - time.monotonic()
                if self._is_silent or remaining_s <= 0:
                    why = "it will never be said" if self._is_silent else f"not said in {timeout_s:g} s"
                    said = "\n".join(self._lines)
                    msg = f"{why}: {pattern.pattern!r}\n--- said until now:\n{said}\n---"
                    raise AssertionError(msg)
                self._said.wait(remaining_s)

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:  # never: it is opened as a pipe in start()
            return
        for raw in stream:
            with self._said:
                self._lines.append(raw.decode(errors="replace").rstrip("\r\n"))
                self._said.notify_all()
        with self._said:
            self._is_silent = True
            self._said.notify_all()

    # -------------------------------------------------------------------------------- what it serves

    def wait_until_serving(self, timeout_s: float = WAIT_S) -> str:
        """Wait until the master says that it serves: the URL. Leaves the cursor alone."""
        return self.wait_for(SERVING, timeout_s, since=0)["url"]

    @property
    def url(self) -> str:
        """The first URL that it serves."""
        return self.wait_until_serving()

    @property
    def port(self) -> int:
        """The port of the first URL: with `--bind 127.0.0.1:0` the one that the kernel chose."""
        return int(self.url.removesuffix("/").rpartition(":")[2])

    def connect(self, timeout_s: float = WAIT_S) -> socket.socket:
        """A fresh connection to the first address, TCP or Unix."""
        if self.url.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(timeout_s)
            client.connect(self.url.removeprefix("unix:"))
            return client
        host = self.url.partition("://")[2].rpartition(":")[0].strip("[]")
        return socket.create_connection((host, self.port), timeout_s)

    # -------------------------------------------------------------------------------- its processes

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            msg = "the fleet has not been started: use it in `with`, or call start()"
            raise RuntimeError(msg)
        return self._popen

    @property
    def pid(self) -> int:
        """The pid of the master, as started."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the master runs."""
        return self._process.poll() is None

    def signal(self, number: Signals) -> None:
        """Send a signal to the master."""
        self._process.send_signal(number)

    def signal_group(self, number: Signals) -> None:
        """Send a signal to the whole family at once, as a terminal does for Ctrl-C."""
        if self.is_running:
            os.killpg(self.pid, number)

    def kill(self, pid: int, number: Signals = SIGKILL) -> None:
        """Send a signal to one process of this fleet. ValueError if it is none of ours."""
        process = next((member for member in self.members() if member.pid == pid), None)
        if process is None:
            msg = f"{pid} is no live process of this fleet: {sorted(self.members())}"
            raise ValueError(msg)
        procfs.send(process, number)

    def wait_for_workers(self, count: int, timeout_s: float = WAIT_S, *, since: int = 0) -> list[int]:
        """Wait until `count` different workers have said that they are ready since then: their pids."""
        deadline = time.monotonic() + timeout_s
        pids: dict[int, None] = {}
        while len(pids) < count:
            index, match = self._find(re.compile(WORKER_READY), since, deadline - time.monotonic())
            pids[int(match["pid"])] = None
            since = index + 1
        return list(pids)

    def workers(self) -> list[int]:
        """The pids of workers that have said that they are ready, and live now, oldest first."""
        alive = {member.pid for member in self.members()}
        ready = dict.fromkeys(int(match["pid"]) for match in self.find_all(WORKER_READY))
        return [pid for pid in ready if pid in alive]

    def members(self) -> set[Process]:
        """Every live process of this fleet: master, zygotes, workers, and what those have started."""
        pids = set(procfs.pids_with_environment(f"{MARK}={self._mark}"))
        # Down from the master only while it lives: afterwards its pid may be someone else's.
        if self._master is not None and procfs.is_alive(self._master):
            pids |= {self.pid, *procfs.descendants(self.pid)}
        found = {process for pid in pids if (process := procfs.identify(pid)) is not None}
        self._seen |= found
        return found

    def leftovers(self) -> set[Process]:
        """What lives of this fleet, those too that were seen once and can no longer be traced to it."""
        self._process.poll()
        return self.members() | {process for process in self._seen if procfs.is_alive(process)}

    def assert_nothing_left(self, timeout_s: float = GONE_WITHIN_S) -> None:
        """No process of this fleet is alive, at the latest after `timeout_s` seconds."""
        wait_until(
            lambda: not self.leftovers(),
            "the end of every process of the fleet",
            timeout_s,
            show=lambda: f"left: {self._describe_leftovers()}\n{self.output}",
        )

    def _describe_leftovers(self) -> str:
        return "; ".join(
            f"{pid} ({procfs.state(pid)}) {' '.join(procfs.command_line(pid))}"
            for pid, _ in sorted(self.leftovers())
        )

    # -------------------------------------------------------------------------------- what it costs

    def pss_bytes(self) -> int:
        """Memory of the whole family in bytes, shared pages counted once."""
        return sum(procfs.pss_bytes(member.pid) for member in self.members())

    def context_switches(self) -> dict[int, procfs.ContextSwitches]:
        """Per live process of the family: the difference of two calls is its wake-ups between them."""
        return {member.pid: procfs.context_switches(member.pid) for member in self.members()}


def run_to_end(
    *arguments: str,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    timeout_s: float = WAIT_S,
) -> tuple[int, str]:
    """Run `prefork ARGUMENTS` that should end by itself: (exit status, all it said)."""
    with Fleet.command(*arguments, env=env, cwd=cwd) as fleet:
        status = fleet.wait(timeout_s)
        return status, fleet.output


def free_port() -> int:
    """A TCP port of the loopback that is free. Prefer `--bind 127.0.0.1:0` and `fleet.url`.

    From below those that the kernel gives by itself: between this moment and the one in which the port is bound, clients and
    `:0` of tests that run meanwhile would take it. By a generator that no plugin gives the same seed in each process.
    """
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for port in random.SystemRandom().sample(
        range(LOWEST_FREE_PORT, max(lowest, LOWEST_FREE_PORT + 1000)), 1000
    ):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
