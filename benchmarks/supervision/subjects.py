"""What is measured: prefork and its peers, each started in the same way with the same application.

A peer that cannot be installed or does not start is reported as such, never left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.run.peers import PEERS
from benchmarks.run.places import APPS, LOGS, ROOT
from tests.process.harness import Fleet, free_port

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


def _uvicorn(*extra: str) -> Command:
    def command(app: str, port: int, workers: int) -> list[str]:
        words = ["--app-dir", str(APPS), "--port", str(port), "--workers", str(workers), "--no-access-log"]
        return [str(PEERS / "bin" / "uvicorn"), f"{app}:app", *words, *extra]

    return command


def _hypercorn(*extra: str) -> Command:
    def command(app: str, port: int, workers: int) -> list[str]:
        # Its application is a file or a module that can be imported: APPS is on the path of all subjects.
        words = ["-k", "uvloop", "-w", str(workers), "-b", f"127.0.0.1:{port}", "--keep-alive", "75"]
        return [str(PEERS / "bin" / "hypercorn"), *words, *extra, f"{app}:app"]

    return command


def _granian(*extra: str) -> Command:
    def command(app: str, port: int, workers: int) -> list[str]:
        words = ["--interface", "asgi", "--port", str(port), "--workers", str(workers), "--no-access-log"]
        return [str(PEERS / "bin" / "granian"), *words, *extra, f"{app}:app"]

    return command


RECYCLED_AFTER = 500
"""Requests, where recycling is measured."""

SHARED = Subject("prefork", _prefork(), is_ours=True)
REUSEPORT = Subject("prefork --reuseport", _prefork("--reuseport"), is_ours=True)
RECYCLING = Subject("prefork", _prefork("--max-requests", str(RECYCLED_AFTER)), is_ours=True)
GUNICORN = Subject("gunicorn (asgi)", _gunicorn())
GUNICORN_REUSEPORT = Subject("gunicorn (asgi) --reuse-port", _gunicorn("--reuse-port"))
GUNICORN_PRELOAD = Subject("gunicorn (asgi) --preload", _gunicorn("--preload"))
GUNICORN_RECYCLING = Subject("gunicorn (asgi)", _gunicorn("--max-requests", str(RECYCLED_AFTER)))
UVICORN = Subject("uvicorn", _uvicorn())
UVICORN_RECYCLING = Subject("uvicorn", _uvicorn("--limit-max-requests", str(RECYCLED_AFTER)))
HYPERCORN = Subject("hypercorn", _hypercorn())
HYPERCORN_RECYCLING = Subject("hypercorn", _hypercorn("--max-requests", str(RECYCLED_AFTER)))
GRANIAN = Subject("granian", _granian())


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
        said = " / ".join(self.fleet.lines[-3:]) or "no word"
        still = f"no answer within {START_LIMIT_S:g} s, and at last: " if self.fleet.is_running else ""
        raise DidNotStartError(still + said)

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
        raise DidNotStartError(f"not installed: {Path(command[0]).name}")
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH", "")]))
    with Fleet(command, env={"PYTHONPATH": path, **(env or {})}, cwd=ROOT) as fleet:
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
