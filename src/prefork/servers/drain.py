"""How a server on an asyncio loop starts, serves and drains: one order of steps for all of them.

`AsyncioServer` is the order; a server fills in four steps and keeps nothing of the order itself:

    start_up()          application started; returns the protocol factory. Raises ApplicationError
      (listening)       until drain() is called
    on_drain()          from now on say "close"; then nothing more is accepted
      (linger)          until nobody is connected, LINGER_S at most
    finish()            close who is idle, wait for who is not, and for work that outlives its connection
    shut_down()         the application's shutdown hooks; also after a failure of any step but start_up

`Connections` (of `http`, which drains in the same order) knows who is connected, from the accept on.

Not here: anything of HTTP. Rejected: polling "is the list empty" (each server's own way): it wakes a
worker for nothing and holds a reload up by half its period on average.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from prefork.http.connections import Connections
from prefork.http.limits import LINGER_S
from prefork.net.sockets import backlog_of
from prefork.servers.base import ForeignServer, last_call
from prefork.worker.waking import woken_loop

_TURNS_TO_SETTLE: Final = 3
"""Turns of the loop from an accept to `connection_made`: two in asyncio, one in uvloop, and one to spare."""

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

logger: Final = logging.getLogger("prefork.servers")


def watching(connections: Connections[Any], factory: ProtocolFactory) -> ProtocolFactory:
    """`factory`, with each protocol it makes noted as arriving; the foreign server adds and discards them itself."""

    def make() -> asyncio.BaseProtocol:
        protocol = factory()
        connections.expect(protocol)
        return protocol

    return make


class AsyncioServer(ForeignServer):
    """A foreign server on an asyncio loop (any loop: asyncio's own, uvloop)."""

    connections: Connections[Any]

    def __init__(self) -> None:
        self._drain_wanted = False
        self._drain_asked: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_draining(self) -> bool:
        """The drain has been asked for."""
        return self._drain_wanted

    def drain(self) -> None:
        """Ask for the drain; at any time, from a signal handler or another thread. Never blocks."""
        self._drain_wanted = True
        if self._loop is not None and self._drain_asked is not None:
            self._loop.call_soon_threadsafe(self._drain_asked.set)

    async def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> None:
        """Serve `listeners` until drained. Runs in the worker, on its event loop."""
        self._loop = asyncio.get_running_loop()
        self._drain_asked = asyncio.Event()
        if self._drain_wanted:
            self._drain_asked.set()
        self.connections = Connections(self._loop.time)
        self.prepare()
        try:
            with woken_loop():
                factory = watching(self.connections, await self.start_up())
                try:
                    await self._serve(listeners, context, factory)
                finally:
                    await self.shut_down()
        finally:
            self._loop = None

    async def _serve(
        self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None, factory: ProtocolFactory
    ) -> None:
        assert self._drain_asked is not None
        if self._drain_asked.is_set():
            return
        if context is not None:
            context.set_alpn_protocols(list(self.alpn))
        servers = [await _listen(factory, listener, context) for listener in listeners]
        await self._drain_asked.wait()
        self.on_drain()
        is_anyone_waiting = last_call(listeners)
        await _turn_while(is_anyone_waiting)
        are_deaf = [_stop_accepting(listener) for listener in listeners]
        # What was accepted in this very turn of the loop gets its transport in the next and its
        # connection_made in the one after. Only then may asyncio's server close: a transport that is made
        # for a closed one fails an assertion in Server._attach, and its client is reset (CPython 3.11-3.13).
        for _ in range(_TURNS_TO_SETTLE):
            await asyncio.sleep(0)
        if not all(are_deaf):
            await _turn_while(is_anyone_waiting)  # once more: it is the last look that counts
        for server in servers:
            server.close()
        await self.connections.wait_empty(LINGER_S)
        await self.finish()

    @abstractmethod
    async def start_up(self) -> ProtocolFactory:
        """Start the application; return what makes a protocol for each connection.

        The protocols put themselves into `self.connections` when made and take themselves out when lost.
        Raises `ApplicationError`.
        """

    @abstractmethod
    def on_drain(self) -> None:
        """From now on every answer that has not begun says `Connection: close`."""

    @abstractmethod
    async def finish(self) -> None:
        """The linger is over: close idle connections, return when those in flight have had their answer."""

    @abstractmethod
    async def shut_down(self) -> None:
        """Run the application's shutdown hooks; a failure of theirs is logged, not raised."""


async def _turn_while(is_so: Callable[[], bool]) -> None:
    """Let the loop turn as long as `is_so()`."""
    while is_so():  # noqa: ASYNC110  (the kernel knows, and no event tells)
        await asyncio.sleep(0)


def _stop_accepting(listener: socket.socket) -> bool:
    """Accept no more, and leave the listener open. For uvloop this does nothing, and is False: its server is closed."""
    return asyncio.get_running_loop().remove_reader(listener)


async def _listen(
    factory: ProtocolFactory, listener: socket.socket, context: ssl.SSLContext | None
) -> asyncio.AbstractServer:
    loop = asyncio.get_running_loop()
    backlog = backlog_of(listener)
    if context is None:
        return await loop.create_server(factory, sock=listener, backlog=backlog)
    # Without a bound of its own a peer that vanished holds the drain up for asyncio's 30 s.
    return await loop.create_server(
        factory, sock=listener, backlog=backlog, ssl=context, ssl_shutdown_timeout=LINGER_S
    )
