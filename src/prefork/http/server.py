"""`HttpServer(app)`: our HTTP/1.1 server for ASGI 3, as a worker runs it.

What lies below, from the wire up: `protocol` (one connection), `request` (what a head means), `asgi` (one exchange),
`response` (heads of answers), `clock` (Date and time-outs), `limits`. Nothing of it knows of masters and workers.

The order of a life:

    lifespan.startup      raises ApplicationError; only then is a listener's descriptor touched, which means "ready"
    (serving)             until drain()
    (linger)              accepts nothing; answers say `connection: close`; idle connections stay for LINGER_S
    (finishing)           idle connections are closed, exchanges end by themselves; the master's patience is the bound
    lifespan.shutdown

Not here, so far: WebSocket (a request to upgrade is answered as plain HTTP, which RFC 9110 §7.8 allows), WSGI, PROXY
protocol, forwarded headers, an access log, sendfile, trailers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from prefork.errors import ConfigError
from prefork.http.asgi import ASGIApplication
from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.lifespan import Lifespan, Mode
from prefork.http.limits import LINGER_S, HttpLimits
from prefork.http.protocol import HttpProtocol, Site
from prefork.http.request import NameCache
from prefork.net.material import TLSBytes, TLSFiles
from prefork.net.sockets import backlog_of
from prefork.net.tls import server_context

_TURNS_TO_SETTLE: Final = 3
"""Turns of the loop from an accept to `connection_made`: two in asyncio, one in uvloop, and one to spare."""


class HttpServer:
    """Serves the ASGI application `app`. One object serves once, in one process.

    `limits` bound what a client may take; `lifespan` is "auto", "on" or "off"; `root_path` is what a proxy has cut off
    the path (ASGI: `path` includes it). Raises ConfigError for values that cannot be. Runs in any process; nothing
    is opened before it serves.
    """

    alpn: ClassVar[tuple[str, ...]] = ("http/1.1",)

    def __init__(
        self,
        app: ASGIApplication,
        *,
        limits: HttpLimits | None = None,
        lifespan: Mode = "auto",
        root_path: str = "",
    ) -> None:
        if not callable(app):
            raise ConfigError(f"the application must be callable, and {type(app).__qualname__} is not")
        if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
            raise ConfigError(f"root_path must begin with a slash and not end with one: {root_path!r}")
        Lifespan.check(lifespan)
        self._app = app
        self._limits = limits or HttpLimits()
        self._lifespan_mode = lifespan
        self._site = Site(root_path)
        self._is_drain_wanted = False
        self._drain_asked: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Seed: `ServeFunc`. Serve one bound, listening socket until drained. Runs in the worker."""
        await self.serve_many([listener], None)

    async def serve_tls(self, listener: socket.socket, cert_file: str, key_file: str) -> None:
        """Seed: `ServeTLSFunc`. As `serve`, over TLS with PEM files. Runs in the worker.

        Raises `TLSConfigError` if they cannot be used.
        """
        await self.serve_many([listener], server_context(TLSFiles(cert_file, key_file), self.alpn))

    async def serve_tls_embed(self, listener: socket.socket, cert_data: bytes, key_data: bytes) -> None:
        """Seed: `ServeTLSEmbedFunc`. As `serve`, over TLS with PEM in memory. Runs in the worker.

        Raises `TLSConfigError` if it cannot be used.
        """
        await self.serve_many([listener], server_context(TLSBytes(cert_data, key_data), self.alpn))

    def drain(self) -> None:
        """Ask for the drain; at any time, from a signal handler or another thread. Never blocks."""
        self._is_drain_wanted = True
        if self._loop is not None and self._drain_asked is not None:
            self._loop.call_soon_threadsafe(self._drain_asked.set)

    async def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> None:
        """Serve all `listeners`, over TLS if there is a `context`, until drained. Runs in the worker, on its loop.

        Raises `ApplicationError` if the application refuses to start.
        """
        self._loop = asyncio.get_running_loop()
        self._drain_asked = asyncio.Event()
        if self._is_drain_wanted:
            self._drain_asked.set()
        lifespan = Lifespan(self._app, self._lifespan_mode)
        try:
            await lifespan.startup()
            try:
                if not self._is_drain_wanted:
                    await self._serve(listeners, context, lifespan.state, self._drain_asked)
            finally:
                await lifespan.shutdown()
        finally:
            self._loop = None

    async def _serve(
        self,
        listeners: Sequence[socket.socket],
        context: ssl.SSLContext | None,
        state: dict[str, Any],
        drain_asked: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        connections: Connections[HttpProtocol] = Connections(loop.time)
        clock = Clock(loop, connections)
        engine = Engine(self._app, loop, clock, state)
        names = NameCache()

        def accept() -> HttpProtocol:
            connection = HttpProtocol(engine, self._limits, connections, names, self._site)
            connections.expect(connection)
            return connection

        servers = []
        try:
            for listener in listeners:
                servers.append(await _listen(loop, accept, listener, context))  # noqa: PERF401  (closed below)
            await drain_asked.wait()
            for listener in listeners:
                loop.remove_reader(listener)  # does nothing on uvloop, whose servers are closed
            _say_close(engine, connections)
            # What was accepted in this very turn gets its transport in the next and its connection_made in the one
            # after; a transport that is made for a closed server fails an assertion (CPython 3.11-3.13).
            for _ in range(_TURNS_TO_SETTLE):
                await asyncio.sleep(0)
        finally:
            for server in servers:
                server.close()
        await connections.wait_empty(LINGER_S)
        for connection in list(connections):
            connection.close_when_idle()
        await connections.wait_empty(None)
        await _rest(engine)
        clock.stop()


def _say_close(engine: Engine, connections: Connections[HttpProtocol]) -> None:
    """From now on every answer that has not begun says `connection: close`."""
    engine.keeps_alive = False
    for connection in connections:
        connection.say_close()


async def _rest(engine: Engine) -> None:
    """Wait for applications that go on after their answer (background tasks)."""
    if engine.running:
        at_rest = asyncio.Event()
        engine.on_rest = at_rest.set
        await at_rest.wait()


async def _listen(
    loop: asyncio.AbstractEventLoop, accept: Any, listener: socket.socket, context: ssl.SSLContext | None
) -> asyncio.AbstractServer:
    options: dict[str, Any] = {}
    if context is not None:
        # Without a bound of its own a peer that vanished holds the drain up for asyncio's 30 s.
        options = {"ssl": context, "ssl_shutdown_timeout": LINGER_S}
    backlog = backlog_of(listener)
    server: asyncio.AbstractServer = await loop.create_server(
        accept, sock=listener, backlog=backlog, **options
    )
    return server
