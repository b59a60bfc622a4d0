"""An ASGI application for the tests of promises: says which worker answers, holds requests, hangs, spawns.

/            "pid 123"
/hold?PATH   answers when PATH, a named pipe, is written to; says "holding pid 123" before
/hang        blocks the event loop for good
/litter?PATH starts a process that outlives its parent's attention: a grandchild, which ends with the named pipe PATH
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the path asks."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    path = scope["path"]
    if path == "/hold":
        await _hold(scope["query_string"].decode())
    elif path == "/hang":
        sys.stderr.write(f"hanging pid {os.getpid()}\n")
        time.sleep(1000)  # noqa: ASYNC251  (that is what is tested)
    elif path == "/litter":
        # Its parent, the shell, ends at once; so it is left to the nearest subreaper. Who is cat has opened the pipe.
        words = ["sh", "-c", 'cat < "$1" > /dev/null &', "sh", scope["query_string"].decode()]
        subprocess.run(words, check=True)  # noqa: ASYNC221  (short)
    body = b"pid %d" % os.getpid()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return


async def _hold(pipe: str) -> None:
    sys.stderr.write(f"holding pid {os.getpid()}\n")
    await asyncio.get_running_loop().run_in_executor(None, _read_one, pipe)


def _read_one(pipe: str) -> None:
    with Path(pipe).open("rb", buffering=0) as end:
        end.read(1)
