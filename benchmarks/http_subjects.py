"""Whose requests are measured: prefork and its peers, each started with the same application, its own way.

Rules:

1. A peer is given what makes it fast: uvloop, httptools, no access log, as many workers as we have; and what lets it take
   all connections and keep them. Its other defaults stay.
2. The Python peers live in an environment of their own, `build/peers-X.Y`, made at the first run with the Python that
   runs the benchmark and, where both sides use a library, with our version of it.
3. What cannot be installed, built or started is reported with its last words; nothing is dropped in silence.

Not here: load (http_load.py), what is compared (http_scenarios.py).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.subjects import APPS, LOGS, ROOT
from tests.process import procfs
from tests.process.harness import Fleet, free_port

PEERS: Final = ROOT / "build" / f"peers-{sys.version_info.major}.{sys.version_info.minor}"
GO_PROGRAM: Final = ROOT / "build" / "fasthttp-serve"
GO_SOURCE: Final = ROOT / "benchmarks" / "go" / "main.go"
GO_PATH: Final = Path("/usr/share/gocode")
"""Where Debian's golang-github-valyala-fasthttp-dev lies."""
REQUIREMENTS: Final = (
    "uvicorn[standard]>=0.30",
    "granian>=2",
    "hypercorn>=0.17",
    "gunicorn[fast]>=25",
    "fastapi",
    "uvloop",
    "fastpysgi",
)
SAME_AS_OURS: Final = ("fastapi", "starlette", "pydantic", "uvloop", "httptools", "websockets")
"""What both sides run on, and would otherwise be compared through."""
START_LIMIT_S: Final = 30.0
INSTALL_LIMIT_S: Final = 600.0
SETTLE_S: Final = 0.3
"""From the first answer to the load: the other workers come up. What is still to do falls into the warm-up."""
MANY_CONNECTIONS: Final = 10_000
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate and its key, as PEM files."""

    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How a subject is to be started. `app` is "module:attribute" in benchmarks/apps."""

    app: str
    port: int
    workers: int
    tls: Material | None
    directory: Path

    @property
    def attribute(self) -> str:
        return self.app.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under a name. `command(launch)` is its command line; `env` is laid over the environment."""

    name: str
    command: Callable[[Launch], list[str]]
    env: Callable[[Launch], dict[str, str]] = lambda _launch: {}
    is_ours: bool = False


class DidNotStartError(Exception):
    """A subject that never answered; its last words are the message."""


def _prefork(*extra: str, suffix: str = "") -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = [launch.app + suffix, "--app-dir", str(APPS), "--bind", f"127.0.0.1:{launch.port}"]
        words += ["--server", "prefork", "--workers", str(launch.workers), *extra]
        if launch.tls:
            words += ["--certfile", launch.tls.cert_file, "--keyfile", launch.tls.key_file]
        return [sys.executable, "-m", "prefork", *words]

    return command


def _alone(launch: Launch) -> list[str]:
    return [sys.executable, str(APPS / "alone.py"), f"127.0.0.1:{launch.port}", launch.attribute]


def _uvicorn(launch: Launch) -> list[str]:
    words = ["--port", str(launch.port), "--workers", str(launch.workers)]
    words += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--timeout-keep-alive", "75"]
    if launch.tls:
        words += ["--ssl-certfile", launch.tls.cert_file, "--ssl-keyfile", launch.tls.key_file]
    return [str(PEERS / "bin" / "uvicorn"), launch.app, *words]


def _granian(interface: str, suffix: str = "") -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = ["--interface", interface, "--port", str(launch.port), "--workers", str(launch.workers)]
        if launch.tls:
            words += ["--ssl-certificate", launch.tls.cert_file, "--ssl-keyfile", launch.tls.key_file]
        words += ["--backpressure", str(MANY_CONNECTIONS), "--no-access-log"]
        return [str(PEERS / "bin" / "granian"), *words, launch.app + suffix]

    return command


def _hypercorn(launch: Launch) -> list[str]:
    words = [
        "-k",
        "uvloop",
        "-w",
        str(launch.workers),
        "-b",
        f"127.0.0.1:{launch.port}",
        "--keep-alive",
        "75",
    ]
    if launch.tls:
        words += ["--certfile", launch.tls.cert_file, "--keyfile", launch.tls.key_file]
    return [str(PEERS / "bin" / "hypercorn"), *words, launch.app]


def _gunicorn(launch: Launch) -> list[str]:
    words = ["-k", "asgi", "--asgi-loop", "uvloop", "-w", str(launch.workers), "--keep-alive", "75"]
    words += ["-b", f"127.0.0.1:{launch.port}", "--worker-connections", str(MANY_CONNECTIONS)]
    if launch.tls:
        words += ["--certfile", launch.tls.cert_file, "--keyfile", launch.tls.key_file]
    return [str(PEERS / "bin" / "gunicorn"), *words, launch.app]


def _fastpysgi(suffix: str = "") -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = [launch.attribute + suffix, str(launch.port), str(launch.workers)]
        if launch.tls:
            words += [launch.tls.cert_file, launch.tls.key_file]
        return [str(PEERS / "bin" / "python"), str(APPS / "fastpysgi_program.py"), *words]

    return command


def _go(*extra: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        return [str(GO_PROGRAM), "-addr", f"127.0.0.1:{launch.port}", *extra]

    return command


def _go_children(launch: Launch) -> dict[str, str]:
    return {"GOMAXPROCS": str(launch.workers)}


_NGINX = """
daemon off;
worker_processes {workers};
pid {directory}/nginx-{port}.pid;
error_log stderr crit;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    default_type text/plain;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{ return 200 "Hello, World!"; }}
    }}
}}
"""


def _nginx(launch: Launch) -> list[str]:
    path = launch.directory / f"nginx-{launch.port}.conf"
    path.write_text(
        _NGINX.format(
            workers=launch.workers,
            connections=MANY_CONNECTIONS,
            directory=launch.directory,
            port=launch.port,
        ),
        encoding="ascii",
    )
    return ["/usr/sbin/nginx", "-p", str(launch.directory), "-c", str(path), "-e", "stderr"]


ASGI: Final = Subject("prefork ASGI", _prefork(), is_ours=True)
WSGI: Final = Subject(
    "prefork WSGI", _prefork("--interface", "wsgi", "--threads", "1", suffix="_wsgi"), is_ours=True
)
ALONE: Final = Subject("prefork, one process", _alone, is_ours=True)
GO: Final = Subject("Go fasthttp prefork", _go(), _go_children)
GO_REUSEPORT: Final = Subject("Go fasthttp prefork, reuseport", _go("-reuseport"), _go_children)
GO_SLEEPING: Final = Subject("Go fasthttp prefork", _go("-sleep-ms", "100"), _go_children)
GO_ALONE: Final = Subject("Go fasthttp, one process", _go("-alone"), _go_children)
GO_ALONE_SLEEPING: Final = Subject(
    "Go fasthttp, one process", _go("-alone", "-sleep-ms", "100"), _go_children
)
NGINX: Final = Subject("nginx return 200", _nginx)
UVICORN: Final = Subject("uvicorn", _uvicorn)
GRANIAN: Final = Subject("granian ASGI", _granian("asgi"))
GRANIAN_WSGI: Final = Subject("granian WSGI", _granian("wsgi", "_wsgi"))
HYPERCORN: Final = Subject("hypercorn", _hypercorn)
GUNICORN: Final = Subject("gunicorn ASGI", _gunicorn)
FASTPYSGI: Final = Subject("fastpysgi ASGI", _fastpysgi())
FASTPYSGI_WSGI: Final = Subject("fastpysgi WSGI", _fastpysgi("_wsgi"))


# ------------------------------------------------------------------------------------ before the first run


def install_peers() -> list[str]:
    """Make the peers' environment unless it is as wanted: what is in it, and what is missing and why."""
    pip = [str(PEERS / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    stamp, limits = PEERS / "requirements.txt", PEERS / "constraints.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    constraints = "".join(_pins(SAME_AS_OURS))
    said = []
    try:
        if not stamp.exists() or stamp.read_text() != wanted or limits.read_text() != constraints:
            venv.create(PEERS, with_pip=True, clear=True)
            limits.write_text(constraints)
            said = _install([*pip, "install", "--quiet", "--constraint", str(limits)])
            stamp.write_text(wanted)
        listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"peers cannot be installed: {error}"]
    names = tuple(re.split(r"\W", requirement)[0] for requirement in REQUIREMENTS) + SAME_AS_OURS
    shown = [line.replace("==", " ") for line in listed.stdout.splitlines() if line.lower().startswith(names)]
    return [", ".join(shown), *said]


def _pins(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name}=={importlib.metadata.version(name)}\n"


def _install(pip_install: Sequence[str]) -> list[str]:
    """One by one, so that one peer without a build for this Python does not take the others along."""
    said = []
    for requirement in REQUIREMENTS:
        done = subprocess.run(
            [*pip_install, requirement], check=False, capture_output=True, text=True, timeout=INSTALL_LIMIT_S
        )
        if done.returncode:
            last = (done.stderr.strip() or "no word").splitlines()[-1]
            said.append(f"{requirement} cannot be installed: {last}")
    return said


def build_go() -> str:
    """Build the Go program unless it is newer than its source: its version, or why there is none."""
    try:
        if not GO_PROGRAM.exists() or GO_PROGRAM.stat().st_mtime < GO_SOURCE.stat().st_mtime:
            GO_PROGRAM.parent.mkdir(exist_ok=True)
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
            subprocess.run(
                ["go", "build", "-o", str(GO_PROGRAM), str(GO_SOURCE)],  # noqa: S607  (found on the PATH)
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                timeout=INSTALL_LIMIT_S,
            )
        version = subprocess.run(
            ["go", "version", str(GO_PROGRAM)],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except OSError as error:
        return f"Go cannot be run: {error}"
    except subprocess.CalledProcessError as error:
        return f"fasthttp cannot be built: {str(error.stderr).strip()}"
    return f"fasthttp of {GO_PATH} built by {version.rpartition(' ')[2].strip()}"


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


# ------------------------------------------------------------------------------------ while it runs


class Running:
    """A subject that runs, and what it has cost until now."""

    def __init__(self, subject: Subject, fleet: Fleet, launch: Launch) -> None:
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
        raise DidNotStartError(" / ".join(self.fleet.lines[-1:]) or "no answer, and no word")

    def _answers(self) -> bool:
        try:
            with contextlib.ExitStack() as stack:
                plain = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), START_LIMIT_S))
                client = stack.enter_context(_client_context().wrap_socket(plain)) if self.is_tls else plain
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return client.recv(8).startswith(b"HTTP/1.1")
        except OSError:
            return False

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
    subject: Subject, app: str, workers: int, directory: Path, tls: Material | None = None
) -> Iterator[Running]:
    """A subject, started and not waited for. Raises DidNotStartError for one that is not installed."""
    launch = Launch(app, free_port(), workers, tls, directory)
    command = subject.command(launch)
    if not Path(command[0]).exists():
        raise DidNotStartError(f"not installed: {Path(command[0]).name}")
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH", "")]))
    with Fleet(command, env={"PYTHONPATH": path, **subject.env(launch)}, cwd=ROOT) as fleet:
        try:
            yield Running(subject, fleet, launch)
        finally:
            LOGS.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "-", f"{subject.name} {app}")
            (LOGS / f"http-{name}.log").write_text(fleet.output)
