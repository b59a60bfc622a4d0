"""Connections that begin with the PROXY protocol, through the whole server, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, run

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("192.0.2.7")
    + socket.inet_aton("198.51.100.1")
    + (4711).to_bytes(2, "big")
    + (443).to_bytes(2, "big")
)
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def who(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what is known of the client."""
    if scope["type"] != "http":
        raise NotImplementedError
    text = f"{scope['client']} {scope['server']} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


async def ask(
    pieces: list[bytes],
    *,
    trusted: str = "127.0.0.1",
    limits: HttpLimits | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> bytes:
    """What the server says to a client that sends these pieces, one by one."""
    options = HttpOptions(proxy_protocol=True, trusted_proxies=trusted)
    server = HttpServer(who, options=options, limits=limits)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    serving = asyncio.ensure_future(server.serve_many([listener], tls[0] if tls else None))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if tls:
            await writer.start_tls(tls[1], server_hostname="localhost")
            writer.write(GET)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"<reset>"
        finally:
            writer.close()
    finally:
        server.drain()
        await serving
        listener.close()


def on_both_loops(story: Callable[[], Awaitable[None]]) -> Callable[[str], None]:
    @pytest.mark.parametrize("loop", LOOPS)
    def test(loop: str) -> None:
        run(loop, story)

    test.__doc__ = story.__doc__
    return test


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("preface", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
def test_the_client_is_who_the_preface_says(loop: str, preface: bytes, *, is_bytewise: bool) -> None:
    async def story() -> None:
        data = preface + GET
        pieces = [bytes((each,)) for each in data] if is_bytewise else [data]
        answer = await ask(pieces)
        assert answer.endswith(b"('192.0.2.7', 4711) ('198.51.100.1', 443) http"), answer

    run(loop, story)


@on_both_loops
async def test_a_local_preface_leaves_the_peer_as_it_is() -> None:
    """The proxy asks for itself, as a health check does."""
    answer = await ask([LOCAL + GET])
    assert b"('127.0.0.1', " in answer
    assert answer.endswith(b" http")


@on_both_loops
async def test_who_is_not_named_is_not_believed() -> None:
    """With a preface that names nobody the client left is the proxy, and the headers are still a stranger's."""
    forged = GET.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https")
    for preface in (LOCAL, b"PROXY UNKNOWN\r\n"):
        answer = await ask([preface + forged])
        assert b"('127.0.0.1', " in answer
        assert answer.endswith(b" http")


@on_both_loops
async def test_no_preface_is_no_connection() -> None:
    """Not even an error goes out: who speaks without one is no proxy."""
    assert await ask([GET]) in (b"", b"<reset>")


@on_both_loops
async def test_who_is_not_trusted_is_nobody() -> None:
    """Else anybody could be anybody."""
    assert await ask([V1 + GET], trusted="192.0.2.1") in (b"", b"<reset>")


@on_both_loops
async def test_half_a_preface_is_waited_for_no_longer_than_a_head() -> None:
    """It counts as a connection meanwhile, so it must end."""
    assert await ask([V1[:20]], limits=HttpLimits(head_s=0.05)) in (b"", b"<reset>")


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_begins_behind_the_preface(loop: str) -> None:
    """Not a byte of the handshake is taken with it."""
    authority = trustme.CA()
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(of_server)
    authority.configure_trust(of_client)

    async def story() -> None:
        answer = await ask([V2], tls=(of_server, of_client))
        assert answer.endswith(b"('192.0.2.7', 4711) ('198.51.100.1', 443) https"), answer

    run(loop, story)


@on_both_loops
async def test_who_has_not_told_its_preface_counts() -> None:
    """Silent connections fill a worker, too."""
    options = HttpOptions(proxy_protocol=True)
    server = HttpServer(who, options=options, limits=HttpLimits(connections=2))
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
        listener.setblocking(False)
        for _ in range(4):
            clients.enter_context(socket.create_connection(listener.getsockname()))
        serving = asyncio.ensure_future(server.serve_many([listener], None))
        for _ in range(100):
            await asyncio.sleep(0)
        queue = select.poll()
        queue.register(listener, select.POLLIN)
        assert queue.poll(0), "all were accepted"
        clients.close()
        server.drain()
        await serving


@on_both_loops
async def test_a_drain_sends_nobody_away_whose_preface_is_on_its_way() -> None:
    options = HttpOptions(proxy_protocol=True)
    server = HttpServer(who, options=options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = asyncio.ensure_future(server.serve_many([listener], None))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        queue = select.poll()
        queue.register(listener, select.POLLIN)
        while queue.poll(0):  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)
        server.drain()
        for _ in range(10):
            await asyncio.sleep(0)
        writer.write(V1 + GET)
        assert b"192.0.2.7" in await reader.read()
        writer.close()
        await serving
