"""The admin process, as the master holds it: made, heard, told to leave. What becomes of it is decided in `admin`.

It gets its listeners, which are opened once and outlive it like the fleet's, and one end of a connection to the control
desk, over which it may look and do nothing else. So what it shows comes from where `preforkctl status` gets it, and a master
whom nobody asks does nothing.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prefork import system
from prefork.channel import BeAdmin, BootFailed, Ready
from prefork.contracts import HasFileno
from prefork.errors import PreforkError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.controls import Controls
from prefork.master.deeds import Deeds
from prefork.master.household import FIRST, LAST, Household
from prefork.master.spawn import Kin, execute_helper
from prefork.net.address import Address
from prefork.net.listeners import ListenerSet

MODULE: Final = "prefork.observe.admin"
BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class Attendance:
    """What the admin process is given. The composition root chooses."""

    listeners: ListenerSet
    message: BeAdmin


def attend(
    address: Address | None, message: BeAdmin, inherited: Mapping[str, Sequence[int]]
) -> Attendance | None:
    """Open, or adopt, the listeners; None where there is to be no admin process. Raises AddressError.

    inherited: an old master's listeners, by address: those that are not wanted any more are closed.
    """
    if address is None:
        for fd in [fd for fds in inherited.values() for fd in fds]:
            os.close(fd)
        return None
    listeners = ListenerSet.open([address], reuseport=False, slots=1, backlog=BACKLOG, inherited=inherited)
    return Attendance(listeners, message)


class Attendant:
    """The master's hold on its admin process. Used by its loop only."""

    def __init__(
        self, household: Household, controls: Controls | None, attendance: Attendance | None
    ) -> None:
        self._household = household
        self._controls = controls
        self._attendance = attendance
        self._kin: Kin | None = None

    @property
    def pids(self) -> set[int]:
        """Its pid, while there is one."""
        return {self._kin.process.pid} if self._kin is not None and self._kin.process is not None else set()

    def deeds(self) -> Deeds:
        return {c.StartAdmin: self._start, c.RetireAdmin: self._retire, c.KillAdmin: self._kill}

    def _start(self, _command: c.StartAdmin) -> Iterable[e.Event]:
        assert self._attendance is not None
        assert self._controls is not None
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return (e.AdminUnstarted(str(error)),)
        with theirs:
            try:
                files: list[HasFileno] = [theirs, *self._attendance.listeners.for_slot(0)]
                kin = self._kin = execute_helper(MODULE, self._attendance.message, files)
            except (OSError, PreforkError) as error:
                ours.close()
                return (e.AdminUnstarted(str(error)),)
        self._controls.adopt(ours)
        assert kin.process is not None
        self._household.watch(kin.channel.fileno(), FIRST, self._said)
        self._household.watch(kin.process.fd, LAST, self._ended)
        return ()

    def _retire(self, _command: c.RetireAdmin) -> None:
        """Tell it that nothing more comes: it leaves by itself."""
        if self._kin is not None:
            self._kin.channel.finish()

    def _kill(self, _command: c.KillAdmin) -> None:
        if self._kin is not None and self._kin.process is not None:
            self._kin.process.send(signal.SIGKILL)

    def look_after(self) -> Iterator[e.Event]:
        """A child of ours has ended; where the kernel has no pidfds, it may be this one."""
        if not system.HAS_PIDFD:
            yield from self._ended()

    def _said(self) -> Iterator[e.Event]:
        if self._kin is None:
            return
        for message, _ in self._kin.channel.receive():
            if isinstance(message, Ready):
                yield e.AdminReady()
            elif isinstance(message, BootFailed):
                yield e.AdminFailed("\n".join(filter(None, (message.summary, message.details.rstrip()))))
        if self._kin.channel.is_closed:
            self._household.unwatch(self._kin.channel.fileno())

    def _ended(self) -> Iterator[e.Event]:
        kin = self._kin
        status = kin.process.poll() if kin is not None and kin.process is not None else None
        if kin is not None and kin.process is not None and status is not None:
            yield from self._said()  # its last words
            self._household.unwatch(kin.channel.fileno())
            self._household.unwatch(kin.process.fd)
            kin.close()
            self._kin = None
            yield e.AdminExited(e.ExitStatus(*status))

    def close(self) -> None:
        """Let go of it without touching the process. Also for the copy in a forked zygote."""
        if self._kin is not None:
            self._kin.close()
            self._kin = None
