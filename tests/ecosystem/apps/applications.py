"""Small applications that tell what happens to them, one for each kind of server.

"/" answers with the worker's pid; "/hold" says "holding" on standard output and answers once a byte comes
on standard input, so that a test holds a request in flight for as long as it likes.
"""

from __future__ import annotations

import asyncio
import os
import socketserver
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any


def say(word: str) -> None:
    """One line to the test; written at once, and whole, from any thread or signal handler."""
    os.write(sys.stdout.fileno(), f"{word}\n".encode())


def hold() -> bytes:
    """Block until the test lets go."""
    say("holding")
    os.read(0, 1)
    return b"held"


async def asgi(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """An ASGI application with a lifespan."""
    if scope["type"] == "lifespan":
        await receive()
        say("startup")
        scope["state"]["greeting"] = "hello"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid()).encode()
    if scope["path"] == "/hold":
        body = await asyncio.to_thread(hold)
    elif scope["path"] == "/state":
        body = scope["state"]["greeting"].encode()
    elif scope["path"] == "/echo":
        body = b""
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def asgi_without_lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application that knows requests only, and says so with an exception."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await asgi(scope, receive, send)


async def asgi_that_says_failed(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application that refuses to start, as the specification has it."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "Traceback:\nRuntimeError: no database"})


async def asgi_that_raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application that raises when it starts."""
    await receive()
    raise RuntimeError("no database")


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A WSGI application."""
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/hold":
        body = hold()
    elif environ["PATH_INFO"] == "/scheme":
        body = environ["wsgi.url_scheme"].encode()
    elif environ["PATH_INFO"] == "/echo":
        body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def aiohttp_application(*, fails: bool = False) -> Any:
    """An aiohttp application with a start and an end."""
    from aiohttp import web

    async def life(_app: web.Application) -> AsyncIterator[None]:
        if fails:
            raise RuntimeError("no database")
        say("startup")
        yield
        say("shutdown")

    async def index(_request: web.Request) -> web.Response:
        return web.Response(text=str(os.getpid()))

    async def held(_request: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(hold))

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    application = web.Application(client_max_size=2**24)
    application.cleanup_ctx.append(life)
    application.add_routes([web.get("/", index), web.get("/hold", held), web.post("/echo", echo)])
    return application


async def stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo, until the client has no more to say; then say goodbye."""
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")


class ThreadEcho(socketserver.BaseRequestHandler):
    """The same, blocking."""

    def handle(self) -> None:
        """Serve one connection."""
        while data := self.request.recv(1000):
            self.request.sendall(data)
        self.request.sendall(b"bye")
