"""What a master opens before it has a process, and lets go of last: listeners, the admin process's, the control socket, the pidfile.

Each outlives every worker. What cannot be opened is one clear error, and whatever had been opened is closed again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prefork.channel import MOST_FDS, BeAdmin
from prefork.errors import ConfigError
from prefork.master.attendant import Attendance, attend
from prefork.master.controls import Controls
from prefork.master.pidfile import Pidfile
from prefork.master.upgrade import Inheritance
from prefork.net.address import Address
from prefork.net.listeners import ListenerSet, UnixOptions
from prefork.net.runfolder import new_path
from prefork.options import FleetOptions

MOST_ADDRESSES: Final = MOST_FDS - 1
"""A worker gets its listeners, and the scoreboard, with one message."""


@dataclass(frozen=True, slots=True)
class Premises:
    """Made by `open_premises`, closed when its `with` block ends."""

    listeners: ListenerSet
    attendance: Attendance | None
    controls: Controls | None
    pidfile: Pidfile | None
    predecessor_fd: int
    """Where to tell the master that we replace that we are ready; -1 if there is none."""

    def close(self) -> None:
        """Let go of the descriptors. For the copy in a forked zygote, which removes no file; may be called twice."""
        if self.controls is not None:
            self.controls.close()
        if self.attendance is not None:
            self.attendance.listeners.close()
        self.listeners.close()


@contextlib.contextmanager
def open_premises(
    options: FleetOptions,
    addresses: Sequence[Address],
    admin: Address | None,
    inheritance: Inheritance,
    warn: Callable[[str], object],
) -> Iterator[Premises]:
    """Open, or take over from the master before us, what `options` ask for. Raises ConfigError.

    With an old master before us nothing that bears a name is touched before we are ready (`succession`).
    """
    if len(addresses) > MOST_ADDRESSES:
        raise ConfigError(
            f"{len(addresses)} addresses are more than a worker can be given, which is {MOST_ADDRESSES}: "
            "serve them by several masters"
        )
    is_late = inheritance.ready_fd >= 0
    pidfile = None if options.pidfile is None else Pidfile(options.pidfile)
    with contextlib.ExitStack() as held:
        if pidfile is not None:
            held.callback(pidfile.remove)  # last: who waits for it finds the addresses free
        listeners = ListenerSet.open(
            addresses,
            reuseport=options.reuseport,
            slots=options.worker_count(),
            backlog=options.backlog,
            unix=UnixOptions(options.unix_mode, options.unix_user, options.unix_group),
            inherited=inheritance.listeners,
        )
        held.callback(listeners.close)
        for warning in listeners.warnings:
            warn(warning)
        message = BeAdmin(options.user, options.group, tuple(options.admin_host))
        attendance = attend(admin, message, inheritance.admin)
        if attendance is not None:
            held.callback(attendance.listeners.close)
        controls = _controls(options.control, inheritance.control, warn, is_late=is_late)
        if controls is None and attendance is not None:
            controls = Controls("")
        if controls is not None:
            held.callback(controls.close)
        if pidfile is not None and not is_late:
            pidfile.write()
        yield Premises(listeners, attendance, controls, pidfile, inheritance.ready_fd)


def _controls(
    asked: str | None, inherited: str, warn: Callable[[str], object], *, is_late: bool
) -> Controls | None:
    """The control socket, if there is to be one. With an old master before us it is opened when we are ready."""
    if not asked:
        return None
    path = asked
    try:
        if path == "auto":
            path = (is_late and inherited) or new_path(os.environ)
        controls = Controls(path)
        if not is_late:
            controls.open()
    except ConfigError as error:
        if asked != "auto":
            raise
        warn(f"no control socket, preforkctl cannot be answered: {error}")
        return None
    return controls
