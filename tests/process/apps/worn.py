"""An ASGI application for the tests of those who operate: it grows, gets stuck, and logs.

/          "pid 123"
/grow?N    keeps N MiB more
/stuck     never comes back from C: no signal handler of Python's runs any more
/debug     logs a line at level debug
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import os
import sys
from typing import Any

KEPT: list[bytearray] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the path asks."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    path = scope["path"]
    if path == "/grow":
        KEPT.append(bytearray(os.urandom(1 << 20) * int(scope["query_string"])))
    elif path == "/stuck":
        sys.stderr.write(f"stuck pid {os.getpid()}\n")
        collections.deque(itertools.repeat(0), maxlen=0)
    elif path == "/debug":
        logging.getLogger("worn").debug("a word of the application's")
    elif path == "/wait":
        sys.stderr.write(f"waiting pid {os.getpid()}\n")
        await wait_for_ever()
    body = b"pid %d" % os.getpid()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def wait_for_ever() -> None:
    """A task that will be seen here."""
    await asyncio.Event().wait()
