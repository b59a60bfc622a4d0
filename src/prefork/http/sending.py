"""What goes out of a connection: writes, the patience for those who do not take them, files, the end.

Rules:

* Nothing here waits but for the client. `is_write_paused` is what whoever sends pieces looks at; `writable` waits for it.
* A client that takes nothing for `limits.send_s` is reset: half an answer is not to be taken for a whole one.

Not here: what is sent, and in which order (`conversation`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from math import inf
from typing import Final, cast

from prefork.http.engine import Engine
from prefork.http.exchange import COMPLETE, JOIN_BYTES, Exchange
from prefork.http.files import Outlet, copy_file
from prefork.http.limits import HttpLimits
from prefork.http.outside import plain_fd, reset_on_close

# Phases of a connection without an exchange, in their order; plain numbers, since they are compared for each request.
NEW: Final = 0
IDLE: Final = 1
IN_HEAD: Final = 2
LINGERING: Final = 3
CLOSING: Final = 4


class Sending(asyncio.Protocol):
    """A connection's side towards the client. asyncio calls it, and so does the current exchange."""

    __slots__ = (
        "_exchange",
        "_fd",
        "_is_plain",
        "_limits",
        "_outlet",
        "_phase",
        "_stuck_bytes",
        "_transport",
        "_writers",
        "deadline_s",
        "engine",
        "is_closed",
        "is_write_paused",
        "write",
    )

    _exchange: Exchange | None
    """The current one."""

    def __init__(self, engine: Engine, limits: HttpLimits) -> None:
        self.engine = engine
        self.deadline_s = inf
        self.is_closed = False
        self.is_write_paused = False
        self._limits = limits
        self._exchange = None
        self._phase = NEW
        self._is_plain = True
        self._outlet: Outlet | None = None
        self._stuck_bytes = 0
        self._writers: list[asyncio.Future[None]] | None = None

    def _take_over(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of asyncio's
        self.write = self._transport.write
        self._fd = plain_fd(self._transport)

    def write_large(self, before: bytes, body: bytes, after: bytes) -> None:
        if self._fd < 0 and len(body) <= JOIN_BYTES:
            self.write(b"".join((before, body, after)))  # over TLS each write is a record of its own
            return
        sent_bytes = 0
        if self._fd >= 0 and not self._transport.get_write_buffer_size():
            # Past the transport, as in `answer`: it takes one piece at a time, and joining them copies the body. The descriptor
            # is this connection's until `connection_lost`.
            with contextlib.suppress(OSError):  # no room, or nobody there: the transport finds out
                sent_bytes = os.writev(self._fd, (before, body, after))
        for part in (before, body, after):
            if sent_bytes < len(part):
                self.write(memoryview(part)[sent_bytes:] if sent_bytes else part)
            sent_bytes = max(0, sent_bytes - len(part))

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._stuck_bytes = self._transport.get_write_buffer_size()
        self.deadline_s = self._now_s() + self._limits.send_s

    async def writable(self) -> None:
        while self.is_write_paused:
            writer = self.engine.loop.create_future()
            if self._writers is None:
                self._writers = []
            self._writers.append(writer)
            await writer

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send `count` bytes of a file from `offset` on; how many there were, until its end or the client's."""
        transport = self._transport
        socket = transport.get_extra_info("socket")
        if socket is None or transport.get_extra_info("sslcontext"):
            if self._exchange is not None:
                self._exchange.sent_bytes += count
            return await copy_file(self, fd, offset, count)
        transport.set_write_buffer_limits(0)
        await self.writable()
        outlet = self._outlet = Outlet(self.engine.loop, socket.fileno())
        try:
            return await outlet.pour(fd, offset, count, self._poured)
        except ConnectionError:
            self.is_closed = True  # the transport will say so, too
            self.abort()
            return 0
        finally:
            self._outlet = None
            outlet.close()
            self.deadline_s = inf if self._exchange is None else self._body_deadline_s(self._exchange)
            if not self.is_closed:
                transport.set_write_buffer_limits()

    def _poured(self, sent_bytes: int) -> bool:
        """So much more of a file is gone; whether to go on."""
        if self._exchange is not None:
            self._exchange.sent_bytes += sent_bytes
        self.deadline_s = self._now_s() + self._limits.send_s
        return not self.is_closed

    def _wake_writers(self) -> None:
        if self.is_closed:
            self.is_write_paused = False  # nobody is left to wait for
        if self._writers is not None:
            writers, self._writers = self._writers, None
            for writer in writers:
                if not writer.done():
                    writer.set_result(None)

    def bare_fd(self, exchange: Exchange) -> int:
        is_free = exchange is self._exchange and not self._transport.get_write_buffer_size()
        return self._fd if is_free else -1

    def abort(self) -> None:
        self._phase = CLOSING
        self._is_plain = False
        self._fd = -1
        reset_on_close(self._transport)
        self._transport.abort()

    # -- time -------------------------------------------------------------------------------------

    def _now_s(self) -> float:
        clock = self.engine.clock
        if not clock.is_awake:
            clock.wake()
        return clock.now_s

    def _body_deadline_s(self, exchange: Exchange) -> float:
        """By when the client has to send more, if it has to."""
        return self._now_s() + self._limits.body_s if owes_body(exchange) else inf


def owes_body(exchange: Exchange) -> bool:
    """More of a body is to come that is waited for, or that is thrown away."""
    return exchange.is_waiting_for_body or exchange.stage == COMPLETE
