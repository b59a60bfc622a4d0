"""Accepting connections: on a shared listener the worker with the fewest goes first; a full worker takes none.

The rules:

* **Fewest first.** Each worker writes how many connections it has on the scoreboard. One that has more than the least
  loaded of those that accept lets the others go first: for `PATIENCE_S` at most, then it takes one that still waits.
* **Who replaces waits for nobody.** A connection that leaves makes room for another one, for `VACATED_S`. Where each
  request has a connection of its own nearly all are taken so, and where clients stay nearly none.
* **Nobody waits for the hung.** Whom connections wait for in vain is passed over for a while (`siblings`).
* **Nobody waits for the overworked.** Siblings that do move and still cannot keep up, because all the new connections
  are left to them, are helped: past `PATIENT_WAITS` vain waits, with 2, 4 … `MAX_HELP` connections at once.
* **Full is full.** At its limit a worker accepts nothing till a connection closes, and its siblings know. When all are
  full, clients wait in the kernel's queue; none is reset.
* **No descriptor left** (EMFILE and its like): nothing is accepted until a connection closes, or for `BACK_OFF_S`.
* One connection is accepted in a turn of the loop, so that siblings have theirs, and one for each that has just left.
* **Last call.** When all workers stop, each takes in whoever waits, as many as it may have.

Rejected (measured with uvloop 0.23; rates with 64 clients, 4 workers, a connection for each request):

* uvloop's `create_server`, stopped while others have fewer. Where no descriptor is left, libuv accepts and closes, to
  shed load: the client is reset. And a pause costs a new server.
* A look at the siblings before every accept: 0.83 of the rate of plain sharing. Connections that come and go make
  differences that mean nothing, and it is the turns of the loop that cost, not the look.
* EPOLLEXCLUSIVE, through an epoll of our own that the loop watches: the kernel wakes all waiters of a nested epoll.
* Waiting without a bound for siblings that do move: a worker that is the only one without long-lived connections would
  have to answer all the short ones alone.

Not here: what becomes of an accepted connection (`admission`).
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from prefork.http.siblings import Siblings
from prefork.scoreboard import LAST_CALL_S

PATIENCE_S: Final = 0.005
"""How long a connection may wait for a less loaded sibling: a few time slices of a busy CPU (Linux: 3 ms)."""

LOOK_S: Final = 0.001
"""How often a waiting worker looks whether it is its turn: all may be waiting for the one that waited longest."""

PATIENT_WAITS: Final = 8
"""Vain waits, more or less in a row, after which siblings that move are taken to be too slow for all that is left to
them: 40 ms, longer than a burst takes."""

MAX_HELP: Final = 16
"""Connections taken at once from siblings that are too slow: below a millisecond's work."""

_MOST_VAIN_WAITS: Final = PATIENT_WAITS + MAX_HELP.bit_length() - 1

SKIPS: Final = 2
"""Turns of the loop to let pass before the listener is taken out of it: mostly a sibling was there by then."""

LONG_TURN_S: Final = 0.0005
"""CPU time between two looks at the queue from which on a worker is busy. Not time: it may only lack a CPU."""

RECENT_S: Final = 0.1
"""Looks at the queue that are further apart than this say nothing of the turns between them."""

FEW: Final = 24
"""With fewer connections than this a worker is never ahead: a burst is shared out to one."""

AHEAD_SHARE: Final = 8
"""A busy worker may have an eighth more than the least loaded: turns get longer as connections get more."""

BACK_OFF_S: Final = 0.1
"""Pause after an accept that failed for want of descriptors or memory."""

# accept(2): these are of a connection that was gone again, and of the network under it. All others are want of
# something (EMFILE, ENFILE, ENOBUFS, ENOMEM), or last.
_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EINTR", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH"),
    )
    if hasattr(errno, name)
)


class House(Protocol):
    """What an acceptor asks of the worker's connections as a whole."""

    loop: asyncio.AbstractEventLoop
    is_full: bool
    siblings: Siblings | None
    receive: Callable[[int, int], object]
    """What is done with an accepted connection: its descriptor, and its address family."""

    def publish(self) -> None:
        """Tell the siblings how many there are, and the listeners if that is all there may be."""

    def freer_siblings(self) -> dict[int, int]:
        """Whom to let go first; nobody, for most connections."""

    def standing(self) -> tuple[int, int]:
        """How many connections we have, and how many more than the least loaded of those that accept."""

    def has_vacancy(self) -> bool:
        """One may be taken without a look at the siblings, since one has just left."""

    def cannot_accept(self, error: OSError) -> None:
        """Have nobody wait for us, and log why, now and then."""


class Acceptor:
    """One listener in the loop. Made by `admission.Acceptors`."""

    def __init__(self, house: House, listener: socket.socket) -> None:
        self._house = house
        self._family = int(listener.family)
        self._siblings = None if _is_one_of_many(listener) else house.siblings

        listener.setblocking(False)
        self._fd = listener.fileno()
        # Past `Listener.accept`, which is for servers that block.
        self._accept = listener._accept  # type: ignore[attr-defined]  # noqa: SLF001
        self._queue = select.poll()
        self._queue.register(self._fd, select.POLLIN)
        self._timer: asyncio.TimerHandle | None = None
        self._waited_for: dict[int, int] = {}
        self._skipped = 0
        self._since_s = 0.0
        self._vain_waits = 0
        self._worked_s = self._called_s = 0.0
        self.is_reading = False
        self._resume()

    def _resume(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waited_for = {}
        self._skipped = 0
        if not self._house.is_full and not self.is_reading:
            self.is_reading = True
            self._house.loop.add_reader(self._fd, self._on_readable)

    def pause(self, for_s: float | None = None, then: Callable[[], object] | None = None) -> None:
        if self.is_reading:
            self.is_reading = False
            self._house.loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waited_for = {}
        if for_s is not None and then is not None:
            self._timer = self._house.loop.call_later(for_s, then)

    def reconsider(self) -> None:
        """A connection has closed while nothing was accepted here: accept again, if the reason is gone."""
        if not self._waited_for or not self._house.freer_siblings():
            self._resume()

    def _on_readable(self) -> None:
        house = self._house
        if house.has_vacancy():
            while self._take_one() and house.has_vacancy():
                pass
            return
        if self._is_busy() and self._catch_up():
            return
        if self._siblings is not None:
            freer = house.freer_siblings()
            if freer:
                if self._skipped < SKIPS:
                    self._skipped += 1
                else:
                    self._wait_for(freer)
                return
            self._skipped = 0
        self._take_one()

    def _is_busy(self) -> bool:
        """The turns of the loop are long, for what is done in them: one connection in each would be too few."""
        worked_s, now_s = time.thread_time(), self._house.loop.time()
        worked_before_s, before_s = self._worked_s, self._called_s
        self._worked_s, self._called_s = worked_s, now_s
        return worked_s - worked_before_s >= LONG_TURN_S and now_s - before_s < RECENT_S

    def _catch_up(self) -> bool:
        """Take several, and get ahead of the others by an eighth; False if we are that far ahead already, or have few."""
        count, lead = self._house.standing()
        allowed = count // AHEAD_SHARE - lead if count >= FEW else 0
        for _ in range(allowed):
            if not self._take_one():
                break
        return allowed > 0

    def _wait_for(self, freer: dict[int, int]) -> None:
        self.pause(LOOK_S, self._look_again)
        self._waited_for, self._since_s = freer, self._house.loop.time()

    def _look_again(self) -> None:
        waited_for, since_s = self._waited_for, self._since_s
        if not self._queue.poll(0):
            self._vain_waits = max(0, self._vain_waits - 1)
            self._note(waited_for, since_s)
            self._resume()
        elif not self._house.freer_siblings():
            self._resume()
            self._take_one()
        elif self._house.loop.time() - since_s < PATIENCE_S:
            self.pause(LOOK_S, self._look_again)
            self._waited_for = waited_for
        else:
            self._note(waited_for, since_s)
            self._resume()
            self._help()

    def _note(self, waited_for: dict[int, int], since_s: float) -> None:
        if self._siblings is not None:
            self._siblings.waited(waited_for, since_s)

    def _help(self) -> None:
        """Patience is over: take what was left to others."""
        if not self._take_one():
            return
        self._vain_waits = min(self._vain_waits + 1, _MOST_VAIN_WAITS)
        for _ in range(2 ** max(0, self._vain_waits - PATIENT_WAITS) - 1):
            if not self._take_one():
                return

    def take_in_all(self) -> None:
        """Until the queue is empty, or nobody more may be taken. One that was gone again ends it for nobody else."""
        house = self._house
        self.pause()
        until_s = house.loop.time() + LAST_CALL_S
        while self._queue.poll(0) and house.loop.time() < until_s:
            if not self._take_one() and (house.is_full or self._timer is not None):
                return

    def _take_one(self) -> bool:
        """Accept one connection; False if none is there, or none may be taken."""
        if self._house.is_full:
            return False
        try:
            fd, _ = self._accept()
        except BlockingIOError:
            return False
        except OSError as error:
            self._cannot(error)
            return False
        self._house.receive(fd, self._family)
        return True

    def _cannot(self, error: OSError) -> None:
        if error.errno not in _GONE:
            self._house.cannot_accept(error)
            self.pause(BACK_OFF_S, self._try_again)

    def _try_again(self) -> None:
        self._house.publish()
        self._resume()


def _is_one_of_many(listener: socket.socket) -> bool:
    """Whether it has a queue of its own, beside those of its siblings (SO_REUSEPORT)."""
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return bool(listener.getsockopt(socket.SOL_SOCKET, option))
