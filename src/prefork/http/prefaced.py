"""Connections that begin with the PROXY protocol: its preface is read before anything else has seen a byte.

Rules:

* The preface comes from a trusted proxy, whole and within `head_s`, or the connection is closed: who is not trusted could
  say that it is anybody, and what follows half a preface means nothing.
* Not a byte behind the preface is taken: it is TLS's, or HTTP's.

Not here: what a preface looks like (`proxy_protocol`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from prefork.http.connections import Connections
from prefork.http.forwarded import TrustedProxies
from prefork.http.outside import address_of
from prefork.http.proxy_protocol import Preface, PrefaceError, read_preface

_PEEK_BYTES: Final = 4096

logger: Final = logging.getLogger("prefork.http")

Admit = Callable[[int, int, Preface], object]
"""What is done with a connection whose preface was read: descriptor, address family, preface."""


class Porch:
    """Where connections wait until their preface is read. Used on its loop only.

    They count as `connections` meanwhile. `patience_s` is how long each may take.
    """

    def __init__(
        self, connections: Connections[Any], admit: Admit, *, trusted: TrustedProxies, patience_s: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.admit = admit
        self.patience_s = patience_s
        self._connections = connections
        self._trusted = trusted
        self._waiting: set[_Visitor] = set()

    def enter(self, fd: int, family: int) -> None:
        """Take over an accepted connection, and read its preface."""
        sock = socket.socket(family, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        try:
            peer = address_of(sock.getpeername())
        except OSError:  # gone already
            sock.close()
            return
        if not self._trusted.trusts(peer[0] if peer else None):
            name = peer[0] if peer else "a Unix socket"
            logger.warning("%s is not among the trusted proxies: its connection is closed", name)
            sock.close()
            return
        visitor = _Visitor(self, sock)
        self._waiting.add(visitor)
        self._connections.expect(visitor)

    def left(self, visitor: _Visitor) -> None:
        """It has been admitted, or closed."""
        self._waiting.discard(visitor)
        self._connections.give_up(visitor)

    def close(self) -> None:
        """Send away whoever has not said who it is."""
        for visitor in list(self._waiting):
            visitor.leave("the worker drains")


class _Visitor:
    """One connection that has not told its preface yet."""

    def __init__(self, porch: Porch, sock: socket.socket) -> None:
        self._porch = porch
        self._sock = sock
        self._read = b""
        self._timer = porch.loop.call_later(porch.patience_s, self.leave, "no PROXY preface came in time")
        porch.loop.add_reader(sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
            preface = read_preface(self._read + data)
            if preface is None:  # all of it is preface
                self._read += self._sock.recv(len(data))
            else:
                self._sock.recv(preface.size_bytes - len(self._read))
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, PrefaceError) as error:
            self.leave(str(error))
            return
        if not data:
            self.leave("it ended within its PROXY preface")
        elif preface is not None:
            self._forget()
            family = self._sock.family
            self._porch.admit(self._sock.detach(), family, preface)
            self._porch.left(self)

    def leave(self, why: str) -> None:
        """Close it."""
        logger.warning("a connection was closed: %s", why)
        self._forget()
        self._sock.close()
        self._porch.left(self)

    def _forget(self) -> None:
        self._timer.cancel()
        self._porch.loop.remove_reader(self._sock.fileno())
