"""Signals that wake what waits.

A signal that arrives after Python's last look at its flags and before the system call that waits (poll, epoll_wait)
runs no Python handler until that call returns; and a loop without a time-out may never return from it: a worker
would sleep through its own drain. Measured on asyncio's own loop: 3 of 200. So each signal also writes a byte to a
descriptor that the loop watches (`signal.set_wakeup_fd`). uvloop sees to it by itself.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def woken_by_signals(fd: int) -> Iterator[None]:
    """Have every signal write a byte to `fd`, a non-blocking descriptor whose other end the caller watches.

    Does nothing outside the main thread, and where a loop has seen to it already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        yield
        return
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)


@contextlib.contextmanager
def woken_loop() -> Iterator[None]:
    """The running loop wakes up for signals; asyncio's own does so only for its own signal handlers."""
    import asyncio  # a program that serves without a loop has no use for it

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        loop.add_reader(ours, ours.recv, 4096)
        try:
            with woken_by_signals(theirs.fileno()):
                yield
        finally:
            loop.remove_reader(ours)
