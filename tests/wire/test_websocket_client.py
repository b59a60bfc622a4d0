"""A WebSocket client that is a whole program, over TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import trustme
from websockets.asyncio.client import connect

from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.limits import HttpLimits
from prefork.http.websocket import WebSocketProtocol
from tests.wire.rig import run
from tests.wire.test_websocket_rig import both_loops, echo, masked


class Front(asyncio.Protocol):
    """Reads a request as our server does, for clients that are whole programs."""

    def __init__(self, engine: Engine, connections: Connections[Any]) -> None:
        self.engine, self.connections = engine, connections
        self.read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, end, rest = self.read.partition(b"\r\n\r\n")
        if end:
            pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "https",
                "path": "/",
                "headers": [(name.lower(), value) for name, value in pairs],
            }
            WebSocketProtocol(self.engine, HttpLimits(), self.connections, self.transport, scope).begin(rest)


@both_loops
def test_a_real_client_over_tls(loop: str) -> None:
    """Echo, a drain, and a client's mistake, by the real clock."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    async def told() -> None:
        running = asyncio.get_running_loop()
        connections: Connections[Any] = Connections(running.time)
        clock = Clock(running, connections)
        engine = Engine(echo, running, clock, {})
        server = await running.create_server(
            lambda: Front(engine, connections), "127.0.0.1", 0, ssl=server_side
        )
        port = server.sockets[0].getsockname()[1]

        def dial() -> connect:
            return connect(
                f"wss://localhost:{port}/", ssl=client_side, host="127.0.0.1", port=port, proxy=None
            )

        async with dial() as client, dial() as wrong:
            for message in ("text", b"bytes", "x" * 500_000, b"\0" * 500_000, "ü" * 1000):
                await client.send(message)
                assert await client.recv() == message
            wrong.transport.write(masked(0x83, b""))
            await wrong.wait_closed()
            assert wrong.close_code == 1002
            for connection in list(connections):
                connection.say_close()
            await client.wait_closed()
            assert client.close_code == 1012
        server.close()
        while connections or engine.running:  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)
        clock.stop()

    run(loop, told)
