"""Taking accepted connections in: how many a worker has and may have, and the way of each to its protocol.

How: the loop's own `connect_accepted_socket`, whose coroutine is driven here by hand: it waits once, for `connection_made`. Works
on any asyncio loop.

Rejected (measured with uvloop 0.23):

* A task for each connection: a tenth more CPU time than this.
* A `socket.socket` for uvloop, which closes the descriptor itself: 4 µs more, half of them for enums.
* Ending the loop's coroutine at the next accept, without a callback: 1 µs less, and a failure is heard of late.

Not here: whose turn it is to accept (`accepting`), what a preface says (`prefaced`).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, cast

from prefork.http.accepting import Acceptor
from prefork.http.connections import Connections
from prefork.http.forwarded import TrustedProxies
from prefork.http.limits import LINGER_S
from prefork.http.prefaced import Porch
from prefork.http.proxy_protocol import Preface
from prefork.http.siblings import Siblings
from prefork.scoreboard import Entry

VACATED_S: Final = 0.02
"""How long a place that was left may be filled without a look at the siblings."""

MAX_VACATED: Final = 8
"""Places that may be filled so: those who left may all have been the same worker's."""

LOG_EVERY_S: Final = 1.0
"""A failing accept is told this often at most."""

SPARE_DESCRIPTORS: Final = 64
"""Left to the application when connections are bounded by RLIMIT_NOFILE."""

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
