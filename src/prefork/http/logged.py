"""A connection that keeps an access log. Apart from `protocol`, so that a log that is off costs nothing.

A request is logged when its answer has been given to the connection, or when the connection has ended before: with the
status that it was sent, or 499 (nginx's) if it was sent none. What could not be read as a request is logged with the status
that it was refused with.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from prefork.http.access import AccessLog
from prefork.http.exchange import HEAD_SENT, Exchange
from prefork.http.protocol import HttpProtocol
from prefork.http.request import METHODS
from prefork.http.response import refusal_bytes

_CLIENT_LEFT: Final = 499
_METHODS: Final = frozenset(METHODS.values())


class LoggedHttpProtocol(HttpProtocol):
    """As `HttpProtocol`. `log` is set when the connection is made."""

    __slots__ = ("_read_s", "_recorded", "log")

    log: AccessLog
    _recorded: Exchange | None
    """The latest that was."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._recorded = None
        HttpProtocol.connection_made(self, transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self._read_s = time.monotonic()
        HttpProtocol.data_received(self, data)

    def answer(self, data: bytes) -> None:
        exchange = self._exchange
        HttpProtocol.answer(self, data)
        if exchange is not None and exchange is not self._recorded:
            self._record(exchange, exchange.status)

    def response_done(self) -> None:
        exchange = self._exchange
        HttpProtocol.response_done(self)
        if exchange is not None:
            self._record(exchange, exchange.status)

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        HttpProtocol.connection_lost(self, exc)
        if exchange is not None and exchange is not self._recorded:  # cut off, by the client or by us
            self._record(exchange, exchange.status if exchange.stage >= HEAD_SENT else _CLIENT_LEFT)
        self._recorded = None

    def refuse_now(self, status: int) -> None:
        HttpProtocol.refuse_now(self, status)
        host = self.client[0] if self.client else None
        sent_bytes = 0 if self._is_head_refused else refusal_bytes(status)
        self.log.record(host, "-", b"-", "1.1", status, sent_bytes, (), self.scheme, time.monotonic())

    def _record(self, exchange: Exchange, status: int) -> None:
        self._recorded = exchange
        clock = self.engine.clock
        if not clock.is_awake:
            clock.wake()  # it writes what is recorded
        method, target, headers, client, scheme = exchange.log_fields()
        # As applications have left them, some from what the client says; and they go into the line as they are.
        method = method if method in _METHODS else "-"
        scheme = "https" if scheme == "https" else "http"
        version = "1.0" if exchange.is_http_1_0 else "1.1"
        self.log.record(
            client, method, target, version, status, exchange.sent_bytes, headers, scheme, self._read_s
        )
