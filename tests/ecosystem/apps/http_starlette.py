"""Starlette with nothing between it and the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    os.write(2, b"starlette: begun\n")
    yield {"requests": []}
    os.write(2, b"starlette: ended\n")


async def breaks(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("in the midst of a stream")

    return StreamingResponse(pieces())


async def waits(request: Request) -> PlainTextResponse:
    """Until the client has left."""
    os.write(2, b"starlette: waiting\n")
    while not await request.is_disconnected():  # noqa: ASYNC110  (as applications do it)
        await asyncio.sleep(0.01)
    os.write(2, b"starlette: it has left\n")
    return PlainTextResponse("nobody reads this")


async def body(request: Request) -> PlainTextResponse:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        os.write(2, b"starlette: half a body\n")
        raise


async def slow(_request: Request) -> PlainTextResponse:
    os.write(2, b"starlette: asked\n")
    await asyncio.sleep(0.3)
    return PlainTextResponse("done")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-own", b"1")])
    try:
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(message)
    except WebSocketDisconnect as left:
        os.write(2, b"starlette: %d\n" % left.code)
    else:
        os.write(2, b"starlette: closed\n")


async def raises(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("of the application")


app = Starlette(
    routes=[
        Route("/breaks", breaks),
        Route("/waits", waits),
        Route("/slow", slow),
        Route("/body", body, methods=["POST"]),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/raises", raises),
    ],
    lifespan=lifespan,
)
