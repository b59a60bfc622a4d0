"""Every option, declared once: its name, type, default, meaning, and its name on the command line.

`FleetOptions` is what a program gives to `Prefork(...)`, of which it is the base; `CommandOptions` is what the command
line has on top. The command line (`cli/flags.py`) is made from these declarations, and nothing restates them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any

from prefork.cpus import usable_cpus
from prefork.errors import ConfigError

NETWORKS = ("tcp", "tcp4", "tcp6", "unix")
START_METHODS = ("fork", "exec")
CLIENT_CERTS = ("required", "optional")
INTERFACES = ("auto", "asgi", "wsgi")
SERVERS = ("prefork", "uvicorn", "hypercorn", "waitress", "aiohttp")


def about(text: str, flag: str = "", **extra: Any) -> dict[str, Any]:
    """An option's metadata: its meaning, and its name on the command line ("" for none)."""
    return {"help": text, "flag": flag, **extra}


@dataclass(kw_only=True)
class FleetOptions:
    """How a fleet is run. Times in seconds. Checked by `check`, in the master, before anything is opened."""

    workers: int | None = field(
        default=None,
        metadata=about(
            "Workers to run; default: the CPUs this process may use (affinity, cgroup quota).", "--workers"
        ),
    )
    network: str | None = field(
        default="tcp4",
        metadata=about("Network of addresses: tcp, tcp4, tcp6 or unix; None goes by the address alone."),
    )
    reuseport: bool = field(
        default=False,
        metadata=about(
            "One listening socket for each worker (SO_REUSEPORT), owned by the master.", "--reuseport"
        ),
    )
    backlog: int = field(
        default=2048,
        metadata=about("Connections that may wait in the queue of a listening socket.", "--backlog"),
    )
    unix_mode: int | None = field(
        default=None,
        metadata=about("Permissions of a Unix socket, in octal (660).", "--unix-mode", octal=True),
    )
    unix_user: str | int | None = field(
        default=None, metadata=about("Owner of a Unix socket, by name or number.", "--unix-user")
    )
    unix_group: str | int | None = field(
        default=None, metadata=about("Group of a Unix socket, by name or number.", "--unix-group")
    )
    client_ca: str | None = field(
        default=None,
        metadata=about(
            "Over TLS, ask clients for a certificate that one of this file (PEM) has signed.",
            "--client-ca",
            metavar="FILE",
        ),
    )
    client_cert: str = field(
        default="required",
        metadata=about(
            "With --client-ca, whether a client must show a certificate.",
            "--client-cert",
            choices=CLIENT_CERTS,
        ),
    )
    start_method: str | None = field(
        default=None,
        metadata=about(
            'How workers are made: "fork" from a zygote that has loaded the application (default on Linux), or '
            '"exec", the program run again for each.',
            "--start-method",
            choices=START_METHODS,
        ),
    )
    recover_threshold: float | None = field(
        default=None,
        metadata=about(
            "Crashes within the window that are recovered from; one more ends the master. "
            "Default: half the workers in a program (seed), 10 for each worker in the command.",
            "--recover-threshold",
        ),
    )
    recover_window_s: float = field(
        default=60.0,
        metadata=about("The sliding window in which crashes are counted, in seconds.", "--recover-window"),
    )
    recover_interval_s: float = field(
        default=0.1,
        metadata=about(
            "Wait before a worker that crashed at its start is replaced, in seconds; doubles while it goes on.",
            "--recover-interval",
        ),
    )
    boot_timeout_s: float = field(
        default=60.0,
        metadata=about(
            "Time a worker, or the load of the application, has to be ready, in seconds.", "--boot-timeout"
        ),
    )
    shutdown_grace_period_s: float = field(
        default=30.0,
        metadata=about(
            "Time a worker has to finish what is open when it is told to stop, in seconds.", "--grace-period"
        ),
    )

    shared: str | None = field(
        default=None,
        metadata=about(
            "Where state that all workers see is kept (prefork.shared): lmdb://?size_mb=64 (in memory), lmdb:///PATH, "
            "redis://HOST:PORT/DB. Default: PREFORK_SHARED, else lmdb://. With ?keep=0 each reload begins empty.",
            "--shared",
            metavar="URL",
        ),
    )

    def check(self) -> None:
        """Raise ConfigError for the first option whose value cannot work."""
        if self.workers is not None and (not _is_whole(self.workers) or self.workers < 1):
            raise ConfigError(f"workers must be a whole number from 1, not {self.workers!r}")
        if self.network not in (None, *NETWORKS):
            raise ConfigError(f"network must be tcp, tcp4, tcp6 or unix, not {self.network!r}")
        if not _is_whole(self.backlog) or self.backlog < 1:
            raise ConfigError(f"backlog must be a whole number from 1, not {self.backlog!r}")
        if self.unix_mode is not None and not (_is_whole(self.unix_mode) and 0 <= self.unix_mode <= 0o777):
            raise ConfigError(f"unix_mode must be permission bits, such as 0o660, not {self.unix_mode!r}")
        if self.client_cert not in CLIENT_CERTS:
            raise ConfigError(f"client_cert must be required or optional, not {self.client_cert!r}")
        if self.start_method not in (None, *START_METHODS):
            raise ConfigError(f'start_method must be "fork" or "exec", not {self.start_method!r}')
        if self.start_method == "fork" and sys.platform != "linux":
            raise ConfigError('start_method "fork" needs Linux (subreaper, pidfds): use "exec"')
        if self.recover_threshold is not None and not _is_number(self.recover_threshold, least=0):
            raise ConfigError(f"recover_threshold must be 0 or more, not {self.recover_threshold!r}")
        for name, least in (
            ("recover_window_s", 0),
            ("recover_interval_s", 0),
            ("shutdown_grace_period_s", 0),
        ):
            if not _is_number(getattr(self, name), least=least):
                raise ConfigError(f"{name} must be {least} or more seconds, not {getattr(self, name)!r}")
        if not _is_number(self.boot_timeout_s, least=0) or self.boot_timeout_s == 0:
            raise ConfigError(f"boot_timeout_s must be more than 0 seconds, not {self.boot_timeout_s!r}")

    def worker_count(self) -> int:
        """How many workers there are to be: as asked, or the CPUs this process may use."""
        return self.workers if self.workers is not None else usable_cpus()

    def threshold(self) -> float:
        """The recover threshold: as asked, or the seed's half of the workers, at least 1."""
        return (
            self.recover_threshold if self.recover_threshold is not None else max(1, self.worker_count() // 2)
        )


@dataclass(kw_only=True)
class CommandOptions:
    """What the command `prefork MODULE:ATTR` has on top of `FleetOptions`."""

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
            choices=("debug", "info", "warning", "error", "critical"),
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


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object, *, least: float) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and not math.isnan(value)
        and value >= least
    )
