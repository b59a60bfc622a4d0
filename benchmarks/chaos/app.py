"""What is served while it is on fire. ASGI.

/         "pid 123"
/grow?N   takes N MiB, and keeps them if it gets them
/keep?N   puts N KiB into the state that all workers see; "kept", or why not
/body     reads the body to its end, and says how long it was
"""

from __future__ import annotations

import os
from typing import Any

from prefork.shared import Cache

KEPT: list[bytearray] = []
PAGES = Cache("pages")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the path asks."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    number = int(scope["query_string"] or b"0")
    body = b"pid %d" % os.getpid()
    match scope["path"]:
        case "/grow":
            KEPT.extend(bytearray(b"x") * (1 << 20) for _ in range(number))
        case "/keep":
            body = _keep(number)
        case "/body":
            body = b"%d bytes" % await _length(receive)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _keep(number: int) -> bytes:
    try:
        PAGES.set(f"page {os.urandom(8).hex()}", os.urandom(number << 10))
    except Exception as error:
        return f"not kept: {type(error).__name__}: {error}"[:200].encode()
    return b"kept"


async def _length(receive: Any) -> int:
    length = 0
    while True:
        event = await receive()
        length += len(event.get("body", b""))
        if not event.get("more_body"):
            return length
