"""`HttpServer(app)`: our HTTP/1.1 server for ASGI 3 and WSGI, as a worker runs it.

What lies below, from the wire up: `accepting` (whose turn it is), `admission` (who is let in),
`conversation` and `protocol` (one connection, and its short way), `sending`, `reader` and
`request` (what a head means), `exchange` (one request and its answer) with its two faces `asgi` and `wsgi`, `websocket`,
`response` (heads of answers), `files`, `access` (the log), `clock` (Date and time-outs), `limits`. Nothing of it knows
of masters and workers.

The order of a life:

    lifespan.startup      raises ApplicationError; only then is a listener's descriptor touched, which means "ready"
    (serving)             until drain()
    (last call)           if all workers stop: whoever waits in the queue is accepted
    (linger)              accepts nothing; answers say `connection: close`; idle connections stay for LINGER_S
    (finishing)           idle connections are closed, exchanges end by themselves; the master's patience is the bound
    lifespan.shutdown
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from prefork.errors import ConfigError
from prefork.http import memory
from prefork.http.access import AccessLog
from prefork.http.admission import Acceptors, connection_limit
from prefork.http.asgi import ASGIExchange
from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.forwarded import TrustedProxies
from prefork.http.inflight import InFlight
from prefork.http.lifespan import Lifespan
from prefork.http.limits import LINGER_S, HttpLimits
from prefork.http.logged import LoggedHttpProtocol
from prefork.http.options import HttpOptions
from prefork.http.pages import Page
from prefork.http.protocol import HttpProtocol
from prefork.http.proxy_protocol import Preface
from prefork.http.recording import record
from prefork.http.request import NameCache
from prefork.http.site import Site
from prefork.http.tally import Tally
from prefork.http.warmup import warm_up
from prefork.http.websocket import WebSocketProtocol
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_pool import ThreadPool
from prefork.http.wsgi_threads import PooledWSGIExchange
from prefork.net.material import TLSBytes, TLSFiles
from prefork.net.tls import server_context
from prefork.scoreboard import LAST_CALL_S, UNDECIDED_S

Interface = Literal["asgi", "wsgi"]


class HttpServer:
    """Serves the application `app`, which speaks `interface`. One object serves once, in one process.

    Raises ConfigError for what cannot be. Runs in any process; nothing is opened before `prepare`, or `serve`.
    """

    alpn: ClassVar[tuple[str, ...]] = ("http/1.1",)
    can_refuse: ClassVar[bool] = True
    """It tells what it runs, and refuses what has killed workers, where a master asks for it."""

    def __init__(
        self,
        app: Any,
        *,
        interface: Interface = "asgi",
        options: HttpOptions | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        if not callable(app):
            raise ConfigError(f"the application must be callable, and {type(app).__qualname__} is not")
        self._app = app
        self._is_wsgi = interface == "wsgi"
        self._options = options = options or HttpOptions()
        self._limits = limits or HttpLimits()
        self._site = Site(
            options.root_path,
            TrustedProxies(
                options.trusted_proxies,
                headers=options.forwarded_by,
                is_host_taken=options.forwarded_host,
            ),
        )
        self._log: AccessLog | None = None
        self._is_warm = False
        self._on_deaf: Callable[[], object] | None = None
        """Called when nothing more is accepted; None: the listeners are closed then, which under a master are copies."""
        self._is_drain_wanted = False
        self._drain_asked: asyncio.Event | None = None
        self._say_last: Callable[[], object] | None = None
        """Has all answers say that they are the last of their connections."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self) -> None:
        """Open the access log, so that what is wrong with it is told at once; warm the application up. Once.

        Zygote, or the worker before it serves; main thread. Raises ConfigError; ApplicationError of a strict warm-up.
        """
        self._open_log()
        if self._options.warmup and not self._is_warm:
            self._is_warm = True
            warm_up(
                self._app,
                [Page.of(text) for text in self._options.warmup],
                is_wsgi=self._is_wsgi,
                root_path=self._options.root_path,
                timeout_s=self._options.warmup_timeout_s,
                is_strict=self._options.warmup_strict,
            )

    def _open_log(self) -> None:
        if self._options.access_log is not None and self._log is None:
            self._log = AccessLog(self._options.access_log_format, self._options.access_log)

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
            self._loop.call_soon_threadsafe(self._begin_drain, self._drain_asked)

    def _begin_drain(self, drain_asked: asyncio.Event) -> None:
        # Here, and not when the waiting task has its turn: an answer that is ready by then is to say that it is the last.
        if self._say_last is not None:
            self._say_last()
        drain_asked.set()

    def reopen(self) -> None:
        """Open the access log again: it has been moved away. At any time, from a signal handler. Never blocks."""
        if self._loop is not None and self._log is not None:
            self._loop.call_soon_threadsafe(self._log.reopen)

    async def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> None:
        """Serve all `listeners`, over TLS if there is a `context`, until drained. Runs in the worker, on its loop.

        Raises `ApplicationError` if the application refuses to start.
        """
        self._open_log()
        self._loop = asyncio.get_running_loop()
        self._drain_asked = asyncio.Event()
        if self._is_drain_wanted:
            self._drain_asked.set()
        lifespan = Lifespan(self._app, "off" if self._is_wsgi else self._options.lifespan)
        try:
            await lifespan.startup()
            try:
                if not self._is_drain_wanted:
                    await self._serve(listeners, context, lifespan.state, self._drain_asked)
            finally:
                await lifespan.shutdown()
        finally:
            self._loop = None
            if self._log is not None:
                self._log.close()

    async def _serve(
        self,
        listeners: Sequence[socket.socket],
        context: ssl.SSLContext | None,
        state: dict[str, Any],
        drain_asked: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        connections: Connections[Any] = Connections(loop.time, is_told_of_failures=True)
        clock = Clock(loop, connections)
        memory.keep_freed()
        with self._engine(loop, clock, state) as engine:
            first = listeners[0]
            entry = getattr(first, "entry", None)
            pulse = getattr(first, "pulse", None)
            tally = engine.tally = Tally(engine.running, entry, getattr(first, "wear", None), pulse)
            self._watch(engine, tally, entry, pulse)
            if entry is not None and entry.recorder is not None:
                record(engine, entry.recorder)
            acceptors = Acceptors(
                connections,
                self._factory(engine, connections),
                limit=connection_limit(self._limits.connections),
                entry=entry,
                context=context,
                handshake_s=self._limits.head_s,
                proxies=self._site.trusted if self._options.proxy_protocol else None,
            )
            try:
                self._say_last = partial(_say_close, engine, connections)
                acceptors.start(listeners)
                await drain_asked.wait()
                _say_close(engine, connections)
                await _until_decided(first)
                if self._on_deaf is not None or getattr(first, "is_last_call", False):
                    acceptors.take_in_all()
                acceptors.stop()
                # Who comes while we finish is another's, or to be refused: not kept waiting for nobody. Also where the fleet
                # does not stop: it may before we have finished.
                (self._on_deaf or partial(_close_all, listeners))()
                await connections.wait_empty(LINGER_S)
            finally:
                self._say_last = None
                acceptors.close()
            for connection in list(connections):
                connection.close_when_idle()
            await connections.wait_empty(None)
            await _rest(engine)
            clock.stop()
            tally.tick(is_awake=False)  # the last word: what was served since the tick before counts too

    def _watch(self, engine: Engine, tally: Tally, entry: Any, pulse: Any) -> None:
        """Have the clock tell what is served, and that the loop turns; and look at requests that take long."""
        clock, timeout_s = engine.clock, self._options.request_timeout_s
        in_flight = InFlight(engine.running, timeout_s)
        tally.on_first = clock.wake

        def wake() -> None:
            in_flight.wake()
            tally.wake()

        def tick() -> None:
            tally.tick()
            in_flight.look()

        clock.on_wake, clock.on_tick, clock.on_rest = wake, tick, partial(_rest_from, tally)
        is_watched = pulse is not None and pulse.is_watched
        if pulse is not None:
            pulse.describe, pulse.part = in_flight.describe, in_flight.part
        if is_watched or timeout_s < math.inf:
            # A request may wait for long, and then block the loop, or be overdue: neither would wake the clock.
            clock.is_needed = in_flight.is_any
        if entry is not None and self._is_wsgi:
            entry.set_capacity(self._options.threads)

    @contextlib.contextmanager
    def _engine(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, state: dict[str, Any]
    ) -> Iterator[Engine]:
        """What the connections share; the threads of WSGI end with it."""
        if not self._is_wsgi:
            engine = Engine(self._app, loop, clock, state, ASGIExchange)
            engine.websocket = WebSocketProtocol
            yield engine
            return
        if self._options.threads == 1:
            yield Engine(self._app, loop, clock, state, WSGIExchange)
            return
        engine = Engine(self._app, loop, clock, state, PooledWSGIExchange)
        engine.pool = ThreadPool(self._options.threads)
        try:
            yield engine
        finally:
            engine.pool.close()

    def _factory(
        self, engine: Engine, connections: Connections[Any]
    ) -> Callable[[Preface | None], HttpProtocol]:
        """What makes a connection of our own for each that is accepted."""
        names, limits, site, log = NameCache(), self._limits, self._site, self._log
        if log is None:
            return lambda preface: HttpProtocol(engine, limits, connections, names, site, preface=preface)
        engine.clock.others.append(log)

        def accept_logged(preface: Preface | None) -> HttpProtocol:
            connection = LoggedHttpProtocol(engine, limits, connections, names, site, preface=preface)
            connection.log = log
            return connection

        return accept_logged


async def _until_decided(listener: socket.socket) -> None:
    """Accept on until the master has said whether all workers stop: whoever comes meanwhile may have nobody else."""
    until_s = time.monotonic() + LAST_CALL_S
    while getattr(listener, "is_undecided", False) and time.monotonic() < until_s:  # noqa: ASYNC110  (a page tells, no event)
        await asyncio.sleep(UNDECIDED_S)


def _close_all(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _say_close(engine: Engine, connections: Connections[Any]) -> None:
    """From now on every answer that has not begun says `connection: close`."""
    engine.keeps_alive = False
    for connection in list(connections):
        connection.say_close()


def _rest_from(tally: Tally) -> None:
    """Nothing has happened for a second: say so, and give back what was taken for it."""
    tally.tick(is_awake=False)
    memory.give_back()


async def _rest(engine: Engine) -> None:
    """Wait for applications that go on after their answer (background tasks)."""
    if engine.running:
        at_rest = asyncio.Event()
        engine.on_rest = at_rest.set
        await at_rest.wait()
