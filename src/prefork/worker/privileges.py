"""Rights that a worker does not need: given up before the application is loaded, in the zygote or the executed worker.

The master keeps its own: it opens sockets (a port below 1024 at a scale-up), reads keys anew at a reload, and signals
workers whoever they are. It runs no code of the application's. nginx and gunicorn do the same.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from prefork import system
from prefork.errors import ConfigError
from prefork.net.owner import LEAVE, group_id, user_id


@dataclass(frozen=True, slots=True)
class Privileges:
    """Whom a worker is to be."""

    uid: int
    gid: int
    name: str | None
    """The user's name, for its supplementary groups; None where the number has no entry (passwd(5))."""

    def give_up(self) -> None:
        """Be that user from now on, for good. Runs in the zygote or the executed worker, before the application is loaded."""
        parent, at_its_death = os.getppid(), system.signal_at_parent_death()
        if self.name is not None:
            os.initgroups(self.name, self.gid)
        else:
            os.setgroups([self.gid])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        # The kernel takes both away with the credentials (prctl(2)): /proc/self is root's while we are not dumpable.
        system.be_dumpable()
        system.ask_signal_at_parent_death(at_its_death)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGKILL)


def privileges(user: str | int | None, group: str | int | None) -> Privileges | None:
    """Whom workers are to be; None if they stay who we are. Master. Raises ConfigError."""
    if user is None and group is None:
        return None
    uid, gid, name = user_id(user), group_id(group), None
    if uid == LEAVE:
        uid = os.getuid()
    entry = _entry(uid)
    if entry is not None:
        name = entry.pw_name
        gid = entry.pw_gid if gid == LEAVE else gid
    if gid == LEAVE:
        raise ConfigError(f"user {user} has no entry, and so no group of its own: give a group, too")
    if os.geteuid() != 0:
        if (uid, gid) == (os.getuid(), os.getgid()):
            return None
        raise ConfigError(
            "only root can run workers as another user or group: start as root, or leave it out"
        )
    return Privileges(uid, gid, name)


def _entry(uid: int) -> Any:
    import pwd  # not on Windows, where this module must import all the same

    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
