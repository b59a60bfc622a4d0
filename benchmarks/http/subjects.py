"""Whose requests are measured: prefork and its peers, each started with the same application, its own way.

Rules:

1. A peer is given what makes it fast: uvloop, httptools, no access log, as many workers as we have; and what lets it take
   all connections and keep them. Its other defaults stay.
2. What cannot be installed, built or started is reported with its last words; nothing is dropped in silence.

Not here: how they are started and watched (running.py), their environment (run/peers.py), load (load.py), what is compared (scenarios.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.http.fasthttp import GO_PROGRAM
from benchmarks.run.peers import PEERS
from benchmarks.run.places import APPS
from benchmarks.run.tools import program

MANY_CONNECTIONS: Final = 10_000


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
    """Its first word is a path, and who is not installed has none there."""
    env: Callable[[Launch], dict[str, str]] = lambda _launch: {}
    is_ours: bool = False


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


def _gunicorn(worker: str, *extra: str, suffix: str = "") -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = ["-k", worker, *extra, "-w", str(launch.workers), "--keep-alive", "75"]
        words += ["-b", f"127.0.0.1:{launch.port}", "--worker-connections", str(MANY_CONNECTIONS)]
        if launch.tls:
            words += ["--certfile", launch.tls.cert_file, "--keyfile", launch.tls.key_file]
        return [str(PEERS / "bin" / "gunicorn"), *words, launch.app + suffix]

    return command


def _socketify(suffix: str = "") -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = ["-m", "socketify", launch.app + suffix, "-p", str(launch.port), "-w", str(launch.workers)]
        if launch.tls:
            words += ["--ssl-certfile", launch.tls.cert_file, "--ssl-keyfile", launch.tls.key_file]
        return [str(PEERS / "bin" / "python"), *words]

    return command


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
    return [
        program("nginx") or "/usr/sbin/nginx",
        "-p",
        str(launch.directory),
        "-c",
        str(path),
        "-e",
        "stderr",
    ]


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
GRANIAN_RSGI: Final = Subject("granian RSGI", _granian("rsgi", "_rsgi"))
GUNICORN: Final = Subject("gunicorn ASGI", _gunicorn("asgi", "--asgi-loop", "uvloop"))
GUNICORN_SYNC: Final = Subject("gunicorn sync", _gunicorn("sync", suffix="_wsgi"))
GUNICORN_GTHREAD: Final = Subject("gunicorn gthread", _gunicorn("gthread", "--threads", "4", suffix="_wsgi"))
FASTPYSGI: Final = Subject("fastpysgi ASGI", _fastpysgi())
FASTPYSGI_WSGI: Final = Subject("fastpysgi WSGI", _fastpysgi("_wsgi"))
SOCKETIFY: Final = Subject("socketify ASGI", _socketify())
SOCKETIFY_WSGI: Final = Subject("socketify WSGI", _socketify("_wsgi"))
