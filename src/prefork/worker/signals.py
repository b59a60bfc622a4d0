"""Signals of workers and zygotes: which are ours, and what stays the application's.

The master coordinates, so a signal that a terminal or a service manager sends to the whole process group must
not end a worker on its own: INT, HUP, USR1 and USR2 are heard and ignored, unless the program has put a
handler of its own there. They are handled by a function that does nothing, not by SIG_IGN, because SIG_IGN would
be inherited by programs that the application runs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Collection, Mapping
from types import FrameType

from prefork import system

_MUTED = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
_DEFAULT = ("SIGTERM", "SIGQUIT", "SIGCHLD", "SIGALRM", "SIGWINCH")
_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)


def mute(_signum: int, _frame: FrameType | None) -> None:
    """Hear a signal and do nothing."""


def settle(*, blocked: Collection[signal.Signals] = ()) -> None:
    """Forget what was inherited of the parent's own signal handling. Main thread only; zygote and worker.

    `blocked` stay pending until `pthread_sigmask` lets them in: what is sent before there is a handler is not lost.
    """
    signal.set_wakeup_fd(-1)
    for name in _DEFAULT:
        signal.signal(signal.Signals[name], signal.SIG_DFL)
    signal.signal(
        signal.SIGPIPE, signal.SIG_IGN
    )  # Python's own default; a client that goes away must not end us
    for name in _MUTED:
        if signal.getsignal(signal.Signals[name]) in _UNTOUCHED:
            signal.signal(signal.Signals[name], mute)
    # SIGABRT, and a real crash, write the stacks of all threads to standard error before the end. A program may
    # run without a usable standard error; then there is nowhere to write to.
    with contextlib.suppress(ValueError, OSError, RuntimeError, AttributeError):
        faulthandler.enable(all_threads=True)
        if system.STACKS_SIGNAL is not None:
            faulthandler.register(system.STACKS_SIGNAL, all_threads=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # behind the handlers: what has waited is for them


Handler = Callable[[int, FrameType | None], object]


def keep_from_forks(handlers: Mapping[signal.Signals, Handler]) -> None:
    """Have a process that the application forks take none of `handlers` over, nor our wake-up descriptor. Worker.

    It is no worker, and TERM has to end it: `multiprocessing` ends its daemons so when the worker leaves, and waits for them.
    With our handler it would live on, and say through what the two share that the worker drains. What the application
    has put in place of ours stays.
    """
    before = threading.local()

    def hold() -> None:
        # What comes for the child before it has forgotten would set off a Python handler that is not there any more.
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        for signum, ours in handlers.items():
            if signal.getsignal(signum) == ours:
                signal.signal(signum, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=forget)


def be_deaf() -> None:
    """Hear nothing more of what asks this process to leave: it is leaving. KILL and the orphan's ALRM still end it."""
    names = (*_MUTED, "SIGTERM", "SIGQUIT")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name] for name in names})
