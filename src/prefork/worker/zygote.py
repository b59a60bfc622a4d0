"""The zygote: loads the application once, then forks a worker each time it is asked.

How it works: load; collect garbage; freeze what is left, so that no later collection writes to shared pages; say
Ready; then wait for `Fork` on the channel. Each worker is forked twice, so that it becomes the master's child (the
master is its subreaper) while the code runs here. End-of-file on the channel ends the zygote.

Rules: one thread, no event loop, no listener. Descriptors of a worker pass through and are closed. The zygote
answers a `Fork` only when the process between has been reaped: from then on the worker is the master's.

Rejected: clone(2) with CLONE_PARENT in place of the second fork. It would go past CPython's and the C
library's own fork handlers, which hold the interpreter's and the allocator's locks together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from prefork import system
from prefork.channel import Channel, Fork, Forked, ForkFailed, Ready
from prefork.errors import EXIT_APPLICATION, EXIT_FAILURE, EXIT_OK, ForkWithThreadsError
from prefork.worker import leaving, signals
from prefork.worker.job import Job, Service
from prefork.worker.reporting import failed_load

_PID = struct.Struct("=i")
WorkerMain = Callable[[Channel, Job, Service], NoReturn]


def run(channel: Channel, generation: int, job: Job, worker_main: WorkerMain) -> NoReturn:
    """Be the zygote of `generation` until the channel ends. Runs in the zygote; never returns.

    Args:
        channel: this end of the channel to the master, blocking.
        generation: what the log calls this zygote.
        job: what to load.
        worker_main: what a forked worker runs; never returns.
    """
    signals.settle()
    # Loading cannot be interrupted by end-of-file on the channel; the kernel sees to it.
    system.ask_signal_at_parent_death(signal.SIGKILL)
    job.introduce(f"zygote {generation}")
    gc.disable()
    try:
        service = job.load()
        system.refuse_threads("the application is loaded")
    except BaseException as error:  # noqa: BLE001: SystemExit too: a module that exits is a failed start
        channel.send(failed_load(error))
        leaving.leave(EXIT_APPLICATION)
    # From here on the master asks it to leave by closing the channel, also when TERM went to the whole group.
    signal.signal(signal.SIGTERM, signals.mute)
    gc.collect()
    gc.freeze()
    channel.send(Ready())
    pids = os.pipe()
    while not channel.is_closed:
        for message, fds in channel.receive():
            if isinstance(message, Fork):
                channel.send(_fork(message, fds, pids, lambda end: worker_main(end, job, service), channel))
    leaving.leave(EXIT_OK)


def _fork(
    message: Fork,
    fds: tuple[int, ...],
    pids: tuple[int, int],
    be_worker: Callable[[Channel], NoReturn],
    channel: Channel,
) -> Forked | ForkFailed:
    """Fork one worker, and say how that went. In the worker, never returns."""
    if not fds:
        return ForkFailed(message.serial, "the zygote has no free descriptor (EMFILE): raise RLIMIT_NOFILE")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # what it cannot write, a copy cannot either
            stream.flush()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of any second thread. Python's own were refused; native ones guard themselves.
            warnings.simplefilter("ignore", DeprecationWarning)
            between = system.fork("the application is loaded")
    except (OSError, ForkWithThreadsError) as error:
        os.close(fds[0])
        return ForkFailed(message.serial, str(error))
    if between == 0:
        _be_between(fds[0], pids, be_worker, channel)
    os.close(fds[0])
    _, status = os.waitpid(between, 0)
    if status != 0:
        return ForkFailed(message.serial, f"fork(2) failed: {_reason(os.waitstatus_to_exitcode(status))}")
    (pid,) = _PID.unpack(os.read(pids[0], _PID.size))
    return Forked(message.serial, pid)


def _be_between(
    fd: int, pids: tuple[int, int], be_worker: Callable[[Channel], NoReturn], channel: Channel
) -> NoReturn:
    """The process between zygote and worker: fork the worker, name it, and be gone, so that it is the master's."""
    status = EXIT_FAILURE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            channel.close()
            os.close(pids[0])
            os.close(pids[1])
            be_worker(Channel(socket.socket(fileno=fd)))
        os.write(pids[1], _PID.pack(pid))
        status = EXIT_OK
    except OSError as error:
        status = error.errno or EXIT_FAILURE
    finally:
        # Whatever happens, neither this process nor the worker may go back into the zygote's loop.
        os._exit(status)


def _reason(code: int) -> str:
    return os.strerror(code) if code > 0 else f"killed by signal {-code}"
