"""FastAPI with everything that it runs in threads: endpoints, dependencies, files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse

app = FastAPI()


def resource() -> Iterator[str]:
    yield threading.current_thread().name


@app.get("/in-a-thread")
def in_a_thread() -> dict[str, str]:
    return {"thread": threading.current_thread().name}


@app.get("/depends")
async def depends(name: Annotated[str, Depends(resource)]) -> dict[str, str]:
    return {"thread": name}


@app.get("/file")
def file() -> FileResponse:
    return FileResponse(__file__)
