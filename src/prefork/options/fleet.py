"""How a fleet is run: what a program gives to `Prefork(...)`, of which this is the base."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Final

from prefork.cpus import usable_cpus
from prefork.errors import ConfigError
from prefork.options import rules
from prefork.options.declaring import about, check_each
from prefork.options.spelling import span_of

NETWORKS: Final = ("tcp", "tcp4", "tcp6", "unix")
START_METHODS: Final = ("fork", "exec")
CLIENT_CERTS: Final = ("required", "optional")


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
            must=rules.WORKERS,
        ),
    )
    network: str | None = field(
        default="tcp4",
        metadata=about(
            "Network of addresses: tcp, tcp4, tcp6 or unix; None goes by the address alone.",
            must=rules.if_given(rules.choice(NETWORKS, "tcp, tcp4, tcp6 or unix")),
        ),
    )
    reuseport: bool = field(
        default=False,
        metadata=about(
            "One listening socket for each worker (SO_REUSEPORT), owned by the master.", "--reuseport"
        ),
    )
    backlog: int = field(
        default=2048,
        metadata=about(
            "Connections that may wait in the queue of a listening socket.", "--backlog", must=rules.whole(1)
        ),
    )
    unix_mode: int | None = field(
        default=None,
        metadata=about(
            "Permissions of a Unix socket, in octal (660).", "--unix-mode", octal=True, must=rules.PERMISSIONS
        ),
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
            must=rules.choice(CLIENT_CERTS, "required or optional"),
        ),
    )
    start_method: str | None = field(
        default=None,
        metadata=about(
            'How workers are made: "fork" from a zygote that has loaded the application (default on Linux), or '
            '"exec", the program run again for each.',
            "--start-method",
            choices=START_METHODS,
            must=rules.if_given(rules.choice(START_METHODS, '"fork" or "exec"')),
        ),
    )
    recover_threshold: float | None = field(
        default=None,
        metadata=about(
            "Crashes within the window that are recovered from; one more ends the master. "
            "Default: half the workers in a program (seed), 10 for each worker in the command.",
            "--recover-threshold",
            must=rules.if_given(rules.COUNT),
        ),
    )
    recover_window_s: float = field(
        default=60.0,
        metadata=about(
            "The sliding window in which crashes are counted, in seconds.",
            "--recover-window",
            must=rules.SECONDS,
        ),
    )
    recover_interval_s: float = field(
        default=0.1,
        metadata=about(
            "Wait before a worker that crashed at its start is replaced, in seconds; doubles while it goes on.",
            "--recover-interval",
            must=rules.SECONDS,
        ),
    )
    boot_timeout_s: float = field(
        default=60.0,
        metadata=about(
            "Time a worker, or the load of the application, has to be ready, in seconds.",
            "--boot-timeout",
            must=rules.SOME_SECONDS,
        ),
    )
    shutdown_grace_period_s: float = field(
        default=30.0,
        metadata=about(
            "Time a worker has to finish what is open when it is told to stop, in seconds.",
            "--grace-period",
            must=rules.SECONDS,
        ),
    )
    hang_timeout_s: float = field(
        default=30.0,
        metadata=about(
            "Seconds that a worker's event loop may be blocked; then its stacks and its requests are logged, and it is "
            "killed and replaced; inf: never. With prefork's own server.",
            "--hang-timeout",
            must=rules.SOME_SECONDS,
        ),
    )
    refuse_after_kills: int = field(
        default=0,
        metadata=about(
            "Workers that a request may crash, or hang, in a row; then it is answered with 503 for an hour, or until a "
            "reload; 0: any number. With prefork's own server.",
            "--refuse-after-kills",
            must=rules.whole(0),
        ),
    )
    max_requests: int = field(
        default=0,
        metadata=about(
            "Requests after which a worker is recycled; 0: never. Counted by prefork's own server, and by one that "
            "looks at `listener.wear`.",
            "--max-requests",
            must=rules.whole(0),
        ),
    )
    max_age_s: float = field(
        default=math.inf,
        metadata=about(
            "Age at which a worker is recycled, in seconds.", "--max-age", must=rules.SOME_SECONDS
        ),
    )
    recycle_jitter: float = field(
        default=0.2,
        metadata=about(
            "Share by which the bounds of age and requests are shortened at random for each worker, at most.",
            "--recycle-jitter",
            must=rules.JITTER,
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
            must=rules.BYTES,
        ),
    )
    max_fleet_memory: str | None = field(
        default=None,
        metadata=about(
            "Memory (PSS) of all processes together above which the largest worker is recycled: 2G, or 85% of what the "
            "control group (or the machine) allows. The master then looks every 5 s, also at an idle fleet.",
            "--max-fleet-memory",
            metavar="SIZE",
            must=rules.FLEET_MEMORY,
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
            must=rules.DIRECTORIES,
        ),
    )
    reload_include: tuple[str, ...] = field(
        default=("*.py",),
        metadata=about(
            "Files to watch for --reload: a name (*.py), or a path below the directory (templates/*.html). May be repeated.",
            "--reload-include",
            metavar="GLOB",
            must=rules.TEXTS,
        ),
    )
    reload_exclude: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Files and folders not to watch for --reload. Hidden folders, caches and virtual environments never are. "
            "May be repeated.",
            "--reload-exclude",
            metavar="GLOB",
            must=rules.TEXTS,
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
            must=rules.TEXTS,
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
        check_each(FleetOptions, self)
        if sys.platform != "linux":
            if self.start_method == "fork":
                raise ConfigError('start_method "fork" needs Linux (subreaper, pidfds): use "exec"')
            if self.max_memory_bytes is not None or self.max_fleet_memory is not None:
                raise ConfigError(
                    "bounds of memory need Linux (procfs): leave max_memory and max_fleet_memory out"
                )

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
