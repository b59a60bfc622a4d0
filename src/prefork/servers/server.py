"""`Server(app)`: the right server for an application, found by its interface.

Until prefork has an HTTP server of its own: ASGI goes to uvicorn, WSGI to waitress.
"""

from __future__ import annotations

from typing import Any, Literal

from prefork.errors import ConfigError
from prefork.servers.base import ForeignServer, require
from prefork.servers.detect import interface_of
from prefork.servers.uvicorn import UvicornServer
from prefork.servers.waitress import WaitressServer


def server_for(
    app: Any, interface: Literal["auto", "asgi", "wsgi"] = "auto", **options: Any
) -> ForeignServer:
    """The server for `app`; `options` go to it (uvicorn's for ASGI, waitress's for WSGI).

    Raises `ConfigError` if the interface cannot be told, is unknown, or its server is not installed.
    Imports neither server. Runs in any process.
    """
    if interface not in ("auto", "asgi", "wsgi"):
        raise ConfigError(f"interface must be one of auto, asgi, wsgi, not {interface!r}")
    found = interface_of(app) if interface == "auto" else interface
    if found == "asgi":
        require("uvicorn")
        return UvicornServer(app, **options)
    require("waitress")
    return WaitressServer(app, **options)


def Server(  # noqa: N802  (the seed's name for what Prefork wraps, and it reads as a class)
    app: Any, *, interface: Literal["auto", "asgi", "wsgi"] = "auto", **options: Any
) -> ForeignServer:
    """What `Prefork` wraps: `Prefork(Server(app)).listen_and_serve(":8080")` (seed: `&fasthttp.Server{}`).

    `app` is an ASGI or WSGI application; `interface` says which if it does not tell by itself. `options`
    go to the server that serves it. Raises `ConfigError`. Runs in any process.
    """
    return server_for(app, interface, **options)
