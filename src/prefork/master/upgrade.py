"""The master's own program replaced while it serves (USR2): a new master beside us, with our listeners.

    old: start the program again, with the listeners' descriptors and one end of a pipe
    new: open nothing that is inherited; start a fleet; when all of it is ready, write one byte
    old: a byte -> drain and leave;  end-of-file -> the new one failed, serve on as if nothing had been

One upgrade at a time (the plan sees to it). The byte and the end-of-file are tableflip's and nginx's precedent: a
process that dies, however it dies, cannot fail to say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from prefork.errors import ConfigError
from prefork.identity import MARKER
from prefork.master import events as e
from prefork.master.spawn import program
from prefork.net.listeners import ListenerSet
from prefork.net.systemd import Notifier, successor_environ

VARIABLE = "PREFORK_UPGRADE"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new master got from the old one: listeners by configured address, and the pipe to say ready on."""

    listeners: Mapping[str, list[int]] = field(default_factory=dict)
    ready_fd: int = -1
    control: str = ""
    """Where the old one listens for preforkctl; "" for nowhere."""
    admin: Mapping[str, list[int]] = field(default_factory=dict)
    """The admin process's listeners, as `listeners`."""


def inherited_addresses(environ: Mapping[str, str]) -> list[str]:
    """The addresses that an old master left for us, as it was configured; none if there is no old master."""
    return list(_read(environ.get(VARIABLE, "")).listeners)


def inherit(environ: MutableMapping[str, str]) -> Inheritance:
    """Take what an old master left for us, out of the environment too. Runs in the new master, before it opens.

    A variable that does not describe descriptors of ours is stale, and is ignored.
    """
    inheritance = _read(environ.pop(VARIABLE, ""))
    if inheritance.ready_fd >= 0:
        os.set_inheritable(inheritance.ready_fd, False)
    return inheritance


def _read(text: str) -> Inheritance:
    try:
        data = json.loads(text)
        ready_fd = int(data["ready_fd"])
        listeners = {str(key): [int(fd) for fd in fds] for key, fds in data["listeners"].items()}
        if not stat.S_ISFIFO(os.fstat(ready_fd).st_mode) or int(data["parent"]) != os.getppid():
            return Inheritance()
        control = str(data.get("control", ""))
        admin = {str(key): [int(fd) for fd in fds] for key, fds in data.get("admin", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return Inheritance()
    return Inheritance(listeners, ready_fd, control, admin)


_END_S = 1.0
"""How long a new master that has closed its pipe may take to be gone, for its status: a busy machine needs a tenth."""


class Upgrade:
    """Both sides of an upgrade, as far as one master sees it. Used by `succession` only."""

    def __init__(
        self,
        listeners: ListenerSet,
        notifier: Notifier,
        predecessor_fd: int,
        folder: str | None = None,
        control: str = "",
        *,
        admin: ListenerSet | None = None,
    ) -> None:
        """`folder`: where the program is run again; None for here. `control`: where we listen for preforkctl.

        `admin`: the admin process's listeners, if there is one.
        """
        self._admin = admin
        self._folder = folder
        self._control = control
        self._listeners = listeners
        self._notifier = notifier
        self._popen: subprocess.Popen[Any] | None = None
        self._predecessor_fd = predecessor_fd
        self.fd = -1
        """Readable when the new master has something to say."""

    @property
    def pids(self) -> set[int]:
        """The new master's pid, while there is one."""
        return {self._popen.pid} if self._popen is not None else set()

    # -- as the old master ------------------------------------------------------------------------

    def start(self) -> int:
        """Start the new master; returns what to watch. Raises OSError, ConfigError."""
        if os.getpid() == 1:
            raise ConfigError(
                "process 1 cannot be replaced, its container would end: use HUP to load new code"
            )
        listeners = self._listeners.handover()
        read, write = os.pipe()
        admin = self._admin.handover() if self._admin is not None else {}
        left = {
            "listeners": listeners,
            "ready_fd": write,
            "parent": os.getpid(),
            "control": self._control,
            "admin": admin,
        }
        environ = {**successor_environ(os.environ), VARIABLE: json.dumps(left)}
        environ.pop(MARKER, None)
        fds = [write, *(fd for group in (*listeners.values(), *admin.values()) for fd in group)]
        try:
            self._popen = subprocess.Popen(program(), env=environ, pass_fds=fds, cwd=self._folder)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self.fd = read
        return read

    def outcome(self) -> e.Event:
        """What the new master said: ready, or nothing before its end."""
        said = os.read(self.fd, 1)
        os.close(self.fd)
        self.fd = -1
        assert self._popen is not None
        if said:
            self._listeners.leave_paths()
            if self._admin is not None:
                self._admin.leave_paths()
            self._notifier.main_pid(self._popen.pid)
            # It outlives us: whoever becomes its parent waits for it.
            self._popen.returncode = 0
            return e.UpgradeReady()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed the pipe and runs on: ended below
            self._popen.wait(timeout=_END_S)
        why = f"the new master ended with status {self._popen.poll()} before it was ready"
        self.kill()
        return e.UpgradeLost(why)

    def kill(self) -> None:
        """End a new master that is of no use. Its workers see its end and follow."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # -- as the new master ------------------------------------------------------------------------

    @property
    def is_successor(self) -> bool:
        """There is an old master that waits for our word."""
        return self._predecessor_fd >= 0

    def say_ready(self) -> None:
        """Tell the old master, once, that it can go."""
        if self._predecessor_fd >= 0:
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                os.write(self._predecessor_fd, b"r")
            os.close(self._predecessor_fd)
            self._predecessor_fd = -1
            with contextlib.suppress(OSError):  # steering stays as the old master left it: still correct
                self._listeners.take_over()

    def close(self) -> None:
        """Let go of descriptors. Also for the copy in a forked zygote."""
        for fd in (self.fd, self._predecessor_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._predecessor_fd = -1
