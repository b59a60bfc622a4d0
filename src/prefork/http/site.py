"""Where the server stands, and what a connection may become: what `protocol` is told when it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.forwarded import TrustedProxies
from prefork.http.limits import HttpLimits


@dataclass(frozen=True, slots=True)
class Site:
    """Behind which proxies the server stands, and under which path."""

    root_path: str = ""
    trusted: TrustedProxies = field(default_factory=TrustedProxies)


class WebSocketConnection(Protocol):
    """What becomes of a connection when it is upgraded."""

    def begin(self, rest: bytes) -> None:
        """Take the transport over; `rest` was read behind the handshake."""


WebSocketFactory = Callable[
    [Engine, HttpLimits, Connections[Any], asyncio.Transport, dict[str, Any]], WebSocketConnection
]
"""engine, limits, connections, transport, the scope of the handshake → the connection."""
