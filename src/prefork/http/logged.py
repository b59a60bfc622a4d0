"""A connection that keeps an access log. Apart from `protocol`, so that a log that is off costs nothing.

A request is logged when its answer has been given to the connection, or when the client has left before: with the status
that it was sent, or 499 (nginx's) if it was sent none. What could not be read as a request is logged with the status
that it was refused with.
"""

from __future__ import annotations

import time
from typing import Final

from prefork.http.access import AccessLog
from prefork.http.exchange import COMPLETE, HEAD_SENT, Exchange
from prefork.http.protocol import HttpProtocol

_CLIENT_LEFT: Final = 499


class LoggedHttpProtocol(HttpProtocol):
    """As `HttpProtocol`. `log` is set when the connection is made."""

    __slots__ = ("_read_s", "log")

    log: AccessLog

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self._read_s = time.monotonic()
        HttpProtocol.data_received(self, data)

    def answer(self, data: bytes) -> None:
        self.write(data)
        self.response_done()

    def response_done(self) -> None:
        exchange = self._exchange
        HttpProtocol.response_done(self)
        if exchange is not None:
            self._record(exchange, exchange.status)

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        HttpProtocol.connection_lost(self, exc)
        if exchange is not None and exchange.stage != COMPLETE:
            self._record(exchange, exchange.status if exchange.stage == HEAD_SENT else _CLIENT_LEFT)

    def refuse_now(self, status: int) -> None:
        HttpProtocol.refuse_now(self, status)
        host = self.client[0] if self.client else None
        self.log.record(host, "-", b"-", "1.1", status, 0, (), self.scheme, time.monotonic())

    def _record(self, exchange: Exchange, status: int) -> None:
        clock = self.engine.clock
        if not clock.is_awake:
            clock.wake()  # it writes what is recorded
        method, target, headers, client, scheme = exchange.log_fields()
        version = "1.0" if exchange.is_http_1_0 else "1.1"
        self.log.record(
            client, method, target, version, status, exchange.sent_bytes, headers, scheme, self._read_s
        )
