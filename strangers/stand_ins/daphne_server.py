"""Daphne's tests against our server: a plugin for pytest that has `DaphneTestingInstance` start ours in its process.

Theirs forks a process that serves the test's application with Twisted; here it serves it with prefork's HttpServer. What
Daphne is told by keywords is told to ours by its own names, as far as ours has them.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import traceback
from http.client import HTTPConnection
from typing import Any

import daphne.testing
import hypothesis
import uvloop

from prefork.http.options import split
from prefork.http.server import HttpServer

FAREWELL_S = 0.3
"""How long a server goes on after it has been told to end: then the kernel ends it."""

_HOST = (b"host", b"added.example")
"""Added to requests that have none, and taken off again before the test's application looks."""

_NEWER = ("state", "extensions")
"""Keys that the ASGI specification allows in a scope, and the tests' list of allowed keys does not have."""

_endheaders = HTTPConnection.endheaders

_OURS = {
    "http_timeout": "request_timeout_s",
    "websocket_max_message_size": "message_bytes",
    "websocket_max_frame_size": "message_bytes",
}


def endheaders(self: HTTPConnection, *args: Any, **options: Any) -> None:
    """The end of a test's head; with Host, which HTTP/1.1 asks for (RFC 9112 §3.2) and Daphne does not."""
    lines: list[bytes] = self._buffer  # type: ignore[attr-defined]
    if not any(line.lower().startswith(b"host:") for line in lines):
        self.putheader(_HOST[0].decode(), _HOST[1].decode())
    _endheaders(self, *args, **options)


def _as_daphne_tells(app: Any) -> Any:
    """The test's application asks for messages for ever: Daphne lets it wait where ASGI says "disconnect" again and again."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        has_ended = False
        if "headers" in scope:
            newer = _NEWER if scope["type"] == "http" else (*_NEWER, "http_version")
            scope = {key: value for key, value in scope.items() if key not in newer}
            scope["headers"] = [pair for pair in scope["headers"] if pair != _HOST]

        async def receive_once() -> Any:
            nonlocal has_ended
            message = None if has_ended else await receive()
            has_ended = message is None or message["type"].endswith(".disconnect")
            if message is None or message["type"] == "http.disconnect":
                await asyncio.get_running_loop().create_future()
            return message

        await app(scope, receive_once, send)

    return told


def run(self: Any) -> None:
    """In place of `DaphneProcess.run`, in the forked process: serve until it is terminated."""
    try:
        given: dict[str, Any] = {_OURS[name]: value for name, value in self.kwargs.items() if name in _OURS}
        if "proxy_forwarded_address_header" not in self.kwargs:
            given["trusted_proxies"] = ""
        options, limits = split({"lifespan": "off", **given})
        server = HttpServer(_as_daphne_tells(self.get_application()), options=options, limits=limits)
        if self.setup is not None:
            self.setup()
        with socket.create_server((self.host, 0)) as listener:
            listener.setblocking(False)
            self.port.value = listener.getsockname()[1]
            self.ready.set()
            # The tests end the process as soon as they have the head of an answer, and read its body then.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, lambda *_: signal.setitimer(signal.ITIMER_REAL, FAREWELL_S))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve(listener))
    except BaseException as error:
        self.errors.put((error, traceback.format_exc()))
        raise


def pytest_configure() -> None:
    """Before any test makes an instance."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("strangers", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("strangers")
    daphne.testing.DaphneProcess.run = run
    HTTPConnection.endheaders = endheaders  # type: ignore[method-assign]
