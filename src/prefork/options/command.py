"""What the command has on top of a fleet's options: the application, its addresses, its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from prefork.options.declaring import about

INTERFACES: Final = ("auto", "asgi", "wsgi")
SERVERS: Final = ("prefork", "uvicorn", "hypercorn", "waitress", "aiohttp")
LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(kw_only=True)
class CommandOptions:
    """What the command `prefork MODULE:ATTR` has on top of `FleetOptions`."""

    application: str | None = field(
        default=None,
        metadata=about("The ASGI or WSGI application to serve.", name="application", metavar="MODULE:ATTR"),
    )
    chdir: str | None = field(
        default=None,
        metadata=about("Change to this directory first of all.", "--chdir", metavar="DIRECTORY"),
    )
    umask: int | None = field(
        default=None,
        metadata=about("Mask of permissions for what is created, in octal (027).", "--umask", octal=True),
    )
    bind: tuple[str, ...] = field(
        default=("127.0.0.1:8000",),
        metadata=about(
            "Address to listen on: HOST:PORT, :PORT, [V6]:PORT, unix:PATH or fd://N. May be repeated.",
            "--bind",
        ),
    )
    interface: str = field(
        default="auto",
        metadata=about("What the application speaks; auto finds out.", "--interface", choices=INTERFACES),
    )
    server: str = field(
        default="prefork",
        metadata=about(
            "The server that runs the application in a worker: our own, or another.",
            "--server",
            choices=SERVERS,
        ),
    )
    certfile: str | None = field(
        default=None, metadata=about("TLS certificate, PEM, with its chain.", "--certfile", metavar="FILE")
    )
    keyfile: str | None = field(
        default=None, metadata=about("TLS private key, PEM, not encrypted.", "--keyfile", metavar="FILE")
    )
    log_level: str = field(
        default="info",
        metadata=about(
            "Least important messages to log.",
            "--log-level",
            choices=LOG_LEVELS,
        ),
    )
    log_format: str = field(
        default="text",
        metadata=about(
            "text for people, or json: one object a line, with time, level, process, slot, pid, generation, message and "
            "exception.",
            "--log-format",
            choices=LOG_FORMATS,
        ),
    )
    log_file: str | None = field(
        default=None,
        metadata=about(
            "Log to this file in place of standard error; USR1 opens it again.", "--log-file", metavar="FILE"
        ),
    )
    app_dir: str = field(
        default=".",
        metadata=about("Directory to import the application from.", "--app-dir", metavar="DIRECTORY"),
    )
    factory: bool = field(
        default=False,
        metadata=about("MODULE:ATTR is a function that makes the application.", "--factory"),
    )
