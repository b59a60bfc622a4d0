"""The master's signals: heard by a handler that only notes them, acted on by the loop.

    TERM, INT   graceful stop; a second INT is fast     QUIT        fast stop
    HUP         rolling reload                          TTIN, TTOU  one worker more, one less
    WINCH       stop the workers, keep the sockets      USR1        open log files again
    USR2        replace the master's own program        CHLD        somebody's orphan may have ended

Two signals have a second meaning for people at a terminal. A resized window sends WINCH to the foreground process
group, so there it is ignored. A closed terminal sends HUP, and then it means stop, but not under nohup(1).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

from prefork.master import events as e

_HEARD = (
    "SIGTERM",
    "SIGINT",
    "SIGQUIT",
    "SIGHUP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGWINCH",
    "SIGUSR1",
    "SIGUSR2",
    "SIGCHLD",
)
"""By name: Windows has not all of them, and must be able to import this to be told so."""


class Inbox:
    """Signals, and calls from other threads, as something a selector can wait for.

    Signals are only heard if the master runs in its program's main thread (a rule of Python's); elsewhere the
    program stops it by `Prefork.stop`.
    """

    def __init__(self) -> None:
        self._asked: deque[e.Event] = deque()
        self._signals: deque[int] = deque()
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._has_interrupted = False
        self._had_terminal = _foreground_group() is not None
        if threading.current_thread() is threading.main_thread():
            self._wakeup_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            for name in _HEARD:
                signum = signal.Signals[name]
                self._before[signum] = signal.signal(signum, self._note)
            # A program may have asked to die of it; a master that talks to processes that die must not.
            if hasattr(signal, "SIGPIPE"):
                self._before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._signals.append(signum)

    def fileno(self) -> int:
        return self._read.fileno()

    def ask(self, event: e.Event) -> None:
        """Hand in an event from any thread of the master. Once the loop is over, nobody hears it."""
        self._asked.append(event)
        with contextlib.suppress(OSError):  # full: the loop has been woken many times over; or closed
            self._write.send(b"a")

    def take(self) -> Iterator[e.Event | None]:
        """The events that have come in; None stands for "a child has ended" (CHLD)."""
        with contextlib.suppress(BlockingIOError):
            while self._read.recv(4096):
                continue
        while self._signals:
            yield from self._events(self._signals.popleft())
        while self._asked:
            yield self._asked.popleft()

    def _events(self, signum: int) -> Iterator[e.Event | None]:
        name = signal.Signals(signum).name
        if name == "SIGCHLD":
            yield None
        elif name == "SIGTERM":
            yield e.StopAsked(e.Stop.GRACEFUL, name)
        elif name == "SIGINT":
            yield e.StopAsked(e.Stop.FAST if self._has_interrupted else e.Stop.GRACEFUL, name)
            self._has_interrupted = True
        elif name == "SIGHUP":
            if not self._had_terminal or _foreground_group() is not None:
                yield e.ReloadAsked()
            elif self._before.get(signal.SIGHUP) is signal.SIG_IGN:
                self._had_terminal = (
                    False  # nohup: the terminal's end is survived, and later ones ask for a reload
                )
            else:
                yield e.StopAsked(e.Stop.GRACEFUL, "the terminal was closed")
        elif name == "SIGWINCH":
            if _foreground_group() != os.getpgrp():
                yield e.RestAsked()
        else:
            yield _PLAIN[name]

    def close(self) -> None:
        """Give the program its own signal handling back. Idempotent; also for a forked child's copy."""
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup_before)
        self._before = {}
        self._read.close()
        self._write.close()


_PLAIN: dict[str, e.Event] = {
    "SIGQUIT": e.StopAsked(e.Stop.FAST, "SIGQUIT"),
    "SIGTTIN": e.ScaleAsked(+1),
    "SIGTTOU": e.ScaleAsked(-1),
    "SIGUSR1": e.ReopenAsked(),
    "SIGUSR2": e.UpgradeAsked(),
}


def _foreground_group() -> int | None:
    """The process group in the foreground of our controlling terminal; None without a terminal.

    Our own where that cannot be told for lack of descriptors or memory: then nothing is stopped by mistake.
    """
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        return os.getpgrp() if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) else None
    try:
        return os.tcgetpgrp(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
