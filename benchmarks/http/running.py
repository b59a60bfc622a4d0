"""A subject while it runs: started, waited for, its processes and what they cost.

Not here: what its command is (subjects.py), load (load.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.http.subjects import Launch, Material, Subject
from benchmarks.run.places import APPS, LOGS, ROOT
from tests.process import procfs
from tests.process.harness import Fleet, free_port

START_LIMIT_S: Final = 30.0
SETTLE_S: Final = 0.3
"""From the first answer to the load: the other workers come up. What is still to do falls into the warm-up."""
_PAUSE_S: Final = 0.02


class DidNotStartError(Exception):
    """A subject that never answered; its last words are the message."""


def certificate(directory: Path) -> Material:
    """A self-signed certificate for 127.0.0.1 with a P-256 key. Raises CalledProcessError without openssl."""
    made = Material(str(directory / "cert.pem"), str(directory / "key.pem"))
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-out", made.cert_file, "-keyout", made.key_file),
        ],
        check=True,
        capture_output=True,
    )
    return made


@dataclass(frozen=True, slots=True)
class Halves:
    """The CPUs of this machine in two halves, as taskset(1) wants them: servers' and the load generator's."""

    servers: str
    load: str
    server_count: int
    load_count: int

    @classmethod
    def of_this_machine(cls) -> Halves:
        """Raises DidNotStartError where there is one CPU alone."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise DidNotStartError("needs two CPUs, one for the load")
        middle = len(cpus) // 2
        ours, theirs = cpus[:middle], cpus[middle:]
        return cls(",".join(map(str, ours)), ",".join(map(str, theirs)), len(ours), len(theirs))


class Running:
    """A subject that runs, and what it has cost until now. `halves`: load is kept off its CPUs."""

    def __init__(self, subject: Subject, fleet: Fleet, launch: Launch, halves: Halves | None = None) -> None:
        self.halves = halves
        self.subject = subject
        self.fleet = fleet
        self.port = launch.port
        self.is_tls = launch.tls is not None

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}/"

    def wait_for_answer(self) -> None:
        """Ask until there is an answer. Raises DidNotStartError."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline_s and self.fleet.is_running:
            if self._answers():
                return
            time.sleep(_PAUSE_S)
        # A usage error says why on its last line; a traceback too.
        said = " / ".join(self.fleet.lines[-1:]) or "no word"
        still = f"no answer within {START_LIMIT_S:g} s, and at last: " if self.fleet.is_running else ""
        raise DidNotStartError(still + said)

    def _answers(self) -> bool:
        try:
            with contextlib.ExitStack() as stack:
                plain = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), START_LIMIT_S))
                client = stack.enter_context(_client_context().wrap_socket(plain)) if self.is_tls else plain
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return client.recv(8).startswith(b"HTTP/1.1")
        except OSError:
            return False

    def pss_bytes(self) -> int:
        """Memory of all its processes, shared pages counted once. Raises OSError where that cannot be read."""
        return sum(procfs.pss_bytes(pid) for pid in self.processes())

    def processes(self) -> list[int]:
        """The pids of the whole family, the master's first."""
        return [self.fleet.pid, *procfs.descendants(self.fleet.pid)]


def settle() -> None:
    """Let the workers behind the first come up."""
    time.sleep(SETTLE_S)


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def running(
    subject: Subject,
    app: str,
    workers: int,
    directory: Path,
    tls: Material | None = None,
    *,
    halves: Halves | None = None,
) -> Iterator[Running]:
    """A subject, started and not waited for. Raises DidNotStartError for one that is not installed."""
    launch = Launch(app, free_port(), workers, tls, directory)
    command = subject.command(launch)
    if not Path(command[0]).exists():
        raise DidNotStartError(f"not installed: {Path(command[0]).name}")
    if halves:
        command = ["taskset", "-c", halves.servers, *command]
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH", "")]))
    with Fleet(command, env={"PYTHONPATH": path, **subject.env(launch)}, cwd=ROOT) as fleet:
        try:
            yield Running(subject, fleet, launch, halves)
        finally:
            LOGS.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "-", f"{subject.name} {app}")
            (LOGS / f"http-{name}.log").write_text(fleet.output)
