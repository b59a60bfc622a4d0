"""What is measured: prefork, gunicorn and uvicorn, each started in the same way with the same application.

The peers live in an environment of their own, `build/peers`, made at the first run. A peer that cannot be installed
or does not start is reported as such, never left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.process.harness import Fleet, free_port

ROOT = Path(__file__).resolve().parents[1]
APPS = ROOT / "benchmarks" / "apps"
PEERS = ROOT / "build" / "peers"
LOGS = ROOT / "build" / "benchmark-logs"
"""What each subject has said, for a figure that surprises."""
REQUIREMENTS = ("gunicorn>=25", "uvicorn[standard]>=0.30")
START_LIMIT_S = 30.0
PROBE_LIMIT_S = 15.0
PAUSE_S = 0.001

Command = Callable[[str, int, int], list[str]]


class DidNotStartError(Exception):
    """A subject that never answered; its last words are the message."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under a name. `command(app, port, workers)` is its command line."""

    name: str
    command: Command
    is_ours: bool = False


def _prefork(*extra: str) -> Command:
    def command(app: str, port: int, workers: int) -> list[str]:
        words = [
            f"{app}:app",
            "--app-dir",
            str(APPS),
            "--bind",
            f"127.0.0.1:{port}",
            "--workers",
            str(workers),
        ]
        # Kills are what is measured here, so giving up after many must not get in the way.
        return [sys.executable, "-m", "prefork", *words, "--recover-threshold", "1000", *extra]

    return command


def _gunicorn(*extra: str) -> Command:
    def command(app: str, port: int, workers: int) -> list[str]:
        words = ["-k", "asgi", "-w", str(workers), "-b", f"127.0.0.1:{port}", "--chdir", str(APPS)]
        return [str(PEERS / "bin" / "gunicorn"), *words, *extra, f"{app}:app"]

    return command


def _uvicorn(app: str, port: int, workers: int) -> list[str]:
    words = ["--app-dir", str(APPS), "--port", str(port), "--workers", str(workers), "--no-access-log"]
    return [str(PEERS / "bin" / "uvicorn"), f"{app}:app", *words]


SHARED = Subject("prefork", _prefork(), is_ours=True)
REUSEPORT = Subject("prefork --reuseport", _prefork("--reuseport"), is_ours=True)
GUNICORN = Subject("gunicorn (asgi)", _gunicorn())
GUNICORN_REUSEPORT = Subject("gunicorn (asgi) --reuse-port", _gunicorn("--reuse-port"))
GUNICORN_PRELOAD = Subject("gunicorn (asgi) --preload", _gunicorn("--preload"))
UVICORN = Subject("uvicorn", _uvicorn)


def install_peers() -> str:
    """Make the peers' environment if it is not there: what is in it, or why there is none. Needs a registry once."""
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    try:
        if not (PEERS / "bin" / "gunicorn").exists():
            venv.create(PEERS, with_pip=True)
            subprocess.run([*pip, "install", "--quiet", *REQUIREMENTS], check=True, timeout=300)
        listed = subprocess.run(
            [*pip, "freeze"], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"peers cannot be installed: {error}"
    wanted = ("gunicorn", "uvicorn", "uvloop", "httptools")
    return ", ".join(line.replace("==", " ") for line in listed.splitlines() if line.startswith(wanted))


class Running:
    """A subject that runs."""

    def __init__(self, subject: Subject, fleet: Fleet, port: int, workers: int) -> None:
        self.subject = subject
        self.fleet = fleet
        self.port = port
        self.workers = workers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def wait_for_first_answer(self) -> None:
        """Ask until there is an answer. Raises DidNotStartError."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline_s and self.fleet.is_running:
            if ask(self.port):
                return
            time.sleep(PAUSE_S)
        raise DidNotStartError(" / ".join(self.fleet.lines[-3:]) or "no answer, and no word")

    def wait_until_up(self) -> None:
        """Wait until every worker has been through its application's start-up. Raises DidNotStartError."""
        self.wait_for_first_answer()
        try:
            self.fleet.wait_for_all(r"up pid \d+", self.workers, START_LIMIT_S)
        except AssertionError as error:
            raise DidNotStartError(str(error).splitlines()[0]) from error

    def worker_pids(self) -> list[int]:
        """The workers that live now, oldest first."""
        alive = {member.pid for member in self.fleet.members()}
        said = dict.fromkeys(int(match[1]) for match in self.fleet.find_all(r"up pid (\d+)"))
        return [pid for pid in said if pid in alive]


@contextlib.contextmanager
def running(
    subject: Subject, app: str = "trivial", workers: int = 2, *, env: dict[str, str | None] | None = None
) -> Iterator[Running]:
    """A subject, started and not waited for. Raises DidNotStartError for one that is not installed."""
    port = free_port()
    command = subject.command(app, port, workers)
    if not Path(command[0]).exists():
        raise DidNotStartError(f"{command[0]} is not there")
    with Fleet(
        command, env={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **(env or {})}, cwd=ROOT
    ) as fleet:
        try:
            yield Running(subject, fleet, port, workers)
        finally:
            LOGS.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "-", f"{subject.name} {app} {workers}")
            (LOGS / f"{name}-{port}.log").write_text(fleet.output)


def ask(port: int, timeout_s: float = PROBE_LIMIT_S) -> int:
    """One request on a fresh connection: the pid that answered, 0 where nobody did."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: benchmark\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
    except OSError:
        return 0
    found = re.search(rb"pid (\d+)", answer)
    return int(found[1]) if found else 0
