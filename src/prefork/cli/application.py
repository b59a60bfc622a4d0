"""An application by its name, as a server: imported in the zygote, never in the master."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefork.errors import ConfigError
from prefork.servers.base import ForeignServer, require
from prefork.servers.detect import interface_of
from prefork.servers.server import server_for
from prefork.worker.loading import load


@dataclass
class NamedApplication:
    """`MODULE:ATTR`, and the server that is to run it. The server is chosen when the application is there."""

    target: str
    app_dir: str
    interface: Any = "auto"
    server: str = "auto"
    is_factory: bool = False
    is_loaded_by_prepare: bool = field(default=True, init=False)
    """The application is imported by `prepare` only: a fork of the master loads it anew."""
    alpn: tuple[str, ...] = field(default=("http/1.1",), init=False)
    _server: ForeignServer | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Import the application, and its server. Zygote. Raises ApplicationError, ConfigError."""
        app = load(self.target, self.app_dir, is_factory=self.is_factory)
        self._server = _SERVERS[self.server](app, self.interface)
        self.alpn = self._server.alpn
        self._server.prepare()

    def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> Any:
        """Serve. Worker."""
        assert self._server is not None
        return self._server.serve_many(listeners, context)

    def drain(self) -> None:
        """Finish. Worker, in a signal handler."""
        assert self._server is not None
        self._server.drain()


def _uvicorn(app: Any, interface: str) -> ForeignServer:
    from prefork.servers.uvicorn import UvicornServer  # only the chosen server is loaded

    require("uvicorn")
    _expect(app, interface, "asgi", "uvicorn")
    return UvicornServer(app)


def _hypercorn(app: Any, interface: str) -> ForeignServer:
    require("hypercorn")
    from prefork.servers.hypercorn import HypercornServer  # only the chosen server is loaded

    _expect(app, interface, "asgi", "hypercorn")
    return HypercornServer(app)


def _waitress(app: Any, interface: str) -> ForeignServer:
    from prefork.servers.waitress import WaitressServer  # only the chosen server is loaded

    require("waitress")
    _expect(app, interface, "wsgi", "waitress")
    return WaitressServer(app)


def _aiohttp(app: Any, _interface: str) -> ForeignServer:
    require("aiohttp")
    from prefork.servers.aiohttp import AiohttpServer  # only the chosen server is loaded

    return AiohttpServer(app)


def _expect(app: Any, interface: str, needed: str, server: str) -> None:
    found = interface_of(app) if interface == "auto" else interface
    if found != needed:
        raise ConfigError(f"{server} serves {needed.upper()} applications, and this one is {found.upper()}")


_SERVERS: dict[str, Callable[[Any, Any], ForeignServer]] = {
    "auto": server_for,
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "waitress": _waitress,
    "aiohttp": _aiohttp,
}
