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
from typing import Final

from prefork.http.forwarded import TrustedProxies
from prefork.http.outside import address_of
from prefork.http.proxy_protocol import Preface, PrefaceError, read_preface

_PEEK_BYTES: Final = 4096

logger: Final = logging.getLogger("prefork.http")

Admit = Callable[[int, int, Preface], object]
"""What is done with a connection whose preface was read: descriptor, address family, preface."""


class Porch:
    """Where connections wait until their preface is read. Used on its loop only.

    `patience_s` is how long each may take.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admit: Admit,
        dismiss: Callable[[], object],
        *,
        trusted: TrustedProxies,
        patience_s: float,
    ) -> None:
        self._loop = loop
        self._admit = admit
        self._dismiss = dismiss
        self._trusted = trusted
        self._patience_s = patience_s
        self._waiting: set[_Visitor] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, fd: int, family: int) -> None:
        """Take over an accepted connection, and read its preface."""
        sock = socket.socket(family, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        try:
            peer = address_of(sock.getpeername())
        except OSError:  # gone already
            sock.close()
            self._dismiss()
            return
        if not self._trusted.trusts(peer[0] if peer else None):
            name = peer[0] if peer else "a Unix socket"
            logger.warning("%s is not among the trusted proxies: its connection is closed", name)
            sock.close()
            self._dismiss()
            return
        _Visitor(self, sock)

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
        loop = porch._loop  # noqa: SLF001  (one idea in two classes)
        self._timer = loop.call_later(
            porch._patience_s,  # noqa: SLF001
            self.leave,
            "no PROXY preface came in time",
        )
        porch._waiting.add(self)  # noqa: SLF001
        loop.add_reader(sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            self.leave(str(error))
            return
        if not data:
            self.leave("it was closed within its PROXY preface")
            return
        try:
            preface = read_preface(self._read + data)
        except PrefaceError as error:
            self.leave(str(error))
            return
        if preface is None:  # all of it is preface
            self._read += self._sock.recv(len(data))
            return
        self._sock.recv(preface.size_bytes - len(self._read))
        self._forget()
        family = self._sock.family
        self._porch._admit(self._sock.detach(), family, preface)  # noqa: SLF001

    def leave(self, why: str) -> None:
        """Close it."""
        logger.warning("a connection was closed: %s", why)
        self._forget()
        self._sock.close()
        self._porch._dismiss()  # noqa: SLF001

    def _forget(self) -> None:
        porch = self._porch
        self._timer.cancel()
        porch._loop.remove_reader(self._sock.fileno())  # noqa: SLF001
        porch._waiting.discard(self)  # noqa: SLF001
