"""A framework whose middleware and threads run an endpoint elsewhere than on the request's own task: it is found all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.apps import UNCACHED, Site, wait_until_ready
from tests.process.harness import Fleet
from tests.process.test_refusals import get

FASTAPI = """
    import os
    from fastapi import FastAPI
    from starlette.responses import StreamingResponse

    app = FastAPI()

    @app.middleware("http")
    async def around(request, call_next):
        return await call_next(request)

    @app.get("/thread")
    def thread():
        os._exit(1)

    @app.get("/task")
    async def task():
        os._exit(1)

    @app.get("/ok")
    def ok():
        return "ok"

    @app.get("/stream")
    async def stream():
        async def pieces():
            for _ in range(5):
                yield b"piece"
        return StreamingResponse(pieces())
    """


@pytest.mark.parametrize("path", ["/thread", "/task"])
def test_an_endpoint_behind_middleware_takes_twice_as_many(tmp_path: Path, path: str) -> None:
    """Starlette calls it from a task of its own, FastAPI in a thread where it is no coroutine; and all else is served."""
    site = Site(tmp_path)
    site.write(FASTAPI)
    with Fleet.command(*site.serving("--refuse-after-kills", "2"), env=UNCACHED) as fleet:
        wait_until_ready(fleet)
        for _ in range(4):
            assert [get(fleet, other) for other in ("/ok", "/stream")] == [200, 200]
            since = fleet.mark()
            assert get(fleet, path) == 0
            fleet.wait_for(f"crashed: exit status 1.*, while GET {path} waited", since=since)
            fleet.wait_for(r"\) ready", since=since)
        assert [get(fleet, each) for each in (path, "/ok", "/stream")] == [503, 200, 200]
        assert fleet.stop() == 0
