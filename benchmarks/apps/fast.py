"""FastAPI with one route that answers JSON."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root() -> dict[str, str]:
    """The route of FastAPI's own tutorial."""
    return {"message": "Hello, World!"}
