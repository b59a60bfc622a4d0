"""`Server(app)`: prefork's own HTTP server, with everything that it can be told given by name.

Under a master it is what `Prefork` wraps; `listen_and_serve` serves alone, in this process, without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Sequence
from typing import Any, Literal

from prefork.errors import ConfigError
from prefork.http.options import split
from prefork.http.server import HttpServer
from prefork.net.address import parse_address
from prefork.net.listeners import ListenerSet, UnixOptions
from prefork.net.material import TLSBytes, TLSFiles
from prefork.net.tls import server_context
from prefork.servers.detect import interface_of
from prefork.worker.loops import loop_factory

_BACKLOG = 2048


class Server(HttpServer):
    """What `Prefork` wraps: `Prefork(Server(app)).listen_and_serve(":8080")` (seed: `&fasthttp.Server{}`).

    Args:
        app: an ASGI 3 or WSGI application.
        interface: which of the two it is, if it does not tell by itself.
        options: those of `http.options.HttpOptions` and `http.limits.HttpLimits`, by name.

    Raises ConfigError for what cannot be. Runs in any process.
    """

    def __init__(
        self, app: Any, *, interface: Literal["auto", "asgi", "wsgi"] = "auto", **options: Any
    ) -> None:
        if interface not in ("auto", "asgi", "wsgi"):
            raise ConfigError(f"interface must be one of auto, asgi, wsgi, not {interface!r}")
        found = interface_of(app) if interface == "auto" else interface
        http_options, limits = split(options)
        super().__init__(app, interface=found, options=http_options, limits=limits)

    def listen_and_serve(self, addr: str | Sequence[str]) -> None:
        """Serve plain connections at `addr` in this process, without a master, until TERM or INT. Blocks.

        The first of them drains; a second ends it at once.

        Args:
            addr: as for `Prefork.listen_and_serve`.

        Raises:
            ConfigError: the address cannot be used.
            ApplicationError: the application refuses to start.
        """
        self._serve_alone(addr, None)

    def listen_and_serve_tls(self, addr: str | Sequence[str], cert_key: str, cert_file: str) -> None:
        """As `listen_and_serve`, over TLS with PEM files; the key comes first, as in the seed. Raises TLSConfigError."""
        material = TLSFiles(os.fspath(cert_file), os.fspath(cert_key))
        self._serve_alone(addr, server_context(material, self.alpn))

    def listen_and_serve_tls_embed(
        self, addr: str | Sequence[str], cert_data: bytes, key_data: bytes
    ) -> None:
        """As `listen_and_serve_tls`, with PEM in memory, certificate first (seed). Raises TLSConfigError."""
        self._serve_alone(addr, server_context(TLSBytes(cert_data, key_data), self.alpn))

    def _serve_alone(self, addr: str | Sequence[str], context: ssl.SSLContext | None) -> None:
        self.prepare()
        texts = [addr] if isinstance(addr, str) else list(addr)
        listeners = ListenerSet.open(
            [parse_address(text, None) for text in texts],
            reuseport=False,
            slots=1,
            backlog=_BACKLOG,
            unix=UnixOptions(),
        )
        try:
            with (
                contextlib.suppress(asyncio.CancelledError),  # told twice
                asyncio.Runner(loop_factory=loop_factory()) as runner,
            ):
                runner.run(self._until_told(listeners, context))
        finally:
            listeners.close()

    async def _until_told(self, listeners: ListenerSet, context: ssl.SSLContext | None) -> None:
        loop, serving = asyncio.get_running_loop(), asyncio.current_task()
        assert serving is not None
        told = (signal.SIGINT, signal.SIGTERM)

        def stop() -> None:
            """Drain; asked a second time, wait for nobody any more."""
            if self._is_drain_wanted:
                serving.cancel()
            self.drain()

        for number in told:
            loop.add_signal_handler(number, stop)
        copies = [each.dup() for each in listeners.for_slot(0)]

        def close() -> None:
            """Nobody else serves here: who comes while we finish is to be refused, not kept waiting."""
            for copy in copies:
                copy.close()
            listeners.close()

        self._on_deaf = close
        try:
            await self.serve_many(copies, context)
        finally:
            for number in told:
                loop.remove_signal_handler(number)
            close()  # also where the start has failed, or was given up
