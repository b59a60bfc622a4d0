"""The listening socket as a worker's server sees it: a `socket.socket` that knows six things more.

* **Readiness.** The first time a server reaches for the descriptor (`accept`, `fileno`, `detach`, `dup`) it is
  about to accept, so the worker is ready. That holds for a blocking loop, `selectors`, asyncio, uvloop and
  every server built on them, without a word from the server.
* **Siblings.** `entry` is the worker's record on the scoreboard, for a server that lets less loaded siblings accept
  first. None where there is no scoreboard.
* **Wear.** `wear` says how many requests this worker is to serve, and tells the master when it has.
* **Pulse.** `pulse` tells the master that something happens here again, so that it watches whether the loop turns.
* **Drain.** A blocking `accept()` ends when the worker is told to stop, and it ends between two connections: it
  never takes a connection from the queue and then drops it.
* **Last call.** `is_last_call` says that nobody comes after this worker, for all of them stop. Whoever waits in the queue
  is accepted by the drain, or reset by the kernel when the last of us closes it: a blocking `accept()` goes on to the
  queue's end, for `LAST_CALL_S` at most. While `is_undecided` nobody knows yet: somebody else than the master has told this
  worker to stop, and perhaps the others, too. So it waits, and accepts, until the master has said.

The descriptor is non-blocking, always, in all workers: O_NONBLOCK belongs to the open description, which the
workers share, so one sibling that polls and one that blocks cannot each have their way. A blocking `accept`
is made here of poll(2) and a non-blocking one.

Rejected: raising from the signal handler while accept(2) blocks. The signal may come after the kernel has
handed out the connection and before Python has stored it, and the connection is reset.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from prefork.errors import DrainedError
from prefork.scoreboard import LAST_CALL_S, UNDECIDED_S, Entry
from prefork.worker.pulse import Pulse
from prefork.worker.waking import woken_by_signals
from prefork.worker.wear import Wear


class Gate:
    """What all listeners of one worker share: whether it is ready, and whether it drains."""

    def __init__(self, on_ready: Callable[[], object]) -> None:
        self._on_ready: Callable[[], object] | None = on_ready
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self.is_draining = False
        self.is_last_call: Callable[[], bool] = lambda: False
        self.is_undecided: Callable[[], bool] = lambda: False
        self._closing_s = 0.0
        self.is_cooperative = False
        """The server waits in our `accept`, so it hears of a drain there."""
        self._signalled_read, self._signalled_write = os.pipe()
        os.set_blocking(self._signalled_read, False)
        os.set_blocking(self._signalled_write, False)

    def touched(self) -> None:
        """The server reaches for a descriptor. The first time, say that the worker is ready."""
        if self._on_ready is not None:
            if self.is_draining:
                raise DrainedError  # told to leave in its boot, and the code that ran then has swallowed it
            say, self._on_ready = self._on_ready, None
            say()

    def close(self) -> None:
        """The server is over: whatever touches a descriptor now does not make the worker ready any more."""
        self._on_ready = None

    @property
    def is_ready(self) -> bool:
        return self._on_ready is None

    def drain(self) -> None:
        """End every `accept`, those that wait now and those to come. Safe in a signal handler."""
        if not self.is_draining:
            self.is_draining = True
            self._closing_s = time.monotonic() + LAST_CALL_S
            # Never read again: level-triggered, so that every thread that waits wakes up.
            os.write(self._wake_write, b"d")

    def wait(self, fd: int) -> None:
        """Block until `fd` is readable. Raises DrainedError when the worker drains."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._signalled_read, select.POLLIN)
        with woken_by_signals(self._signalled_write):
            ready = {number for number, _ in poll.poll()}
        if self._signalled_read in ready:
            with contextlib.suppress(BlockingIOError):  # another thread has emptied it
                os.read(self._signalled_read, 4096)
        if self.is_draining and not (self._is_still_open() and (fd in ready or self._comes_yet(fd))):
            raise DrainedError

    def _comes_yet(self, fd: int) -> bool:
        """Wait for somebody as long as it is not decided whether there are siblings to leave them to."""
        queue = select.poll()
        queue.register(fd, select.POLLIN)
        while self.is_undecided() and self._is_still_open():
            if queue.poll(UNDECIDED_S * 1000):
                return True
        return bool(queue.poll(0))  # since the decision nobody is lost who comes: the last look

    def _is_still_open(self) -> bool:
        return self.is_last_call() and time.monotonic() < self._closing_s


class Listener(socket.socket):
    """A listening socket handed to a worker's server. Made by the runtime only."""

    def __init__(
        self,
        fd: int,
        gate: Gate,
        entry: Entry | None = None,
        wear: Wear | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._gate: Gate | None = None
        super().__init__(fileno=fd)
        self.entry = entry
        self.wear = wear
        self.pulse = pulse
        os.set_blocking(fd, False)
        self._gate = gate

    @property
    def is_last_call(self) -> bool:
        """The worker drains or is about to, and whoever waits in the queue now has nobody else to wait for."""
        return self._gate is not None and self._gate.is_last_call()

    @property
    def is_undecided(self) -> bool:
        """The worker drains, and not because its master said so: whether all workers stop, the master is still to say."""
        return self._gate is not None and self._gate.is_undecided()

    def _touch(self) -> None:
        if self._gate is not None:
            self._gate.touched()

    def accept(self) -> tuple[socket.socket, Any]:
        """As `socket.accept`. Raises DrainedError once the worker drains, if the socket is a blocking one."""
        gate = self._gate
        if gate is None or self.gettimeout() is not None:
            self._touch()
            return super().accept()
        gate.is_cooperative = True  # before the touch: with that one we are ready, and may be told to drain
        self._touch()
        while True:
            gate.wait(super().fileno())
            # Woken by a signal only, this finds nobody there and waits again.
            try:
                connection, peer = super().accept()
            except BlockingIOError:  # or a sibling was faster
                continue
            connection.setblocking(True)  # BSD hands O_NONBLOCK on to what is accepted
            return connection, peer

    def __repr__(self) -> str:
        # socket's own asks fileno(), and the interpreter asks for it when it throws a socket away unclosed: that is no
        # server that is about to accept.
        fd = super().fileno()
        return f"<Listener fd={fd}{f' at {self.getsockname()!r}' if fd >= 0 else ''}>"

    def fileno(self) -> int:
        self._touch()
        return super().fileno()

    def detach(self) -> int:
        self._touch()
        return super().detach()

    def dup(self) -> Listener:
        self._touch()
        assert self._gate is not None
        return Listener(os.dup(super().fileno()), self._gate, self.entry, self.wear, self.pulse)

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001
        """As `socket.setblocking`, but the descriptor stays non-blocking: see the module's rules."""
        super().settimeout(None if flag else 0.0)
        os.set_blocking(super().fileno(), False)

    def settimeout(self, value: float | None) -> None:
        """As `socket.settimeout`, but the descriptor stays non-blocking: see the module's rules."""
        super().settimeout(value)
        os.set_blocking(super().fileno(), False)
