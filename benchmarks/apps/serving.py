"""What the HTTP benchmark serves, ASGI, WSGI and RSGI: one application for each shape of a request or an answer.

Nothing is decided per request that the shape does not need, so that the server is what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

GREETING = b"Hello, World!"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(GREETING))]
WSGI_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(GREETING)))]
LARGE = b"x" * 1024 * 1024
LARGE_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(LARGE))]
CHUNK = b"x" * 64 * 1024
CHUNKS = 16
PAUSE_S = 0.1


def _http_only(scope: dict[str, Any]) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # a server takes that for "no lifespan"


async def hello(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Thirteen bytes."""
    _http_only(scope)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": GREETING})


def hello_wsgi(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Thirteen bytes, by WSGI."""
    start_response("200 OK", WSGI_HEADERS)
    return [GREETING]


async def sleeping(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Thirteen bytes, 100 ms later."""
    _http_only(scope)
    await asyncio.sleep(PAUSE_S)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": GREETING})


async def large(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """A megabyte in one piece."""
    _http_only(scope)
    await send({"type": "http.response.start", "status": 200, "headers": LARGE_HEADERS})
    await send({"type": "http.response.body", "body": LARGE})


async def upload(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Takes the whole body, then thirteen bytes; 400 if a byte is missing."""
    _http_only(scope)
    missing = len(LARGE)
    while True:
        event = await receive()
        missing -= len(event.get("body", b""))
        if not event.get("more_body"):
            break
    status = 200 if missing == 0 else 400
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": GREETING})


async def stream(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """A megabyte in chunks of 64 KiB, its length not said."""
    _http_only(scope)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS[:1]})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Each WebSocket message back. Plain HTTP gets `hello`."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
        else:
            await send({"type": "websocket.send", "text": text})


async def hello_rsgi(_scope: Any, protocol: Any) -> None:
    """Thirteen bytes, by granian's RSGI."""
    protocol.response_bytes(200, WSGI_HEADERS, GREETING)
