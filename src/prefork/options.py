"""Every option, declared once: its name, type, default, meaning, and its name on the command line.

`FleetOptions` is what a program gives to `Prefork(...)`, of which it is the base; `CommandOptions` is what the command
has on top. The command line, the environment, the file, `--print-config` and docs/options.md are made from these
declarations (`cli/declared.py`), and nothing restates them.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from prefork.cpus import usable_cpus
from prefork.errors import ConfigError

NETWORKS = ("tcp", "tcp4", "tcp6", "unix")
START_METHODS = ("fork", "exec")
CLIENT_CERTS = ("required", "optional")
INTERFACES = ("auto", "asgi", "wsgi")
SERVERS = ("prefork", "uvicorn", "hypercorn", "waitress", "aiohttp")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
MOST_JITTER = 0.9
_TEXTS = "tuple[str, ...]"
_SPAN = re.compile(r"(\d+):(\d+)", re.ASCII)
_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGTkmgt]?)(i?[Bb])?")


def about(text: str, flag: str = "", **extra: Any) -> dict[str, Any]:
    """An option's metadata: its meaning, and its name on the command line ("" for none).

    The name without its dashes is the option's name in a file, and in capitals its name in the environment.

    extra: `choices`, the values it may have; `metavar`, what the help calls the value; `octal`, permissions; `size`, bytes
    that may be written 512M; `span`, a number or two of them (2:8); `off`, a second flag that gives it an empty value; `name`, where there is no flag.
    """
    return {"help": text, "flag": flag, **extra}


@dataclass(kw_only=True)
class FleetOptions:
    """How a fleet is run. Times in seconds. Checked by `check`, in the master, before anything is opened."""

    workers: int | str | None = field(
        default=None,
        metadata=about(
            "Workers to run; default: the CPUs this process may use (affinity, cgroup quota). 2:8: from 2 to 8, as the "
            "load asks for; with prefork's own server.",
            "--workers",
            span=True,
            metavar="N or N:M",
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
    hang_timeout_s: float = field(
        default=30.0,
        metadata=about(
            "Seconds that a worker's event loop may be blocked; then its stacks and its requests are logged, and it is "
            "killed and replaced; inf: never. With prefork's own server.",
            "--hang-timeout",
        ),
    )
    refuse_after_kills: int = field(
        default=0,
        metadata=about(
            "Workers that a request may crash, or hang, in a row; then it is answered with 503 for an hour, or until a "
            "reload; 0: any number. With prefork's own server.",
            "--refuse-after-kills",
        ),
    )
    max_requests: int = field(
        default=0,
        metadata=about(
            "Requests after which a worker is recycled; 0: never. Counted by prefork's own server, and by one that "
            "looks at `listener.wear`.",
            "--max-requests",
        ),
    )
    max_age_s: float = field(
        default=math.inf,
        metadata=about("Age at which a worker is recycled, in seconds.", "--max-age"),
    )
    recycle_jitter: float = field(
        default=0.2,
        metadata=about(
            "Share by which the bounds of age and requests are shortened at random for each worker, at most.",
            "--recycle-jitter",
        ),
    )
    max_memory_bytes: int | None = field(
        default=None,
        metadata=about(
            "Memory (PSS: shared pages by share) above which a worker is recycled, such as 512M. The master then looks "
            "every 5 s, also at an idle fleet.",
            "--max-memory",
            size=True,
            metavar="SIZE",
        ),
    )
    max_fleet_memory: str | None = field(
        default=None,
        metadata=about(
            "Memory (PSS) of all processes together above which the largest worker is recycled: 2G, or 85% of what the "
            "control group (or the machine) allows. The master then looks every 5 s, also at an idle fleet.",
            "--max-fleet-memory",
            metavar="SIZE",
        ),
    )
    reload: bool = field(
        default=False,
        metadata=about(
            "For development: load the application anew when its code changes. Broken code is told, and the old serves on. "
            "Needs watchfiles (the extra `watch`).",
            "--reload",
        ),
    )
    reload_dirs: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Directory to watch for --reload; default: --app-dir (in a program, the working directory). May be repeated.",
            "--reload-dir",
            metavar="DIRECTORY",
        ),
    )
    reload_include: tuple[str, ...] = field(
        default=("*.py",),
        metadata=about(
            "Files to watch for --reload: a name (*.py), or a path below the directory (templates/*.html). May be repeated.",
            "--reload-include",
            metavar="GLOB",
        ),
    )
    reload_exclude: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Files and folders not to watch for --reload. Hidden folders, caches and virtual environments never are. "
            "May be repeated.",
            "--reload-exclude",
            metavar="GLOB",
        ),
    )
    user: str | int | None = field(
        default=None,
        metadata=about(
            "User, by name or number, that workers run as. The master keeps its rights: it owns the sockets.",
            "--user",
        ),
    )
    group: str | int | None = field(
        default=None,
        metadata=about("Group that workers run as; default with --user: that user's groups.", "--group"),
    )
    pidfile: str | None = field(
        default=None, metadata=about("Write the master's pid to this file.", "--pidfile", metavar="FILE")
    )
    control: str | None = field(
        default=None,
        metadata=about(
            "Unix socket on which preforkctl is answered; auto: in the run-time directory; empty: none. "
            "Default: auto in the command, none in a program.",
            "--control",
            metavar="PATH",
            off="--no-control",
        ),
    )
    admin: str | None = field(
        default=None,
        metadata=about(
            "Serve metrics, health and a dashboard here, by a process of its own: HOST:PORT or unix:PATH; a port alone is "
            "one of 127.0.0.1. Default: not at all.",
            "--admin",
            metavar="ADDRESS",
        ),
    )
    admin_host: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Name by which the admin process may be asked, besides addresses, localhost and this machine's name. May be "
            "repeated.",
            "--admin-host",
            metavar="NAME",
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
        for each in fields(FleetOptions):
            if each.type == _TEXTS:
                check_texts(each.name, getattr(self, each.name))
        if isinstance(self.workers, str) and ":" in self.workers:
            span_of(self.workers)
        elif self.workers is not None and (
            isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1
        ):
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
        for name in ("boot_timeout_s", "max_age_s", "hang_timeout_s"):
            if not _is_number(getattr(self, name), least=0) or getattr(self, name) == 0:
                raise ConfigError(f"{name} must be more than 0 seconds, not {getattr(self, name)!r}")
        for name in ("max_requests", "refuse_after_kills"):
            if not _is_whole(getattr(self, name)) or getattr(self, name) < 0:
                raise ConfigError(f"{name} must be a whole number from 0, not {getattr(self, name)!r}")
        if not _is_number(self.recycle_jitter, least=0) or self.recycle_jitter > MOST_JITTER:
            raise ConfigError(
                f"recycle_jitter must be a share from 0 to {MOST_JITTER}, not {self.recycle_jitter!r}"
            )
        if self.max_memory_bytes is not None and not (
            _is_whole(self.max_memory_bytes) and self.max_memory_bytes > 0
        ):
            raise ConfigError(f"max_memory_bytes must be a number above 0, not {self.max_memory_bytes!r}")
        if sys.platform != "linux" and (
            self.max_memory_bytes is not None or self.max_fleet_memory is not None
        ):
            raise ConfigError(
                "bounds of memory need Linux (procfs): leave max_memory and max_fleet_memory out"
            )
        if self.max_fleet_memory is not None:
            share_or_bytes(self.max_fleet_memory)

    def worker_count(self) -> int:
        """How many workers there are to be at first: as asked, or the CPUs this process may use."""
        return self.worker_span()[0]

    def worker_span(self) -> tuple[int, int]:
        """How few and how many workers there may be. Raises ConfigError."""
        if isinstance(self.workers, str):
            return span_of(self.workers)
        count = self.workers if self.workers is not None else usable_cpus()
        return count, count

    def threshold(self) -> float:
        """The recover threshold: as asked, or the seed's half of the workers, at least 1."""
        return (
            self.recover_threshold
            if self.recover_threshold is not None
            else max(1, self.worker_span()[1] // 2)
        )


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


def check_texts(name: str, values: object) -> None:
    """Raise ConfigError unless an option that takes several texts has been given several, or none; directories may be paths."""
    if isinstance(values, (str, bytes, os.PathLike)):
        raise ConfigError(f"{name} takes several: give it as [{values!r}]")
    if not isinstance(values, Collection):
        raise ConfigError(f"{name} takes several texts, such as a list of them, not {values!r}")
    for value in values:
        if not isinstance(value, (str, os.PathLike) if name.endswith("_dirs") else str):
            raise ConfigError(f"{name} takes texts, and {value!r} is none")


def span_of(text: str) -> tuple[int, int]:
    """How few and how many, as people write it: "2:8". Raises ConfigError."""
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        least, most = int(found[1]), int(found[2])
        if 1 <= least <= most:
            return least, most
    raise ConfigError(f"workers must be a whole number from 1, or two such as 2:8, not {text!r}")


def bytes_of(text: str) -> int:
    """Bytes, as people write them: "512M", "1.5G", "65536"; units of 1024. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no size: write bytes, or 64K, 512M, 1.5G")
    return int(float(found["number"]) * 1024 ** " KMGT".index((found["unit"] or " ").upper()))


def share_or_bytes(text: str) -> tuple[float | None, int | None]:
    """As a share of what there is, or as bytes: "85%" is (0.85, None), "2G" is (None, 2 GiB). Raises ConfigError."""
    if not isinstance(text, str):
        raise ConfigError(f"max_fleet_memory must be a text, such as 2G or 85%, not {text!r}")
    if not text.endswith("%"):
        size = bytes_of(text)
        if size < 1:
            raise ConfigError(f"max_fleet_memory must be above 0, not {text!r}")
        return None, size
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ConfigError(f"{text!r} is no share of memory: write 1% to 100%")
    return share, None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object, *, least: float) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and not math.isnan(value)
        and value >= least
    )
