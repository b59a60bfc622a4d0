"""Rate limits in front of an application, ASGI or WSGI: 429 with Retry-After for who asks too often, whichever worker answers.

    app = RateLimitASGI(app, RateLimiter("api", limit=100, window_s=60))

Who a client is, is what the server says: `scope["client"]`, `REMOTE_ADDR`. Behind a proxy that is the proxy, and all
clients share one limit, unless the server is told to trust the proxy's headers (`--trusted-proxies`), which is the
place for that: here no header is believed. The addresses of one IPv6 /64 are one client, because a single one has
that many.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from prefork.errors import ConfigError, SharedError
from prefork.shared.aio.away import away
from prefork.shared.foreign import fitted
from prefork.shared.limiter import RateLimiter
from prefork.shared.store import Verdict

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_COMPLAIN_EVERY_S: Final = 60.0
_NETWORK_BITS: Final = 64
_POLICY_VIOLATION: Final = 1008
"""RFC 6455, section 7.4.1."""


def address_key(address: str | None) -> str:
    """What stands for a client: its IPv4 address, its IPv6 /64, or whatever else the server calls it; "-" for all that have no name."""
    if not address:
        return "-"
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), _NETWORK_BITS), strict=False).network_address)


def client_of_scope(scope: Scope) -> str:
    """The client of an ASGI scope."""
    client = scope.get("client")
    return address_key(client[0] if client else None)


def client_of_environ(environ: dict[str, Any]) -> str:
    """The client of a WSGI environment."""
    return address_key(environ.get("REMOTE_ADDR"))


class _Limit:
    """What both have in common: whose limit it is, and what happens without a store."""

    def __init__(self, limiter: RateLimiter, key: Callable[[Any], str | None], on_error: str) -> None:
        if on_error not in {"allow", "refuse"}:
            raise ConfigError(
                f'rate limiter {limiter.name!r}: on_error must be "allow" or "refuse", not {on_error!r}'
            )
        self.limiter = limiter
        self._key = key
        self._is_allowed_then = on_error == "allow"
        self._complain_from_s = 0.0

    def key_of(self, request: Any) -> bytes | None:
        key = self._key(request)
        return None if key is None else fitted(key)

    def excuse(self, error: SharedError) -> Refusal | None:
        """What to do without a store."""
        now_s = time.monotonic()
        if now_s >= self._complain_from_s:
            self._complain_from_s = now_s + _COMPLAIN_EVERY_S
            done = "let through" if self._is_allowed_then else "refused"
            logging.getLogger("prefork.shared").warning(
                "rate limiter %r: all are %s: %s", self.limiter.name, done, error
            )
        return None if self._is_allowed_then else Refusal(503, "Service Unavailable", None)


class Refusal:
    """An answer in place of the application's."""

    def __init__(self, status: int, reason: str, retry_after_s: float | None) -> None:
        self.status = status
        self.reason = reason
        self.headers = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
        self.body = f"{reason}\n".encode()
        if retry_after_s is not None and retry_after_s != math.inf:
            seconds = max(1, math.ceil(retry_after_s))  # RFC 9110, section 10.2.3: whole seconds
            self.headers.append(("retry-after", str(seconds)))
        self.headers.append(("content-length", str(len(self.body))))

    @classmethod
    def of(cls, verdict: Verdict) -> Refusal | None:
        """None if it is allowed."""
        return None if verdict.is_allowed else cls(429, "Too Many Requests", verdict.retry_after_s)


class RateLimitASGI:
    """Limits HTTP requests and WebSocket handshakes of an ASGI application: 429, with Retry-After.

    A WebSocket is refused with 429 where the server can say that (extension `websocket.http.response`), else with 403.

    key: called with the scope; gives who is limited, as text of any length, or None: this one is not.
    on_error: what happens while the store cannot be used: "allow", logged at most once a minute, or "refuse", with 503.

    Raises ConfigError.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: RateLimiter,
        *,
        key: Callable[[Scope], str | None] = client_of_scope,
        on_error: str = "allow",
    ) -> None:
        self._app = app
        self._limit = _Limit(limiter, key, on_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await self._judge(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, refusal, "http.response")
        else:
            await receive()  # websocket.connect
            if "websocket.http.response" in (scope.get("extensions") or {}):
                await _answer(send, refusal, "websocket.http.response")
            else:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.reason})

    async def _judge(self, scope: Scope) -> Refusal | None:
        key = self._limit.key_of(scope)
        if key is None:
            return None
        limiter = self._limit.limiter
        try:
            return Refusal.of(await away(limiter.store, limiter.take, key))
        except SharedError as error:
            return self._limit.excuse(error)


async def _answer(send: Send, refusal: Refusal, kind: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": refusal.body, "more_body": False})


class RateLimitWSGI:
    """Limits requests to a WSGI application: 429, with Retry-After.

    key: called with the environment; gives who is limited, as text of any length, or None: this one is not.
    on_error: what happens while the store cannot be used: "allow", logged at most once a minute, or "refuse", with 503.

    Raises ConfigError.
    """

    def __init__(
        self,
        app: WSGIApp,
        limiter: RateLimiter,
        *,
        key: Callable[[dict[str, Any]], str | None] = client_of_environ,
        on_error: str = "allow",
    ) -> None:
        self._app = app
        self._limit = _Limit(limiter, key, on_error)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = self._judge(environ)
        if refusal is None:
            return self._app(environ, start_response)
        headers = [(name.title(), value) for name, value in refusal.headers]
        start_response(f"{refusal.status} {refusal.reason}", headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [refusal.body]

    def _judge(self, environ: dict[str, Any]) -> Refusal | None:
        key = self._limit.key_of(environ)
        if key is None:
            return None
        try:
            return Refusal.of(self._limit.limiter.take(key))
        except SharedError as error:
            return self._limit.excuse(error)
