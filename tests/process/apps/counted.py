"""An application for two hosts: says its version, its host's name and its pid, and counts each answer in the shared state."""

from __future__ import annotations

import os
from typing import Any

from prefork.shared import Counter

VERSION = os.environ.get("TEST_VERSION", "first")
HOST = os.environ.get("TEST_HOST", "?")
answers = Counter("answers")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Count, and say who answers; /total says what was counted, and is not counted itself."""
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    if scope["path"] == "/total":
        body = b"%d" % answers.get()
    else:
        answers.add()
        body = f"{VERSION} on {HOST}, pid {os.getpid()}".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
