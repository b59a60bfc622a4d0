"""An application by its name, as a server: imported in the zygote, never in the master."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefork.contracts import Prepares, Reopens
from prefork.errors import ConfigError
from prefork.worker.loading import load

if TYPE_CHECKING:
    import ssl


@dataclass
class NamedApplication:
    """`MODULE:ATTR`, and the server that is to run it. The server is chosen when the application is there."""

    target: str
    app_dir: str
    interface: Any = "auto"
    server: str = "prefork"
    is_factory: bool = False
    http: Mapping[str, Any] = field(default_factory=dict)
    """Options of our own HTTP server, by name."""
    is_loaded_by_prepare: bool = field(default=True, init=False)
    """The application is imported by `prepare` only: a fork of the master loads it anew."""
    can_refuse: bool = field(default=True, init=False)
    """The command has checked that it is our own server where that matters."""
    alpn: tuple[str, ...] = field(default=("http/1.1",), init=False)
    _server: Any = field(default=None, init=False)

    def prepare(self) -> None:
        """Import the application, and its server. Zygote. Raises ApplicationError, ConfigError."""
        app = load(self.target, self.app_dir, is_factory=self.is_factory)
        self._server = _choose(self.server, app, self.interface, self.http)
        self.alpn = self._server.alpn
        if isinstance(self._server, Prepares):
            self._server.prepare()

    def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> Any:
        """Serve. Worker."""
        assert self._server is not None
        return self._server.serve_many(listeners, context)

    def reopen(self) -> None:
        """Open log files of the server's own again. Worker, in a signal handler."""
        if isinstance(self._server, Reopens):
            self._server.reopen()

    def drain(self) -> None:
        """Finish. Worker, in a signal handler."""
        assert self._server is not None
        self._server.drain()


_FOREIGN: dict[str, tuple[str, str | None]] = {
    "uvicorn": ("UvicornServer", "asgi"),
    "hypercorn": ("HypercornServer", "asgi"),
    "waitress": ("WaitressServer", "wsgi"),
    "aiohttp": ("AiohttpServer", None),
}
"""The class for each name of `--server` that is not ours, and the interface that it serves."""


def _choose(name: str, app: Any, interface: Any, http: Mapping[str, Any]) -> Any:
    """The server called `name`. Nothing of it is loaded before, so the master carries none about. ConfigError."""
    from prefork.servers.base import require
    from prefork.servers.detect import interface_of
    from prefork.servers.server import Server

    if name == "prefork":
        return Server(app, interface=interface, **http)
    require(name)
    class_name, served = _FOREIGN[name]
    found = interface_of(app) if served and interface == "auto" else interface
    if served and found != served:
        raise ConfigError(f"{name} serves {served.upper()} applications, and this one is {found.upper()}")
    return getattr(importlib.import_module(f"prefork.servers.{name}"), class_name)(app)
