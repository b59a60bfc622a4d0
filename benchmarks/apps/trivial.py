"""An ASGI application that says which worker answers; with its lifespan it says that a worker is coming up.

With BENCHMARK_COLLECT in the environment each worker collects garbage in its start-up, which is what spoils the
sharing of memory after a fork.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer "pid 123" to everything."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = b"pid %d" % os.getpid()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        event = (await receive())["type"]
        if event == "lifespan.startup":
            if "BENCHMARK_COLLECT" in os.environ:
                gc.collect()
            sys.stderr.write(f"up pid {os.getpid()}\n")
            sys.stderr.flush()
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return
