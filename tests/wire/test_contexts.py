"""What one application sets in its context no later request sees, whoever wakes up whom."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from prefork.http.limits import HttpLimits
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, run, served

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
BIG_BYTES = 16 * 1024 * 1024
"""More than a kernel takes of an answer that nobody reads."""


def request(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode()


class Witness:
    """Notes whom each request finds in its context, and sets another."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.has_begun = asyncio.Event()
        self.may_read = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        self.found.append(WHO.get())
        WHO.set("alice")
        headers = [(b"connection", b"close")] if scope["path"] == "/close" else []
        if scope["path"] == "/upload":
            self.has_begun.set()
            await self.may_read.wait()
            while (await receive())["more_body"]:
                pass
        body = b"x" * BIG_BYTES if scope["path"] == "/big" else b"x"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def after_an_upload(witness: Witness, port: int) -> None:
    """Reading was stopped, and goes on since the application takes its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/upload", "Content-Length: 2000000\r\n") + b"b" * 2_000_000)
    await witness.has_begun.wait()
    await asyncio.sleep(0.05)  # more than the server holds is on its way
    witness.may_read.set()
    await reader.readuntil(b"\r\n\r\nx")
    writer.write(request("/after"))
    await reader.readuntil(b"\r\n\r\nx")
    writer.close()


async def behind_a_big_answer(witness: Witness, port: int) -> None:
    """A pipelined request is started when the client has taken the answer before it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request("/big") + request("/after", "Connection: close\r\n"))
        while await loop.sock_recv(client, 2**20):
            pass


async def in_the_place_of_one_that_has_left(witness: Witness, port: int) -> None:
    """A full worker accepts again, since an application has closed its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.05)  # accepted: from now on the worker is full
    writer.write(request("/close"))
    await reader.read()
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/after", "Connection: close\r\n"))
    await reader.read()
    writer.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("do", [after_an_upload, behind_a_big_answer, in_the_place_of_one_that_has_left])
def test_a_request_finds_nothing_of_the_one_before(
    loop: str, do: Callable[[Witness, int], Awaitable[None]]
) -> None:
    async def story() -> list[str]:
        witness = Witness()
        async with served(HttpServer(witness, limits=HttpLimits(connections=1))) as port:
            await do(witness, port)
        return witness.found

    assert run(loop, story) == ["nobody", "nobody"]
