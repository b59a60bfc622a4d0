"""What all connections of one worker share: the application, the clock, and who is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prefork.http.asgi import ASGIExchange
from prefork.http.clock import Clock
from prefork.http.entrance import Entrances
from prefork.http.exchange import Exchange
from prefork.http.response import Composer
from prefork.http.tally import Tally


class Engine:
    """One worker's, made when it begins to serve. `app` is an application of either interface."""

    def __init__(
        self,
        app: Any,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        state: dict[str, Any],
        exchange: type[Exchange] = ASGIExchange,
    ) -> None:
        self.app = app
        self.exchange = exchange
        """The interface that `app` speaks."""
        self.loop = loop
        self.clock = clock
        self.state = state
        """ASGI's, of the lifespan: each request gets a shallow copy."""
        self.websocket: Any = None
        """Makes a connection of the other protocol (`protocol.WebSocketFactory`); None: answered as plain HTTP."""
        self.pool: Any = None
        """Threads for WSGI; None: applications run on the loop's thread."""
        self.recorder: Any = None
        """Where it is told what is run (`recording`); None: nowhere."""
        self.composer = Composer()
        self.entrances = Entrances()
        self.running: set[object] = set()
        """Exchanges whose application has not returned; some outlive their connections."""
        self.tally = Tally(self.running)
        self.keeps_alive = True
        """False while draining: every head that is sent from then on says `connection: close`."""
        self.on_rest: Callable[[], object] | None = None
        """Called when the last exchange has ended."""

    def ended(self, exchange: object) -> None:
        """An application has returned."""
        self.running.discard(exchange)
        if self.on_rest is not None and not self.running:
            self.on_rest()
