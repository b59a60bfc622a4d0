from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from prefork.errors import ConfigError, StoreUnavailableError
from prefork.shared import RateLimitASGI, RateLimiter, RateLimitWSGI
from prefork.shared.middleware import address_key
from tests.shared.worlds import World


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that says what it was asked."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def ask(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What an ASGI application sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def http(address: str | None = "192.0.2.1", **more: Any) -> dict[str, Any]:
    client = None if address is None else (address, 4711)
    return {"type": "http", "path": "/", "headers": [], "client": client, **more}


def limiter_in(world: World, limit: float = 1) -> RateLimiter:
    return RateLimiter("api", limit=limit, window_s=60, url=world.url)


def broken(limiter: RateLimiter) -> RateLimiter:
    """A limiter whose store has gone."""

    def take(*_: object) -> None:
        raise StoreUnavailableError("shared store x: it is not there")

    vars(limiter)["take"] = take
    return limiter


def test_who_asks_too_often_is_told_when_to_come_back(world: World) -> None:
    """429 with whole seconds; the application is not called. Others are not touched."""
    app = RateLimitASGI(hello, limiter_in(world))
    assert ask(app, http())[0]["status"] == 200
    start, body = ask(app, http())
    assert start["status"] == 429
    headers = dict(start["headers"])
    assert 1 <= int(headers[b"retry-after"]) <= 60
    assert int(headers[b"content-length"]) == len(body["body"])
    assert body["body"] == b"Too Many Requests\n"
    assert ask(app, http("192.0.2.2"))[0]["status"] == 200


def test_a_websocket_is_refused_before_it_is_accepted(world: World) -> None:
    """With 429 where the server can say that, else by closing."""
    app = RateLimitASGI(hello, limiter_in(world))
    scope = http() | {"type": "websocket"}
    assert ask(app, scope)[0] == {"type": "websocket.accept"}
    assert ask(app, scope)[0]["type"] == "websocket.close"
    start, body = ask(app, scope | {"extensions": {"websocket.http.response": {}}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert body["type"] == "websocket.http.response.body"


def test_what_is_no_request_is_let_through(world: World) -> None:
    """The lifespan, above all."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    limited = RateLimitASGI(app, limiter_in(world))
    for _ in range(3):
        ask(limited, {"type": "lifespan"})
    assert seen == ["lifespan"] * 3


def test_a_key_of_ones_own(world: World) -> None:
    """Whatever tells clients apart, of any length; None: this one is not limited."""

    def key(scope: Any) -> str | None:
        token = dict(scope["headers"]).get(b"x-token")
        return None if token is None else token.decode()

    app = RateLimitASGI(hello, limiter_in(world), key=key)
    free = [ask(app, http())[0]["status"] for _ in range(3)]
    mine = [ask(app, http(headers=[(b"x-token", b"x" * 1000)]))[0]["status"] for _ in range(2)]
    assert free == [200] * 3
    assert mine == [200, 429]


def test_headers_are_not_believed(world: World) -> None:
    """A client that makes up addresses gets one limit all the same."""
    app = RateLimitASGI(hello, limiter_in(world))
    answers = [
        ask(app, http(headers=[(b"x-forwarded-for", f"192.0.2.{n}".encode())]))[0]["status"] for n in range(3)
    ]
    assert answers == [200, 429, 429]


def test_wsgi_is_limited_alike(world: World) -> None:
    """By REMOTE_ADDR."""

    def app(environ: Any, start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        return [b"hello"]

    limited = RateLimitWSGI(app, limiter_in(world))
    heads: list[tuple[str, Any]] = []

    def get(address: str, method: str = "GET") -> bytes:
        environ = {"REMOTE_ADDR": address, "REQUEST_METHOD": method}
        return b"".join(limited(environ, lambda status, headers: heads.append((status, dict(headers)))))

    assert get("192.0.2.1") == b"hello"
    assert get("192.0.2.1") == b"Too Many Requests\n"
    assert get("192.0.2.1", "HEAD") == b""
    assert get("192.0.2.2") == b"hello"
    assert [status for status, _ in heads] == [
        "200 OK",
        "429 Too Many Requests",
        "429 Too Many Requests",
        "200 OK",
    ]
    assert int(heads[1][1]["Retry-After"]) >= 1


def test_without_a_store_all_are_let_through(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says so, once; by option all are refused."""
    app = RateLimitASGI(hello, broken(limiter_in(world)))
    with caplog.at_level(logging.WARNING, "prefork.shared"):
        assert [ask(app, http())[0]["status"] for _ in range(3)] == [200] * 3
    assert len(caplog.records) == 1
    strict = RateLimitASGI(hello, broken(limiter_in(world)), on_error="refuse")
    assert ask(strict, http())[0]["status"] == 503
    for kind in (RateLimitASGI, RateLimitWSGI):
        with pytest.raises(ConfigError, match="on_error"):
            kind(hello, limiter_in(world), on_error="pray")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unix", "unix"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_what_stands_for_a_client(address: str | None, key: str) -> None:
    """An IPv4 address, an IPv6 /64, one name for all that have none."""
    assert address_key(address) == key


def test_what_can_never_be_allowed_names_no_time(world: World) -> None:
    """There is no use in coming back."""
    limiter = RateLimiter("api", limit=0.5, window_s=60, url=world.url)
    assert limiter.take("key").retry_after_s == math.inf
    start, _ = ask(RateLimitASGI(hello, limiter), http())
    assert start["status"] == 429
    assert b"retry-after" not in dict(start["headers"])
