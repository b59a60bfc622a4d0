"""FastAPI with what applications use of it; what happens after an answer is told by a file that a request names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, Request, UploadFile, WebSocket
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "hello"}


app = FastAPI(lifespan=lifespan)
sub = FastAPI()
app.mount("/sub", sub)


class Signed(BaseHTTPMiddleware):
    """The most used of all middlewares: it puts itself between the server and each answer."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-signed"] = request.url.path
        return response


app.add_middleware(Signed)
app.add_middleware(GZipMiddleware, minimum_size=5000)


class Item(BaseModel):
    """Validated by pydantic."""

    name: str
    price: float = Field(gt=0)


def leave(path: str, word: str) -> None:
    """A word for the test, which looks into the file."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(word)


def session(note: str) -> Iterator[str]:
    leave(note, "opened ")
    yield "session"
    leave(note, "closed ")


@app.get("/json")
async def json(request: Request, number: int = 0) -> dict[str, Any]:
    return {"number": number, "greeting": request.state.greeting, "é": "ü"}


@app.post("/items", status_code=201)
async def create(item: Item) -> Item:
    return item


@app.get("/sync/{name:path}")
def sync(name: str) -> PlainTextResponse:
    return PlainTextResponse(name)


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(20):
            yield b"%d," % number
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="text/event-stream")


@app.get("/endless")
async def endless(note: str) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.01)
        finally:
            leave(note, "ended ")

    return StreamingResponse(pieces())


@app.get("/later")
async def later(note: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(leave, note, "background ")
    return "now"


@app.get("/depends")
async def depends(found: Annotated[str, Depends(session)]) -> str:
    return found


@app.get("/file")
async def file(path: str) -> FileResponse:
    return FileResponse(path, filename="ü.bin")


@app.post("/upload")
async def upload(files: Annotated[list[UploadFile], File()], word: Annotated[str, Form()]) -> Any:
    sizes = {each.filename: len(await each.read()) for each in files}
    return {"word": word, "sizes": sizes}


@app.post("/count")
async def count(request: Request) -> dict[str, int]:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"size": size}


@app.get("/cookies")
async def cookies() -> JSONResponse:
    response = JSONResponse({})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", httponly=True)
    return response


@app.get("/empty", status_code=204)
async def empty() -> None: ...


@app.get("/raises")
async def raises() -> None:
    raise RuntimeError("of the application")


@app.get("/where", name="here")
@sub.get("/where", name="there")
async def where(request: Request) -> dict[str, Any]:
    scope = request.scope
    return {
        "root_path": scope["root_path"],
        "path": scope["path"],
        "url": request.url.path,
        "named": request.url_for(scope["route"].name).path,
        "query": str(request.query_params),
    }


@app.websocket("/ws")
async def ws(websocket: WebSocket, name: str = "nobody") -> None:
    await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
    await websocket.send_json({"hello": name, "state": websocket.state.greeting})
    with contextlib.suppress(WebSocketDisconnect):
        while (text := await websocket.receive_text()) != "bye":
            await websocket.send_text(text.upper())
        await websocket.close(3001, "as you say")


@app.websocket("/never")
async def never(websocket: WebSocket) -> None:
    await websocket.close(1008)
