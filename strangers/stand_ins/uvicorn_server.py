"""uvicorn's tests of WebSockets against our server: a plugin for pytest.

They start their server by `run_server(config)`, which becomes one that starts ours, on the port and with the limits that the
configuration says, on the test's own loop. uvicorn repeats its tests for each of its parsers and frame codecs; here they are
run once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from prefork.http.options import split
from prefork.http.server import HttpServer

PATIENCE_S = 3.0
"""How long a server may take to drain."""


@contextlib.asynccontextmanager
async def run_server(config: Any, sockets: list[socket.socket] | None = None) -> AsyncIterator[Any]:
    """In place of theirs."""
    options, limits = split(
        {"message_bytes": config.ws_max_size, "ping_s": config.ws_ping_interval or 1000.0, "lifespan": "off"}
    )
    server = HttpServer(config.app, options=options, limits=limits)
    with contextlib.ExitStack() as stack:
        listeners = sockets or [stack.enter_context(socket.create_server(("127.0.0.1", config.port)))]
        for listener in listeners:
            listener.setblocking(False)
        serving = asyncio.create_task(server.serve_many(listeners, None))

        async def shutdown(**_options: Any) -> None:
            server.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(serving), PATIENCE_S)

        try:
            yield SimpleNamespace(shutdown=shutdown, started=True, config=config)
        finally:
            await shutdown()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put ours into the modules, which have been imported by now."""
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        module.run_server = run_server
