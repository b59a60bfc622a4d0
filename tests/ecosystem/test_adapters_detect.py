from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import fastapi
import flask
import pytest
import starlette.applications

from prefork.errors import ConfigError
from prefork.servers import base
from prefork.servers.detect import interface_of
from prefork.servers.server import Server
from prefork.servers.uvicorn import UvicornServer
from prefork.servers.waitress import WaitressServer


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


async def asgi_with_settings(settings: Any, scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def logged(app: Any) -> Any:
    @functools.wraps(app)
    def wrapper(*arguments: Any) -> Any:
        return app(*arguments)

    return wrapper


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsgiObjectThatReturnsAnAwaitable:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class AsgiObjectWithAnyArguments:
    async def __call__(self, *arguments: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any, extra: Any = None) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class WsgiClass:
    """PEP 3333's own example: the class is the application, its instance the body."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter([])


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class Plain:
    """A class with nothing of an application."""


def make_app() -> Any:
    return asgi


def anything(*arguments: Any) -> None: ...


async def request_handler(request: Any) -> None: ...


@pytest.mark.parametrize(
    "app",
    [
        asgi,
        functools.partial(asgi_with_settings, {}),
        functools.partial(AsgiObject()),
        logged(asgi),
        AsgiObject(),
        AsgiObject().__call__,
        AsgiObjectThatReturnsAnAwaitable(),
        AsgiObjectWithAnyArguments(),
        fastapi.FastAPI(),
        starlette.applications.Starlette(),
    ],
)
def test_asgi_is_told_by_its_shape(app: Any) -> None:
    """Functions, objects, partials and wrappers that take scope, receive and send."""
    assert interface_of(app) == "asgi"


@pytest.mark.parametrize(
    "app",
    [
        wsgi,
        functools.partial(wsgi),
        logged(wsgi),
        WsgiObject(),
        WsgiObject().method,
        WsgiClass,
        flask.Flask("app"),
        flask.Flask("app").wsgi_app,
    ],
)
def test_wsgi_is_told_by_its_shape(app: Any) -> None:
    """The same for environ and start_response, and the class of PEP 3333."""
    assert interface_of(app) == "wsgi"


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (Asgi2, "ASGI 2"),
        (lambda scope: None, "ASGI 2"),
        (Plain, "make an instance"),
        (AsgiObject, "make an instance"),
        (make_app, "--factory"),
        (anything, "--interface asgi or --interface wsgi"),
        (request_handler, "--interface"),
        (len, "--interface"),
        ("app:app", "not callable"),
        (None, "not callable"),
    ],
)
def test_what_cannot_be_told_says_what_to_do(app: Any, says: str) -> None:
    """A refusal names the way out, and never guesses."""
    with pytest.raises(ConfigError, match=says):
        interface_of(app)


def test_either_interface_goes_to_our_own_server() -> None:
    """It is found out, or said."""
    assert not Server(asgi)._is_wsgi
    assert Server(wsgi, threads=2)._is_wsgi
    assert Server(anything, interface="wsgi")._is_wsgi
    with pytest.raises(ConfigError, match="interface"):
        Server(asgi, interface="cgi")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: UvicornServer(asgi, workers=2), "prefork's own job"),
        (lambda: UvicornServer(asgi, ssl_keyfile="key.pem"), "prefork's own job"),
        (lambda: UvicornServer(asgi, no_such_option=1), "uvicorn refuses"),
        (lambda: UvicornServer(asgi, lifespan="never"), "lifespan|uvicorn refuses"),
        (lambda: WaitressServer(wsgi, listen="*:80"), "prefork's own job"),
        (lambda: WaitressServer(wsgi, no_such_option=1), "waitress refuses"),
        (lambda: Server(asgi, workers=2), "no option 'workers'"),
        (lambda: Server(asgi, keepalive_s=2), "did you mean keep_alive_s"),
        (lambda: Server(asgi, lifespan="never"), "lifespan must be one of"),
        (lambda: Server(wsgi, threads=0), "threads"),
        (lambda: Server(asgi, head_bytes=-1), "head_bytes"),
        (lambda: Server(asgi, trusted_proxies="nobody"), "nobody"),
        (lambda: Server(asgi, access_log="/no/such/directory/log"), "cannot be opened"),
    ],
)
def test_a_wrong_option_is_refused_before_any_worker(make: Any, says: str) -> None:
    """In the constructor or in prepare(), so in one process and once."""
    with pytest.raises(ConfigError, match=says):
        make().prepare()


def test_a_missing_package_names_its_extra() -> None:
    """What to install is part of the message."""
    with pytest.raises(ConfigError, match=r"no_such_server is not installed: pip install 'prefork\["):
        base.require("no_such_server")


def test_importing_the_room_imports_no_server() -> None:
    """A program that serves with one server pays for no other, and lacks none of them."""
    program = """
import sys
import prefork.servers.aiohttp, prefork.servers.hypercorn, prefork.servers.server
import prefork.servers.socketserver, prefork.servers.streams
print(sorted({"uvicorn", "hypercorn", "aiohttp", "waitress", "h11", "uvloop"} & set(sys.modules)))
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == "[]"
