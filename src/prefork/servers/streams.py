"""asyncio streams under prefork: any protocol, as a handler of a reader and a writer.

The handler is that of `asyncio.start_server`. While draining, a handler that waits for its client still
gets what the client sends within the linger; after it the reader is at end-of-file, as if the client had
closed, so a handler that reads until end-of-file ends by itself. The drain waits for every handler.

Not here: a protocol. A handler that wants to take its leave politely looks at `server.is_draining`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, cast

from prefork.http.connections import Connections
from prefork.servers.drain import AsyncioServer, ProtocolFactory, logger

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any] | None]

READ_LIMIT_BYTES: Final = 2**16
"""Default limit of a reader's buffer, that of `asyncio.start_server`."""


class StreamsServer(AsyncioServer):
    """Serves `client_connected_cb(reader, writer)`, plain or `async def`, once a connection.

    `limit_bytes` is the reader's buffer limit. What a handler raises is logged, and its connection closed.
    """

    alpn: ClassVar[tuple[str, ...]] = ()

    def __init__(self, client_connected_cb: Handler, *, limit_bytes: int = READ_LIMIT_BYTES) -> None:
        super().__init__()
        self._handler = client_connected_cb
        self._limit_bytes = limit_bytes

    async def start_up(self) -> ProtocolFactory:
        return stream_protocols(self.connections, self._handle, self._limit_bytes)

    def on_drain(self) -> None:
        """Nothing to say to a protocol that we do not know; handlers may look at `is_draining`."""

    async def finish(self) -> None:
        for protocol in self.connections:
            protocol.end_reading()
        await self.connections.wait_empty(None)

    async def shut_down(self) -> None:
        """Streams have no hooks."""

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            result = self._handler(reader, writer)
            if result is not None:
                await result
        except ConnectionError:
            logger.debug("a client went away", exc_info=True)
        finally:
            writer.close()
            # The peer may be gone already; closing is all that was left to do.
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class StreamProtocol(asyncio.StreamReaderProtocol):
    """A stream whose connection counts until both its handler and its transport have ended."""

    def __init__(self, connections: Connections[Any], reader: asyncio.StreamReader, handler: Handler) -> None:
        super().__init__(reader, self._start, loop=asyncio.get_running_loop())
        self._connections = connections
        self._handler = handler
        self._reader = reader
        self._transport_in: asyncio.Transport | None = None
        self._handler_task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as uvloop's transports are no subclasses of asyncio's.
        self._transport_in = cast(asyncio.Transport, transport)
        self._connections.add(self)
        super().connection_made(transport)

    def end_reading(self) -> None:
        """The handler sees end-of-file from here on, whatever the client still sends."""
        if self._transport_in is not None and not self._reader.at_eof():
            self._transport_in.pause_reading()
            self._reader.feed_eof()

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handler_task = asyncio.create_task(self._run(reader, writer))

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            result = self._handler(reader, writer)
            if result is not None:
                await result
        except Exception:
            logger.exception("the handler of a connection raised")
        finally:
            self._connections.discard(self)


def stream_protocols(connections: Connections[Any], handler: Handler, limit_bytes: int) -> ProtocolFactory:
    """A factory of protocols that run `handler` for each connection."""

    def make() -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader(limit=limit_bytes, loop=asyncio.get_running_loop())
        return StreamProtocol(connections, reader, handler)

    return make
