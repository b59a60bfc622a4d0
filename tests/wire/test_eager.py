"""When an application is begun: within the read event where Python can start tasks eagerly, else in the loop's next turn."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from tests.wire import test_websocket_rig as websocket
from tests.wire.rig import LOOPS, Wire, run

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
IS_EAGER = sys.version_info >= (3, 12)
pytestmark = pytest.mark.parametrize("loop", LOOPS)


@pytest.mark.parametrize("waits", [False, True])
def test_a_request(loop: str, *, waits: bool) -> None:
    """One that waits for nothing is answered, and forgotten, before anything else has its turn; one that waits has begun."""
    seen: list[str] = []

    async def story() -> tuple[list[str], int]:
        may_end = asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            seen.append("begun")
            if waits:
                await may_end.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            seen.append("ended")

        async with Wire(app) as wire:
            wire.feed(GET)
            within = list(seen), len(wire.engine.running)
            may_end.set()
            assert b" 200 OK\r\n" in await wire.read(b"\r\n\r\n")
            return within

    if not IS_EAGER:
        expected: tuple[list[str], int] = ([], 1)
    elif waits:
        expected = (["begun"], 1)
    else:
        expected = (["begun", "ended"], 0)
    assert run(loop, story) == expected
    assert seen == ["begun", "ended"]


def test_a_websocket(loop: str) -> None:
    """It has the first message, and may have accepted."""

    async def story() -> list[str]:
        app = websocket.Told()
        async with websocket.Wire(app) as wire:
            wire.begin()
            within = [each["type"] for each in app.messages]
            await wire.until(lambda: app.messages)
            return within

    assert run(loop, story) == (["websocket.connect"] if IS_EAGER else [])
