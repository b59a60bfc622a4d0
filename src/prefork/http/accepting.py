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

How: `add_reader` on the listener, accept(2), and the loop's own `connect_accepted_socket`, whose coroutine is driven
here by hand: it waits once, for `connection_made`. Works on any asyncio loop.

Rejected (measured with uvloop 0.23; rates with 64 clients, 4 workers, a connection for each request):

* uvloop's `create_server`, stopped while others have fewer. Where no descriptor is left, libuv accepts and closes, to
  shed load: the client is reset. And a pause costs a new server.
* A look at the siblings before every accept: 0.83 of the rate of plain sharing. Connections that come and go make
  differences that mean nothing, and it is the turns of the loop that cost, not the look.
* A task for each connection: a tenth more CPU time than this.
* A `socket.socket` for uvloop, which closes the descriptor itself: 4 µs more, half of them for enums.
* Ending the loop's coroutine at the next accept, without a callback: 1 µs less, and a failure is heard of late.
* EPOLLEXCLUSIVE, through an epoll of our own that the loop watches: the kernel wakes all waiters of a nested epoll.
* Waiting without a bound for siblings that do move: a worker that is the only one without long-lived connections would
  have to answer all the short ones alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from prefork.http.connections import Connections
from prefork.http.forwarded import TrustedProxies
from prefork.http.limits import LINGER_S
from prefork.http.prefaced import Porch
from prefork.http.proxy_protocol import Preface
from prefork.http.siblings import Siblings
from prefork.scoreboard import Entry

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

VACATED_S: Final = 0.02
"""How long a place that was left may be filled without a look at the siblings."""

MAX_VACATED: Final = 8
"""Places that may be filled so: those who left may all have been the same worker's."""

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

LAST_CALL_S: Final = 0.5
"""How long those who wait are taken in at the end: a queue that is filled as fast has no end."""

LOG_EVERY_S: Final = 1.0
"""A failing accept is told this often at most."""

SPARE_DESCRIPTORS: Final = 64
"""Left to the application when connections are bounded by RLIMIT_NOFILE."""

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

logger: Final = logging.getLogger("prefork.http")

Factory = Callable[[Preface | None], asyncio.BaseProtocol]


def connection_limit(wanted: int) -> int:
    """`wanted` connections, or as many as this process's descriptors allow (RLIMIT_NOFILE). Runs in the worker."""
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415  (not on Windows)

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, max(allowed - SPARE_DESCRIPTORS, allowed // 2)))


class Acceptors:
    """All the listeners of one worker, and the one count of connections that they share. Used on its loop only.

    `connections` knows who is connected; `factory` makes a protocol that adds itself to it and takes itself out again.
    `entry` is this worker's record on the scoreboard, None where nobody else takes from the same queues. `limit` is the
    most connections that may be open, those in a TLS handshake included, which may take `handshake_s` seconds. With
    `proxies` every connection begins with the PROXY protocol, and they alone may bring it.
    """

    def __init__(
        self,
        connections: Connections[Any],
        factory: Factory,
        *,
        limit: int,
        entry: Entry | None = None,
        context: ssl.SSLContext | None = None,
        handshake_s: float = 10.0,
        proxies: TrustedProxies | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_full = False
        self._connections = connections
        self._factory = factory
        self._limit = limit
        self._entry = entry
        self.siblings = None if entry is None else Siblings(entry, self.loop.time)
        self._tls: dict[str, Any] = {}
        if context is not None:
            # Without bounds of its own a peer that vanished holds a handshake for 60 s, and a close for 30 s.
            self._tls = {
                "ssl": context,
                "ssl_handshake_timeout": handshake_s,
                "ssl_shutdown_timeout": LINGER_S,
            }
        self._porch: Porch | None = None
        self.receive: Callable[[int, int], object] = self.admit
        """What is done with an accepted connection: its descriptor, and its address family."""
        if proxies is not None:
            self._porch = Porch(connections, self.admit, trusted=proxies, patience_s=handshake_s)
            self.receive = self._show_in
        self._preface: Preface | None = None
        self._acceptors: list[Acceptor] = []
        self._take_up: Any = self.loop.connect_accepted_socket
        self._latest: asyncio.BaseProtocol | None = None
        self._is_uvloop = _is_uvloop(self.loop)
        self._vacated = 0
        self._vacated_until_s = 0.0
        self._told_s = -LOG_EVERY_S
        self._context = contextvars.copy_context()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Accept on all of them from now on. This is the first time that their descriptors are touched.

        Raises what a listener raises when it is touched (DrainedError), and OSError.
        """
        self._connections.on_leave = self._left
        self.publish()  # first: with the touch the master says that we are ready, and clients may come
        for listener in listeners:
            self._acceptors.append(Acceptor(self, listener))

    def take_in_all(self) -> None:
        """Accept whoever waits in the queues now, without a look at the siblings: nobody comes after us."""
        for acceptor in self._acceptors:
            acceptor.take_in_all()

    def stop(self) -> None:
        """Accept nothing more. Who was accepted is served, also if its preface or `connection_made` is still to come."""
        for acceptor in self._acceptors:
            acceptor.pause()
        self._acceptors.clear()
        self._connections.on_leave = None
        if self._entry is not None:
            self._entry.set_not_accepting()
            self._entry = None  # whoever is still admitted is nothing to the siblings

    def close(self) -> None:
        """Accept nothing more, and send away whoever has not told its preface yet."""
        self.stop()
        if self._porch is not None:
            self._porch.close()

    # -- the count --------------------------------------------------------------------------------

    def _show_in(self, fd: int, family: int) -> None:
        """Read the preface of an accepted connection first; it counts from now on."""
        assert self._porch is not None
        self._porch.enter(fd, family)
        self.publish()

    def admit(self, fd: int, family: int, preface: Preface | None = None) -> None:
        """Give an accepted connection to the loop, and its protocol the rest."""
        self._preface = preface
        arrival = _Arrival(self, fd, family)
        sock = arrival if self._is_uvloop else socket.socket(family, socket.SOCK_STREAM, 0, fd)
        self._latest = None
        if self._vacated:
            self._vacated -= 1
        try:
            if self._tls:
                coroutine = self.loop.connect_accepted_socket(
                    self._make_protocol, cast(Any, sock), **self._tls
                )
            else:
                coroutine = self._take_up(self._make_protocol, sock)
            waiter = coroutine.send(None)
        except Exception as error:
            sock.close()
            if self._is_uvloop:
                os.close(fd)
            self.failed(self._latest, error)
            return
        arrival.coroutine, arrival.protocol = coroutine, self._latest
        waiter.add_done_callback(arrival)
        self.publish()

    def _make_protocol(self) -> asyncio.BaseProtocol:
        protocol = self._factory(self._preface)
        self._connections.expect(protocol)
        self._latest = protocol
        return protocol

    def failed(self, protocol: object, error: Exception) -> None:
        """A connection has not come to be."""
        self._connections.give_up(protocol)
        # A client that leaves, or whose handshake fails, is no trouble of ours; ssl's errors are OSErrors.
        if not isinstance(error, OSError):
            logger.error("a connection could not be taken up", exc_info=error)

    def _left(self) -> None:
        """A connection is gone: called by `Connections`."""
        self.publish()
        if self._vacated < MAX_VACATED:
            self._vacated += 1
        self._vacated_until_s = self.loop.time() + VACATED_S
        for acceptor in self._acceptors:
            if not acceptor.is_reading:
                # With asyncio's own loop this runs in the context of the application that has closed, and all
                # connections to come would have it.
                self._context.copy().run(acceptor.reconsider)

    def publish(self) -> None:
        """Tell the siblings how many there are, and the listeners if that is all there may be."""
        count = self._connections.count
        if count < self._limit:
            self.is_full = False
            if self._entry is not None:
                self._entry.set_load(count)
            return
        self.is_full = True
        for acceptor in self._acceptors:
            acceptor.pause()
        if self._entry is not None:
            self._entry.set_not_accepting()

    def freer_siblings(self) -> dict[int, int]:
        """Whom to let go first; nobody, for most connections."""
        return {} if self.siblings is None else self.siblings.freer(self._connections.count)

    def standing(self) -> tuple[int, int]:
        """How many connections we have, and how many more than the least loaded of those that accept."""
        count = self._connections.count
        return count, 0 if self._entry is None else max(0, count - min(self._entry.loads()))

    def has_vacancy(self) -> bool:
        """One may be taken without a look at the siblings, since one has just left."""
        return self._vacated > 0 and self.loop.time() < self._vacated_until_s

    # -- trouble ----------------------------------------------------------------------------------

    def cannot_accept(self, error: OSError) -> None:
        """Have nobody wait for us, and log why, now and then."""
        if self._entry is not None:
            self._entry.set_not_accepting()
        now_s = self.loop.time()
        if now_s - self._told_s >= LOG_EVERY_S:
            self._told_s = now_s
            logger.warning("no connection can be accepted for the moment: %s", error.strerror or error)


class Acceptor:
    """One listener in the loop. Made by `Acceptors`."""

    def __init__(self, house: Acceptors, listener: socket.socket) -> None:
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
        until_s = self._house.loop.time() + LAST_CALL_S
        while self._take_one() and self._house.loop.time() < until_s:
            pass

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


class _Arrival:
    """An accepted connection on its way to `connection_made`; called when it is there, or has failed.

    To uvloop it is the socket too. It asks for no more than is here, takes the descriptor over, and closes it itself.
    """

    __slots__ = ("_fd", "_house", "coroutine", "family", "protocol")
    type: Final = int(socket.SOCK_STREAM)

    coroutine: Coroutine[Any, Any, Any]
    protocol: object

    def __init__(self, house: Acceptors, fd: int, family: int) -> None:
        self._house = house
        self._fd = fd
        self.family = family

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Called by uvloop when it has closed the descriptor: it may be somebody else's by now."""

    def __call__(self, _waiter: asyncio.Future[Any]) -> None:
        try:
            self.coroutine.send(None)
        except StopIteration:
            return
        except Exception as error:
            self._house.failed(self.protocol, error)


def _is_uvloop(loop: asyncio.AbstractEventLoop) -> bool:
    uvloop = sys.modules.get("uvloop")
    return uvloop is not None and isinstance(loop, uvloop.Loop)


def _is_one_of_many(listener: socket.socket) -> bool:
    """Whether it has a queue of its own, beside those of its siblings (SO_REUSEPORT)."""
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return bool(listener.getsockopt(socket.SOL_SOCKET, option))
