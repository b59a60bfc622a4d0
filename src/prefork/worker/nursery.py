"""Workers before they are workers: forked twice, parked, and given away one by one.

A fork of a large process takes milliseconds, twice, and a crash is the moment when nobody has them. So the zygote
forks the next worker ahead of time. Parked, it waits for one descriptor, its channel to the master; with that
it is a worker at once. It waits on a socket whose other end only the zygote has, so it leaves when the zygote does.

Why twice: the process between exits, so that the worker becomes the child of the nearest subreaper, which is the
master. The pid is told only when that one has been reaped: from then on the worker is the master's.

Rejected: clone(2) with CLONE_PARENT in place of the second fork. It would go past CPython's and the C
library's own fork handlers, which hold the interpreter's and the allocator's locks together.
"""

from __future__ import annotations

import os
import socket
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from prefork import system
from prefork.channel import Channel
from prefork.errors import EXIT_FAILURE, EXIT_OK

_PID = struct.Struct("=i")
BeWorker = Callable[[Channel], NoReturn]
"""What a worker runs once it has its channel; never returns."""
GrowUp = Callable[[], BeWorker]
"""What a process does as soon as it is forked, while nobody waits for it; gives what it is to run."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A process that waits to be a worker, seen from the zygote."""

    pid: int
    line: socket.socket

    def give(self, fd: int) -> None:
        """Hand it its channel: it is a worker now. Raises OSError (BrokenPipeError) if it is gone."""
        with self.line:
            socket.send_fds(self.line, [b"w"], [fd])


def park(let_go: Callable[[], object], grow_up: GrowUp) -> Parked:
    """Fork a process that waits to be a worker. Runs in the zygote; blocks for the time of two forks.

    Args:
        let_go: called in the new process; closes what is the zygote's alone.
        grow_up: called in the new process next; gives what it runs once it has its channel.

    Raises:
        OSError: no process or descriptor is left (EAGAIN, ENOMEM, EMFILE).
        ForkWithThreadsError: threads are alive.
    """
    ours, theirs = socket.socketpair()
    try:
        read, write = os.pipe()
    except OSError:
        ours.close()
        theirs.close()
        raise
    try:
        pid = _fork_twice(read, write, lambda: _wait(ours, theirs, let_go, grow_up))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(read)
        os.close(write)
    return Parked(pid, ours)


def _fork_twice(read: int, write: int, be_child: Callable[[], NoReturn]) -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of any second thread. Python's own were refused; native ones guard themselves.
        warnings.simplefilter("ignore", DeprecationWarning)
        between = system.fork("the application is loaded")
        if between == 0:
            _be_between(read, write, be_child)
    try:
        _, status = os.waitpid(between, 0)
    except ChildProcessError:
        # The application ignores CHLD, or reaps whatever ends: it has ended all the same, and the pipe says how.
        status = 0
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise OSError(
            max(code, 0), f"fork(2) failed: {os.strerror(code) if code > 0 else f'killed by signal {-code}'}"
        )
    os.set_blocking(read, False)  # nothing in it: the second fork failed, and how is lost
    (pid,) = _PID.unpack(os.read(read, _PID.size))
    return int(pid)


def _be_between(read: int, write: int, be_child: Callable[[], NoReturn]) -> NoReturn:
    status = EXIT_FAILURE
    try:
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            be_child()
        os.write(write, _PID.pack(pid))
        status = EXIT_OK
    except OSError as error:
        status = error.errno or EXIT_FAILURE
    finally:
        # Whatever happens, neither this process nor the worker may go back into the zygote's loop.
        os._exit(status)


def _wait(
    zygotes: socket.socket, line: socket.socket, let_go: Callable[[], object], grow_up: GrowUp
) -> NoReturn:
    zygotes.close()
    let_go()
    be_worker = grow_up()
    data, fds, _, _ = socket.recv_fds(line, 1, 1)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds does not hand its flags on (MSG_CMSG_CLOEXEC)
    line.close()
    if not data:
        os._exit(EXIT_OK)  # the zygote left
    if not fds:
        os._exit(EXIT_FAILURE)  # no descriptor is left to take the channel in: the master sees a crash
    be_worker(Channel(socket.socket(fileno=fds[0])))
