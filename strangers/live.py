"""A live server of ours on loopback, in a thread: its application writes down what it hears, its client tells it cases.

One case at a time: what the application has heard when a conversation is over belongs to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import uvloop

from prefork.http.options import split
from prefork.http.server import HttpServer
from strangers.case import Heard, Outcome

LIMIT_S = 10.0
"""Bound of each conversation."""

Interface = Literal["asgi", "wsgi"]


class Recorder:
    """Two applications, ASGI and WSGI, that answer nothing but 200 and write down each request."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """Write the head down at once, so that one whose body is refused is seen, too."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        said = self.heard
        said.append(
            Heard(
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                scope["query_string"].decode("latin-1"),
                scope["http_version"],
                tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
                b"",
                is_whole=False,
            )
        )
        at, body, is_more = len(said) - 1, b"", True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        said[at] = replace(said[at], body=body, is_whole=True)
        headers = [(b"content-length", b"0"), (b"x-heard", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """The same; a body that is refused never gets here, since it is read first."""
        names = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
        headers = [
            (names.get(key, key.removeprefix("HTTP_").lower().replace("_", "-")), value)
            for key, value in environ.items()
            if key.startswith("HTTP_") or key in names
        ]
        self.heard.append(
            Heard(
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
                tuple(headers),
                environ["wsgi.input"].read(),
                is_decoded=True,
            )
        )
        start_response("200 OK", [("Content-Length", "0"), ("X-Heard", "1")])
        return []


class Live:
    """The server's address, and what its application has heard."""

    def __init__(self, port: int, recorder: Recorder) -> None:
        self.port = port
        self._recorder = recorder

    def tell(self, pieces: Sequence[bytes]) -> Outcome:
        """Send the pieces on a connection of their own, say that nothing more comes, and read to the end."""
        answered, self._recorder.heard = b"", []
        with socket.create_connection(("127.0.0.1", self.port), LIMIT_S) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
            except OSError as error:
                # The server has refused, and does not listen any more: its answer is read below.
                if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                    raise
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(2**16):
                    answered += data
        return Outcome(tuple(self._recorder.heard), answered)


@contextlib.contextmanager
def in_thread(
    app: Any,
    interface: Interface,
    given: Mapping[str, Any],
    listener: socket.socket,
    loop_factory: Any = uvloop.new_event_loop,
) -> Iterator[HttpServer]:
    """Serve `app` on `listener` in a thread of its own; drained at the end. `given`: what `Server` takes by name."""
    options, limits = split(given)
    server = HttpServer(app, interface=interface, options=options, limits=limits)
    escaped: list[BaseException] = []

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(server.serve(listener))
        except BaseException as error:
            escaped.append(error)

    listener.setblocking(False)
    thread = threading.Thread(target=serve, name="a live server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.drain()
        thread.join(LIMIT_S)
        if escaped:
            raise escaped[0]


@contextlib.contextmanager
def _unheard(logger: logging.Logger) -> Iterator[None]:
    """What strangers send is meant to be wrong, and the log says so of each. Runs also in the process of the test suite."""
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def serving(interface: Interface, given: Mapping[str, Any]) -> Iterator[Live]:
    """A live server with its recorder."""
    recorder = Recorder()
    app = recorder.asgi if interface == "asgi" else recorder.wsgi
    with (
        _unheard(logging.getLogger("prefork")),
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        in_thread(app, interface, {"threads": 1, **given}, listener),
    ):
        yield Live(listener.getsockname()[1], recorder)
