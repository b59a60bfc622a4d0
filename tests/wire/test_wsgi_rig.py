"""A connection to a WSGI application, in both ways of running it; and that the rig would notice what goes wrong."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator

import pytest

from prefork.http.engine import Engine
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_pool import ThreadPool
from prefork.http.wsgi_threads import PooledWSGIExchange
from tests.wire.rig import LOOPS, Answer, Wire, answers, run

THREADS = {"inline": 1, "threads": 2}
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = ("Content-Type", "text/plain")

both_ways = pytest.mark.parametrize(("loop", "way"), [(loop, way) for loop in LOOPS for way in THREADS])


class WsgiWire(Wire):
    """A connection whose requests are answered by a WSGI application. An async context manager."""

    def __init__(self, app: Any, way: str = "inline", **options: Any) -> None:
        super().__init__(app, **options)
        count = THREADS[way]
        exchange = WSGIExchange if count == 1 else PooledWSGIExchange
        self.engine = Engine(app, self.loop, self.clock, {}, exchange)
        self.engine.pool = ThreadPool(count) if count > 1 else None

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        if self.engine.pool is not None:
            self.engine.pool.close()

    async def rest(self) -> None:
        """Until no application runs any more."""
        await self.until(lambda: not self.engine.running)


def posting(body: bytes, *headers: bytes) -> bytes:
    """A POST with a body of known length."""
    return b"\r\n".join(
        (b"POST / HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers, b"", body)
    )


async def talk(pieces: Iterable[bytes], app: Any, way: str, **options: Any) -> tuple[bytes, bool]:
    """Feed all the pieces: what came back, without dates, and whether the server closed by itself."""
    async with WsgiWire(app, way, **options) as wire:
        for piece in pieces:
            wire.feed(piece)
            await asyncio.sleep(0)
        await wire.settle()
        await wire.rest()
        is_closing = wire.is_closing
        raw = await wire.read_to_end()
        return re.sub(rb"date: [^\r]*GMT", b"date: now", raw), is_closing


def ask(loop: str, way: str, app: Any, raw: bytes = GET, method: str = "GET") -> tuple[Answer, bool]:
    """One request to an application: its answer, and whether the server closed."""
    found, is_closing = run(loop, lambda: talk([raw], app, way))
    [answer] = answers(found, [method])
    return answer, is_closing


def answering(
    *pieces: bytes, status: str = "200 OK", headers: Any = (PLAIN,), shape: Callable[[Any], Any] = list
) -> Any:
    """An application that returns these pieces in some shape."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return shape(pieces)

    return app


class UnvalidatedError(Exception):
    """The validator of the standard library has found something."""


def validated(app: Any) -> Any:
    """The application behind `wsgiref.validate`; what it objects to is an answer of 500, and so noticed."""
    checked = validator(app)

    def wrapped(environ: Any, start_response: Any) -> Any:
        try:
            return checked(environ, start_response)
        except AssertionError as error:
            raise UnvalidatedError(str(error)) from error

    return wrapped


@both_ways
def test_the_rig_notices(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """An application that returns a string is answered with 500, and the log says why."""
    answer, is_closing = ask(loop, way, validated(lambda _environ, _start_response: "text"))
    assert (answer.status, is_closing) == (500, True)
    assert "UnvalidatedError" in caplog.text
    assert sys.exc_info() == (None, None, None)
