"""Accepting connections: on a shared listener the worker with the fewest goes first; a full worker takes none.

The rules:

* **Fewest first.** Each worker writes how many connections it has on the scoreboard. One that has more than the least
  loaded of those that accept lets the others go first: for `PATIENCE_S` at most, then it takes what is still waiting.
* **Who lets a connection wait is no reason to wait again.** A sibling whose load has not moved in that time (stopped,
  blocked) is passed over until it moves, or for `HUNG_S`. One that moves and still cannot keep up, because all the new
  connections are left to it, is helped more each time: 1, 2, 4 … `MAX_HELP` connections at once.
* **Full is full.** At its limit a worker accepts nothing till a connection closes, and its siblings know. When all are
  full, clients wait in the kernel's queue; none is reset.
* **No descriptor left** (EMFILE and its like): nothing is accepted until a connection closes, or for `BACK_OFF_S`.
* One connection is accepted in each turn of the loop, so that the others have theirs.

How: `add_reader` on the listener, accept(2), and the loop's own `connect_accepted_socket`, whose coroutine is driven
here by hand: it waits once, for `connection_made`. Works on any asyncio loop.

Rejected, with what was measured (64 clients, a connection for each request, 4 workers, uvloop 0.23):

* uvloop's `create_server`, stopped while others have fewer. Where no descriptor is left, libuv accepts and closes, to
  shed load: the client is reset. And a pause costs a new server.
* A task for each connection: a tenth more CPU time than this.
* A socket that is no `socket.socket` at all, which uvloop would take: 2 µs less, and nobody closes it after a failure.
* EPOLLEXCLUSIVE, through an epoll of our own that the loop watches: the kernel wakes all waiters of a nested epoll.
* Waiting without a bound for siblings that do move: a worker that is the only one without long-lived connections would
  have to answer all the short ones alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prefork.http.connections import Connections
from prefork.http.limits import LINGER_S
from prefork.scoreboard import Entry

PATIENCE_S: Final = 0.005
"""How long a connection may wait for a less loaded sibling: a few time slices of a busy CPU (Linux: 3 ms)."""

HUNG_S: Final = 1.0
"""How long a sibling that has not moved is passed over, unless it moves."""

MAX_HELP: Final = 16
"""Connections taken at once, in one turn of the loop, from a sibling that cannot keep up: below a millisecond's work."""

SKIPS: Final = 2
"""Turns of the loop to let pass before the listener is taken out of it: mostly a sibling was there by then."""

BACK_OFF_S: Final = 0.1
"""Pause after an accept that failed for want of descriptors or memory."""

LOG_EVERY_S: Final = 1.0
"""A failing accept is told this often at most."""

SPARE_DESCRIPTORS: Final = 64
"""Left to the application when connections are bounded by RLIMIT_NOFILE."""

_WANT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2): errors of a connection that was gone again, and of the network under it, are no errors of the listener.
_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EINTR", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH"),
    )
    if hasattr(errno, name)
)

logger: Final = logging.getLogger("prefork.http")

Factory = Callable[[], asyncio.BaseProtocol]


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
    most connections that may be open, those in a TLS handshake included, which may take `handshake_s` seconds.
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
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_full = False
        self._connections = connections
        self._factory = factory
        self._limit = limit
        self._entry = entry
        self._tls: dict[str, Any] = {}
        if context is not None:
            # Without bounds of its own a peer that vanished holds a handshake for 60 s, and a close for 30 s.
            self._tls = {
                "ssl": context,
                "ssl_handshake_timeout": handshake_s,
                "ssl_shutdown_timeout": LINGER_S,
            }
        self._acceptors: list[Acceptor] = []
        self._hung: dict[int, tuple[int, float]] = {}
        self._told_s = -LOG_EVERY_S

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Accept on all of them from now on. This is the first time that their descriptors are touched.

        Raises what a listener raises when it is touched (DrainedError), and OSError.
        """
        self._connections.on_leave = self._left
        for listener in listeners:
            self._acceptors.append(Acceptor(self, listener))
        self._publish()

    def stop(self) -> None:
        """Accept nothing more. Who was accepted is served, also if its `connection_made` is still to come."""
        for acceptor in self._acceptors:
            acceptor.pause()
        self._acceptors.clear()
        self._connections.on_leave = None
        if self._entry is not None:
            self._entry.set_not_accepting()

    # -- the count --------------------------------------------------------------------------------

    def admit(self, sock: socket.socket) -> None:
        """Give an accepted connection to the loop, and its protocol the rest."""
        protocol = self._factory()
        self._connections.expect(protocol)
        self._publish()
        arriving = self.loop.connect_accepted_socket(lambda: protocol, sock, **self._tls)
        try:
            waiter = arriving.send(None)
        except StopIteration:
            return
        except Exception as error:
            sock.close()
            self._failed(protocol, error)
            return
        waiter._asyncio_future_blocking = False  # noqa: SLF001  (what a task does with a future that it is given)
        waiter.add_done_callback(_Arrival(self, protocol, arriving))

    def _failed(self, protocol: object, error: Exception) -> None:
        self._connections.give_up(protocol)
        # A client that leaves or fails in its handshake is its own affair; what is not is a defect, and told.
        if not isinstance(error, (OSError, RuntimeError)):
            logger.error("a connection could not be taken up", exc_info=error)

    def _left(self) -> None:
        """A connection is gone: called by `Connections`."""
        self._publish()
        for acceptor in self._acceptors:
            if not acceptor.is_reading:
                acceptor.reconsider()

    def _publish(self) -> None:
        count = self._connections.count
        self.is_full = count >= self._limit
        if self.is_full:
            for acceptor in self._acceptors:
                acceptor.pause()
        if self._entry is not None:
            if self.is_full:
                self._entry.set_not_accepting()
            else:
                self._entry.set_load(count)

    # -- the siblings -----------------------------------------------------------------------------

    @property
    def is_alone(self) -> bool:
        """Nobody else takes from the same queues, as far as we know."""
        return self._entry is None

    def freer_siblings(self) -> dict[int, int]:
        """Whom to let go first: index to load of each that accepts, has fewer connections, and is not hung."""
        if self._entry is None:
            return {}
        loads, mine = self._entry.loads(), self._connections.count
        if min(loads) >= mine:
            return {}
        freer = {index: load for index, load in enumerate(loads) if load < mine}
        if self._hung:
            now_s = self.loop.time()
            self._hung = {
                index: (load, until_s)
                for index, (load, until_s) in self._hung.items()
                if until_s > now_s and freer.get(index) == load
            }
            for index in self._hung:
                del freer[index]
        return freer

    def pass_over(self, waited_for: dict[int, int]) -> None:
        """A connection has waited in vain for these: those that have not moved since are passed over for a while."""
        assert self._entry is not None
        loads, until_s = self._entry.loads(), self.loop.time() + HUNG_S
        for index, load in waited_for.items():
            if index < len(loads) and loads[index] == load:
                self._hung[index] = (load, until_s)

    # -- trouble ----------------------------------------------------------------------------------

    def tell(self, error: OSError) -> None:
        """Log why nothing can be accepted, now and then."""
        now_s = self.loop.time()
        if now_s - self._told_s >= LOG_EVERY_S:
            self._told_s = now_s
            logger.warning("no connection can be accepted for the moment: %s", error.strerror or error)


class Acceptor:
    """One listener in the loop. Made by `Acceptors`."""

    def __init__(self, house: Acceptors, listener: socket.socket) -> None:
        self._house = house
        self._family = int(listener.family)
        self._is_shared = not house.is_alone and not _is_one_of_many(listener)
        listener.setblocking(False)
        self._fd = listener.fileno()
        # Past `Listener.accept`, which is for servers that block.
        self._accept = listener._accept  # type: ignore[attr-defined]  # noqa: SLF001
        self._timer: asyncio.TimerHandle | None = None
        self._waited_for: dict[int, int] = {}
        self._skipped = 0
        self._help = 1
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
        if self._is_shared:
            freer = self._house.freer_siblings()
            if freer:
                self._let_go_first(freer)
                return
            self._skipped = 0
        self._take_one()

    def _let_go_first(self, freer: dict[int, int]) -> None:
        if self._skipped < SKIPS:
            self._skipped += 1
            return
        self.pause(PATIENCE_S, self._patience_is_over)
        self._waited_for = freer

    def _patience_is_over(self) -> None:
        waited_for = self._waited_for
        self._resume()
        for taken in range(self._help):
            if not self._take_one():
                self._help = max(1, self._help // 2)
                return
            if taken == 0:
                self._house.pass_over(waited_for)
        self._help = min(MAX_HELP, self._help * 2)

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
        self._house.admit(_Accepted(self._family, fd))
        return True

    def _cannot(self, error: OSError) -> None:
        if error.errno not in _GONE:
            if error.errno not in _WANT:
                logger.error("accept(2) failed", exc_info=error)
            self._house.tell(error)
            self.pause(BACK_OFF_S, self._resume)


class _Accepted(socket.socket):
    """An accepted socket whose family and type are plain numbers: asked for thrice, an enum each time costs 3 µs."""

    __slots__ = ("family",)
    type = int(socket.SOCK_STREAM)  # type: ignore[assignment]

    def __init__(self, family: int, fd: int) -> None:
        super().__init__(family, socket.SOCK_STREAM, 0, fd)
        self.family = family  # type: ignore[misc,assignment]


class _Arrival:
    """Called when a connection is there, or has failed on its way: ends the loop's coroutine."""

    __slots__ = ("_arriving", "_house", "_protocol")

    def __init__(self, house: Acceptors, protocol: object, arriving: Coroutine[Any, Any, Any]) -> None:
        self._house = house
        self._protocol = protocol
        self._arriving = arriving

    def __call__(self, _waiter: asyncio.Future[Any]) -> None:
        try:
            self._arriving.send(None)
        except StopIteration:
            return
        except Exception as error:
            self._house._failed(self._protocol, error)  # noqa: SLF001  (one idea in two classes)


def _is_one_of_many(listener: socket.socket) -> bool:
    """Whether it has a queue of its own, beside those of its siblings (SO_REUSEPORT)."""
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return bool(listener.getsockopt(socket.SOL_SOCKET, option))
