"""What a fuzzed connection serves. Each answers as its request says, and makes no mistakes of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any
from wsgiref.validate import validator

from tests.fuzz.conversation import Heard, Request


def _request(heard: Heard, scope: Any, body: bytes | None) -> Request:
    heard.clients.append((scope["client"], scope["scheme"]))
    target = (scope["raw_path"], scope["query_string"])
    return Request(scope["method"], target, tuple(scope["headers"]), body, scope["http_version"])


def echo(heard: Heard) -> Any:
    """ASGI: the whole body comes back. A WebSocket is accepted, and its messages come back."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await _echo_messages(heard, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                heard.requests.append(_request(heard, scope, None))
                return
            body += message["body"]
            more = message["more_body"]
        heard.requests.append(_request(heard, scope, body))
        text = scope["method"].encode() + b" " + scope["raw_path"] + b" [" + body + b"]"
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


async def _echo_messages(heard: Heard, receive: Any, send: Any) -> None:
    await receive()
    with contextlib.suppress(OSError):
        await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        said = message.get("text")
        heard.messages.append(message["bytes"] if said is None else said)
        with contextlib.suppress(OSError):  # it has closed already
            await send({**message, "type": "websocket.send"})
    heard.end = (message["code"], message["reason"])


def various(heard: Heard) -> Any:
    """ASGI: answers early, late, in pieces, in chunks, with none of the body read, as the path says."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await _echo_messages(heard, receive, send)
            return
        heard.requests.append(_request(heard, scope, None))
        path, more = scope["raw_path"], True
        if b"r" in path:  # read the first piece only
            more = (await receive()).get("more_body", False)
        status = 204 if b"n" in path else 304 if b"m" in path else 200
        headers = [(b"connection", b"close")] if b"c" in path else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            for _ in range(path.count(b"p")):  # pieces
                await send({"type": "http.response.body", "body": b"x" * 60, "more_body": True})
            if b"a" in path:  # all the rest of the body, after the head
                while more:
                    message = await receive()
                    more = message.get("more_body", False)
                    body = message.get("body", b"")
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"end"})
        except OSError:
            return
        if b"w" in path:  # wait until the client is gone
            while (await receive())["type"] != "http.disconnect":
                pass

    return app


def wsgi(heard: Heard) -> Any:
    """WSGI, held by `wsgiref.validate` to what it may do and what it may expect."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH")
        stream = environ["wsgi.input"]
        body = b"".join(iter(lambda: stream.read(7), b""))
        assert length is None or int(length) == len(body)
        client = environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")
        heard.clients.append((client, environ["wsgi.url_scheme"]))
        path, _, query = environ["RAW_URI"].encode("latin-1").partition(b"?")
        heard.requests.append(
            Request(environ["REQUEST_METHOD"], (path, query), (), body, environ["SERVER_PROTOCOL"][5:])
        )
        text = environ["REQUEST_METHOD"].encode() + b" " + path + b" [" + body + b"]"
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    return validator(app)


def careless(app: Any) -> Any:
    """Makes one that does as `app` does, and leaves nothing in its scopes as it was."""

    def make(heard: Heard) -> Any:
        inner = app(heard)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            seen = {**scope, "headers": scope["headers"].copy()}
            scope["headers"][:] = [(b"x-forwarded-for", b"9.9.9.9"), (b"host", b"left-behind")]
            scope["client"] = ("9.9.9.9", 9)
            scope["state"]["left"] = "behind"
            for each in ("asgi", "extensions"):
                scope[each].clear()
            await inner(seen, receive, send)

        return called

    return make
