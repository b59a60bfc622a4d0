"""hypercorn's connection, taught to drain. Imports hypercorn: import it in `prepare()` and later only.

* HTTP/1.1: `Config.response_headers` is asked for each answer, so it adds `connection: close` while
  draining, and h11 then closes after the answer.
* HTTP/2 has no such header but GOAWAY with the last stream that will be answered; a client repeats later
  ones elsewhere, safely (RFC 9113, 6.8). It is sent when no stream is open, once the last END_STREAM is
  out: the h2 library cannot send a byte of an answer after its GOAWAY, and clients built on it (httpx)
  take a GOAWAY as the failure of the streams that are still open. A connection that has had no request
  yet waits for its first, because GOAWAY 0 is what httpx does not repeat.
* After its GOAWAY a connection reads no more, and stays open for the client to close, until the linger
  is over. Closing it at once could reset it before the client has read the GOAWAY.

What remains: a connection that is never idle for the whole linger (many streams at once) gets its GOAWAY
from hypercorn in its first idle moment after it, and streams opened between the two are reset.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol


class DrainingConfig(Config):
    """hypercorn's configuration, with the one bit that all connections of a worker look at."""

    is_draining = False

    def __init__(self) -> None:
        super().__init__()
        self.open_connections: set[DrainingConnection] = set()

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = super().response_headers(protocol)
        if self.is_draining and protocol == "h11":
            headers.append((b"connection", b"close"))
        return headers

    def start_draining(self) -> None:
        """From now on answers say that they are the last; idle HTTP/2 connections are told at once."""
        self.is_draining = True
        for connection in list(self.open_connections):
            connection.say_goodbye_soon()


class DrainingConnection(TCPServer):
    """One connection of hypercorn, HTTP/1.1 or HTTP/2."""

    config: DrainingConfig
    _goodbye: asyncio.Task[None] | None = None
    _has_said_goodbye = False

    async def run(self) -> None:
        self.config.open_connections.add(self)
        try:
            await super().run()
        finally:
            self.config.open_connections.discard(self)

    async def _read_data(self) -> None:
        await super()._read_data()
        # The client is gone. hypercorn would keep its connection until the keep-alive time-out.
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Send as hypercorn does; while draining, look whether that was the last of an HTTP/2 stream."""
        if isinstance(event, Updated) and event.idle and self.reader.at_eof():
            return
        await super().protocol_send(event)
        if self.config.is_draining and not isinstance(event, Closed):
            await self._say_goodbye_if_idle()

    def say_goodbye_soon(self) -> None:
        """Send GOAWAY if this is an idle HTTP/2 connection; may be called outside of any task."""
        self._goodbye = asyncio.create_task(self._say_goodbye_if_idle())

    async def _say_goodbye_if_idle(self) -> None:
        protocol = getattr(self, "protocol", None)
        http2 = getattr(protocol, "protocol", None)
        if self._has_said_goodbye or not isinstance(http2, H2Protocol):
            return
        connection = http2.connection
        if connection.highest_inbound_stream_id == 0 or connection.open_inbound_streams > 0:
            return
        self._has_said_goodbye = True
        connection.close_connection()
        await super().protocol_send(RawData(connection.data_to_send()))
        self.protocol = _Deaf(self.protocol)  # type: ignore[assignment]


class _Deaf:
    """A protocol that has said goodbye: bytes fall on deaf ears, the end of the connection does not."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    async def initiate(self) -> None:
        """Has happened long ago."""

    async def handle(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await self.protocol.handle(event)
