"""Who this process is: a master, or a child that a master made.

A child has the marker `PREFORK_CHILD=1` in its environment and a channel to its master among its descriptors. The marker
alone is not believed: it also reaches every program that a worker starts, and such a program is no child. So a stale
marker never makes a child of a process, and the master sets it anew, exactly once, in what it starts.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from functools import lru_cache

MARKER = "PREFORK_CHILD"
_FIRST_FD = 3  # below are standard input, output and error


def is_child() -> bool:
    """Whether this process is a child of a prefork master: its zygote or one of its workers (seed: `IsChild`).

    Returns False for a program that merely inherited the marker. Any process; does not block.
    """
    return os.environ.get(MARKER) == "1" and channel_fd(os.getpid()) is not None


def child_environment() -> dict[str, str]:
    """What a child's environment must hold on top of its master's."""
    return {MARKER: "1"}


@lru_cache(maxsize=1)
def channel_fd(pid: int) -> int | None:
    """The descriptor of the channel that process `pid`, this one, was started with; None if there is none.

    Found by its kind, not by a number in the environment: a `command_producer` is only asked to pass descriptors on.
    The answer is kept: later the worker's program may open sockets of the same kind, or the master may die.
    """
    for fd in _open_fds():
        if fd >= _FIRST_FD and _is_channel(fd, pid):
            return fd
    return None


def _open_fds() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return sorted(int(name) for name in os.listdir(folder))  # numbers, not paths
        except OSError:
            continue
    return []


def _is_channel(fd: int, pid: int) -> bool:
    """Whether `fd` is one end of a nameless Unix stream pair that another process made."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        copy = socket.socket(fileno=os.dup(fd))
    except OSError:
        return False
    with copy:
        try:
            is_stream = copy.family == socket.AF_UNIX and copy.type == socket.SOCK_STREAM
            is_nameless = not copy.getsockname() and not copy.getpeername()
            return is_stream and is_nameless and _maker(copy) not in (None, pid)
        except OSError:
            return False


def _maker(sock: socket.socket) -> int | None:
    """The pid of the process that made a socketpair (socket(7), SO_PEERCRED); -1 where it cannot be known."""
    if not hasattr(socket, "SO_PEERCRED"):
        return -1 if sys.platform != "linux" else None
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    return int.from_bytes(data[:4], sys.byteorder, signed=True)
