"""`HttpServer` from its start to its drain, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from prefork.errors import ApplicationError, ConfigError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, answers, echo, run

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class TouchedListener(socket.socket):
    """A listener that knows whether its descriptor was reached for."""

    is_touched = False

    def fileno(self) -> int:
        self.is_touched = True
        return super().fileno()


def listening() -> TouchedListener:
    listener = TouchedListener()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    listener.setblocking(False)
    listener.is_touched = False
    return listener


@contextlib.asynccontextmanager
async def serving(server: HttpServer, listener: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(server.serve(listener))
    # A server that ends early ends the story: its client would wait for ever.
    task.add_done_callback(lambda ended: listener.close() if ended.cancelled() or ended.exception() else None)
    try:
        yield task
    finally:
        server.drain()
        await task
        listener.close()


class Client:
    """A raw client with a stream to read from."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, listener: socket.socket, context: ssl.SSLContext | None = None) -> Client:
        port = listener.getsockname()[1]
        name = "localhost" if context else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))

    async def ask(self, raw: bytes = GET, end: bytes = b"GET / [] []") -> bytes:
        self.writer.write(raw)
        return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        try:
            return await self.reader.read()
        finally:
            self.writer.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_answers_late_requests_and_says_close(loop: str) -> None:
    """An idle client that asks during the linger gets its answer, with `connection: close`; then serve returns."""

    async def story() -> None:
        listener = listening()
        server = HttpServer(echo)
        async with serving(server, listener) as task:
            client = await Client.to(listener)
            (first,) = answers(await client.ask())
            assert first["connection"] is None
            server.drain()
            late = first
            while late["connection"] is None:  # asked before the drain was heard of: no promise yet
                (late,) = answers(await client.ask())
            assert late["connection"] == b"close"
            assert await client.rest() == b""
            await task

    run(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_waits_for_what_is_in_flight(loop: str) -> None:
    """A request that runs when the drain comes is answered whole, closed after, and its background work done."""
    events: list[str] = []
    gate: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        gate.append(asyncio.Event())
        await gate[0].wait()
        await echo(scope, receive, send)
        await asyncio.sleep(0)
        events.append("background")

    async def story() -> None:
        listener = listening()
        server = HttpServer(app)
        async with serving(server, listener) as task:
            client = await Client.to(listener)
            asking = asyncio.ensure_future(client.ask())
            while not gate:  # noqa: ASYNC110  (the loop's next turn, not a time)
                await asyncio.sleep(0)
            server.drain()
            await asyncio.sleep(0)
            gate[0].set()
            (answer,) = answers(await asking)
            assert answer["connection"] == b"close"
            assert await client.rest() == b""
            await task

    run(loop, story)
    assert events == ["background", "shutdown"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_failed_start_touches_no_listener(loop: str) -> None:
    """The application refuses: ApplicationError, and the worker was never ready."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no database")

    async def story() -> None:
        with listening() as listener:
            with pytest.raises(ApplicationError, match="no database") as failure:
                await HttpServer(app).serve(listener)
            assert not listener.is_touched
            assert "raise ValueError" in failure.value.details

    run(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_lifespan_state_reaches_requests(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["name"] = "known"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = f"{scope['state']['name']} {scope['client'][0]} {scope['server'][0]}".encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    async def story() -> None:
        listener = listening()
        async with serving(HttpServer(app), listener):
            client = await Client.to(listener)
            await client.ask(end=b"known 127.0.0.1 127.0.0.1")
            client.writer.close()

    run(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_tls(loop: str, tmp_path: Path) -> None:
    """From files; the scheme is https, and a plain client harms nobody."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    key_file.write_bytes(certificate.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    async def story() -> None:
        listener = listening()
        server = HttpServer(app)
        task = asyncio.ensure_future(server.serve_tls(listener, str(cert_file), str(key_file)))
        client = await Client.to(listener, context)
        await client.ask(end=b"\r\n\r\nhttps")
        client.writer.close()
        server.drain()
        await task
        listener.close()

    run(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_before_the_start_serves_nobody(loop: str) -> None:
    async def story() -> None:
        with listening() as listener:
            server = HttpServer(echo)
            server.drain()
            await server.serve(listener)
            assert not listener.is_touched

    run(loop, story)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HttpServer(None),  # type: ignore[arg-type]
        lambda: HttpServer(echo, options=HttpOptions(lifespan="maybe")),
        lambda: HttpServer(echo, options=HttpOptions(root_path="a")),
        lambda: HttpLimits(head_s=0),
    ],
)
def test_what_cannot_be_is_refused_at_once(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
