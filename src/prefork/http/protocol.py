"""A connection's short way, for what nearly always comes: one whole request on an idle connection.

How it works:

* Bytes that are known to mean a request (`entrance`) are not parsed again, nor are headers that are.
* The application runs within the read event, and an answer that is whole by its end is written at once, past the transport.
* All else is left to `Conversation`, which knows the long way: what holds of order, limits and time-outs stands there.
"""

from __future__ import annotations

import os
from typing import Any, Final

from prefork.http.connections import Connections
from prefork.http.conversation import Conversation
from prefork.http.engine import Engine
from prefork.http.entrance import MOST_BYTES
from prefork.http.exchange import COMPLETE, Exchange
from prefork.http.limits import SLICE_BYTES, HttpLimits
from prefork.http.proxy_protocol import Preface
from prefork.http.request import NameCache
from prefork.http.sending import IDLE
from prefork.http.site import Site

_HEAD_END: Final = b"\r\n\r\n"


class HttpProtocol(Conversation):
    """One connection of a worker."""

    __slots__ = ("_is_between", "_is_reading")

    def __init__(
        self,
        engine: Engine,
        limits: HttpLimits,
        connections: Connections[HttpProtocol],
        names: NameCache,
        site: Site | None = None,
        *,
        preface: Preface | None = None,
    ) -> None:
        super().__init__(engine, limits, connections, names, site, preface=preface)
        self._is_between = True
        """The parser stands between two requests."""
        self._is_reading = False

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None or not self._is_plain or len(data) > SLICE_BYTES:
            self._is_between = False
            self._take_in(data)
            return
        if self._is_between and len(data) <= MOST_BYTES:  # more is not known, and takes long to look up
            entrance = self._entrance
            kept = entrance.known.get(data)
            if kept is not None:
                self._ask_again(self.engine.exchange.renewed(kept[0], self), kept[1])
                return
            alike = entrance.alike(data)
            if alike is not None:
                kept, method, target = alike
                self._ask_again(self.engine.exchange.retargeted(kept[0], self, method, target), kept[1])
                return
        reader = self._reader
        try:
            reader.feed(data)
        except Exception as error:  # also whatever a callback raised
            self._is_plain = self._is_between = False
            self._failed(error, data)
            self._proceed()
            return
        queue = reader.queue
        if not queue:
            self._in_head(len(data))
            return
        exchange = self._exchange = queue.pop(0)
        if queue or reader.url:  # there is more than this request
            self._is_plain = self._is_between = False
        elif exchange.is_ordinary and not exchange.has_body and data.endswith(_HEAD_END):
            # The parser stands between two requests. Where it may not, or cannot be told to, nothing may be learnt and
            # nothing that is known asked for: "UN", read behind one, makes another request of "LOCK /".
            if self._is_between:
                self._entrance.learn(data, exchange)
            self._is_between = True
        else:
            self._is_between = False
        self._start(exchange)
        if queue:
            self._proceed()
        elif exchange.stage == COMPLETE and exchange.is_body_complete:
            reader.incoming = None  # an idle connection keeps nothing of its requests

    def _ask_again(self, scope: dict[str, Any], forwarding: list[tuple[bytes, bytes]] | None) -> None:
        """It means what it meant before; by another client, perhaps. The parser knows nothing of it."""
        engine = self.engine
        exchange = self._exchange = engine.exchange(self, scope, engine.keeps_alive)
        exchange.is_body_complete = True
        if forwarding is not None and self.is_proxy_trusted:
            exchange.set_origin(self.origin_of(forwarding))
        if not engine.keeps_alive:
            exchange.is_ordinary = False
            self._reader.incoming = exchange
        self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        """Count the request, and run its application within the read event."""
        tally = self.engine.tally
        tally.until_timed -= 1
        if tally.until_timed <= 0:
            self._begun_ns = tally.time()
        self._is_reading = True
        try:
            exchange.start()
        finally:
            self._is_reading = False

    def answer(self, data: bytes) -> None:
        if self._is_reading and self._fd >= 0 and not self._transport.get_write_buffer_size():
            # Past the transport, which would put it off to the end of the loop's turn. Only within a read event, and
            # while nothing waits to be written: then the descriptor is open for certain, and still this connection's.
            try:
                sent_bytes = os.write(self._fd, data)
            except OSError:
                sent_bytes = 0  # no room, or nobody there: the transport finds out
            if sent_bytes < len(data):
                self.write(data[sent_bytes:])
        else:
            self.write(data)
        exchange = self._exchange
        if exchange is None or not (self._is_plain and exchange.is_body_complete) or self.is_write_paused:
            self.response_done()
            return
        self._exchange = None
        self._phase = IDLE
        engine = self.engine
        self.deadline_s = engine.clock.now_s + self._limits.keep_alive_s
        engine.tally.statuses[exchange._head[0][9] & 7] += 1  # noqa: SLF001  (the 2 of "HTTP/1.1 200")
        if self._begun_ns:
            self._time()
