"""What clients need of a server, by ASGI and by WSGI alike.

/echo sends the body back; /bytes/N and /chunks/N send N bytes, with and without a length; /pid says which worker answers;
any other path tells what came.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

_PIECE_BYTES = 50_000


def _number(path: str) -> int:
    return int(path.rpartition("/")[2])


def _pieces(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, _PIECE_BYTES))
        size -= _PIECE_BYTES


async def _body(receive: Any) -> bytes:
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message["body"])
        more = message["more_body"]
    return b"".join(pieces)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await _echo_messages(receive, send)
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    body = await _body(receive)
    if path.startswith("/chunks/"):
        await send({"type": "http.response.start", "status": 200})
        for piece in _pieces(_number(path)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        return
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode()
    status, headers, body = _answer(scope["method"], path, query, headers, body)
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _echo_messages(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text", "").startswith("close "):
            await send({"type": "websocket.close", "code": int(message["text"][6:]), "reason": "as told"})
        else:
            await send({**message, "type": "websocket.send"})


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"].encode("latin-1").decode()
    body = environ["wsgi.input"].read()
    if path.startswith("/chunks/"):
        start_response("200 OK", [])
        return _pieces(_number(path))
    headers = {
        name.removeprefix("HTTP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name.startswith("CONTENT_") and value)
    }
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    status, headers, body = _answer(method, path, query, headers, body)
    start_response(f"{status} Status", list(headers.items()))
    return [body]


def _answer(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    status = 200
    if path == "/pid":
        body = b"%d" % os.getpid()
    elif path.startswith("/bytes/"):
        body = bytes(_number(path))
    elif path == "/range":
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        status, body = 206, bytes(range(256))[int(first) : int(last) + 1]
    elif path != "/echo":
        told = {"method": method, "path": path, "query": query, "headers": headers, "size": len(body)}
        body = json.dumps(told).encode()
    return status, {"content-length": str(len(body)), "x-path": path.encode().hex()}, body
