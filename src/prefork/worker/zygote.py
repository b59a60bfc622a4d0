"""The zygote: loads the application once, then gives away workers, one each time it is asked.

How it works: load; freeze what there is (`gc.freeze`), so that no later collection writes to shared pages; say Ready;
then answer `Fork` on the channel. End-of-file on the channel ends the zygote. How a worker is forked, and why one is
forked ahead of time, is `nursery`'s.

Rejected: a collection before the freeze. It walks all that the import has made, 0.1 s for 600,000 containers, before
the first answer, to give back what an import leaves in cycles: little, and shared.

Rules: one thread, no event loop, no listener. Descriptors of a worker pass through and are closed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from prefork import system
from prefork.channel import Channel, Fork, Forked, ForkFailed, Ready
from prefork.channel import Parked as ParkedMessage
from prefork.errors import EXIT_APPLICATION, EXIT_OK, ForkWithThreadsError
from prefork.worker import leaving, signals
from prefork.worker.job import Job, Service
from prefork.worker.nursery import BeWorker, GrowUp, Parked, park
from prefork.worker.reporting import failed_load

WorkerMain = Callable[[Job, Service], BeWorker]

QUIET_MS = 100
"""The next worker is forked ahead when nothing has been asked for this long: two forks of a large process, in the
moment when the last worker starts, would take the CPU from it that it needs to be ready."""


def run(channel: Channel, generation: int, job: Job, worker_main: WorkerMain) -> NoReturn:
    """Be the zygote of `generation` until the channel ends. Runs in the zygote; never returns.

    Args:
        channel: this end of the channel to the master, blocking.
        generation: what the log calls this zygote.
        job: what to load.
        worker_main: called in a process that is to be a worker; gives what it runs with its channel.
    """
    signals.settle()
    # Loading cannot be interrupted by end-of-file on the channel; the kernel sees to it.
    system.ask_signal_at_parent_death(signal.SIGKILL)
    if channel.is_cut():
        leaving.leave(EXIT_OK)  # it died before it was asked for
    job.introduce("zygote", None, generation)
    gc.disable()
    try:
        service = job.load()
        system.refuse_threads("the application is loaded")
    except BaseException as error:  # SystemExit too: a module that exits is a failed start
        channel.send(failed_load(error))
        leaving.leave(EXIT_APPLICATION)
    # From here on the master asks it to leave by closing the channel, also when TERM went to the whole group.
    # Blocked, not ignored: what is sent to a worker before it has handlers of its own waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    gc.freeze()
    with contextlib.suppress(ConnectionError):  # the master let go of us, or is gone
        channel.send(Ready())
        _answer(channel, lambda: worker_main(job, service))
    leaving.leave(EXIT_OK)


def _answer(channel: Channel, grow_up: GrowUp) -> None:
    """Fork a worker for each `Fork`, one ahead of time, until the channel ends."""
    parked: Parked | None = None
    held: list[int] = []

    def let_go() -> None:
        channel.close()
        for fd in held:
            os.close(fd)

    while not channel.is_closed:
        if parked is None and not channel.has_waiting(QUIET_MS):
            parked = _park_ahead(channel, let_go, grow_up)
        asked = [(message, fds) for message, fds in channel.receive() if isinstance(message, Fork)]
        held += [fd for _, fds in asked for fd in fds]
        for message, fds in asked:
            channel.send(_hand_over(parked, message, fds, let_go, grow_up))
            parked = None
            for fd in fds:
                held.remove(fd)
                os.close(fd)


def _park_ahead(channel: Channel, let_go: Callable[[], object], grow_up: GrowUp) -> Parked | None:
    try:
        parked = park(let_go, grow_up)
    except (OSError, ForkWithThreadsError):
        return None  # tried again, and told, when a worker is asked for
    channel.send(ParkedMessage(parked.pid))
    return parked


def _hand_over(
    parked: Parked | None,
    message: Fork,
    fds: tuple[int, ...],
    let_go: Callable[[], object],
    grow_up: GrowUp,
) -> Forked | ForkFailed:
    """Make a worker of the parked process, or, if there is none any more, of a new one."""
    if not fds:
        return ForkFailed(message.serial, "the zygote has no free descriptor: raise RLIMIT_NOFILE")
    if parked is not None:
        with contextlib.suppress(OSError):  # somebody killed it: the master reaps it; another is forked below
            parked.give(fds[0])
            return Forked(message.serial, parked.pid)
    try:
        fresh = park(let_go, grow_up)
        fresh.give(fds[0])
    except (OSError, ForkWithThreadsError) as error:
        return ForkFailed(message.serial, str(error))
    return Forked(message.serial, fresh.pid)
