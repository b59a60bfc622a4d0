"""uvicorn under prefork: its protocols and its configuration, without its `Server`.

`uvicorn.Server` polls ten times a second, installs signal handlers, closes idle connections at once when
it stops (a request on its way is then reset), and exits the process when the application does not start.
What is good in uvicorn is below it: the protocol classes, which need four attributes of a server state.
So those are given here, and the order of a drain is `AsyncioServer`'s.

Not here: HTTP. Not supported: `limit_max_requests` and all that prefork does itself (see `_OWNED`).
"""

from __future__ import annotations

import asyncio
import functools
import time
from email.utils import formatdate
from typing import Any, Final

from prefork.errors import ConfigError
from prefork.http.connections import Connections
from prefork.http.lifespan import Lifespan
from prefork.servers.base import refuse_owned, require
from prefork.servers.drain import AsyncioServer, ProtocolFactory

_OWNED: Final = frozenset(
    {"host", "port", "uds", "fd", "factory", "workers", "reload", "reload_dirs", "reload_delay"}
    | {
        "reload_includes",
        "reload_excludes",
        "backlog",
        "loop",
        "limit_max_requests",
        "limit_max_requests_jitter",
    }
    | {"callback_notify", "timeout_notify", "timeout_graceful_shutdown", "timeout_worker_healthcheck"}
    | {"ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_version", "ssl_cert_reqs"}
    | {"ssl_ca_certs", "ssl_ciphers", "ssl_context_factory"}
)

_CLOSE: Final = (b"connection", b"close")

Header = tuple[bytes, bytes]


class UvicornServer(AsyncioServer):
    """Serves an ASGI application (2 or 3) with uvicorn's HTTP and WebSocket protocols.

    `options` are those of `uvicorn.Config` that are not prefork's own job. Access lines are off unless
    `access_log=True`. Raises `ConfigError` for an option that prefork owns; in `prepare()` for one that
    uvicorn refuses, or if uvicorn is not installed.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__()
        refuse_owned("uvicorn", options, _OWNED)
        self._app = app
        self._options = options
        self._config: Any = None
        self._state: _ServerState | None = None
        self._lifespan: Lifespan | None = None

    def prepare(self) -> None:
        """Import uvicorn with the protocols that it will use. Runs in the zygote."""
        if self._config is not None:
            return
        require("uvicorn")
        import uvicorn

        options: dict[str, Any] = {"access_log": False, **self._options}
        if not options["access_log"]:
            # Without access lines to print, uvicorn's own logging set-up would only take over the user's.
            options.setdefault("log_config", None)
        try:
            config = uvicorn.Config(self._app, **options)
            config.load()
        except (TypeError, ValueError, LookupError, ImportError) as error:
            raise ConfigError(f"uvicorn refuses its options: {error}") from error
        self._config = config

    async def start_up(self) -> ProtocolFactory:
        config = self._config
        self._lifespan = Lifespan(config.loaded_app, config.lifespan)
        await self._lifespan.startup()
        self._state = _ServerState(self.connections, config.encoded_headers, with_date=config.date_header)
        return functools.partial(
            config.http_protocol_class,
            config=config,
            server_state=self._state,
            app_state=self._lifespan.state,
            _loop=asyncio.get_running_loop(),
        )

    def on_drain(self) -> None:
        assert self._state is not None
        self._state.close_after_answer()
        for protocol in list(self.connections):
            cycle = getattr(protocol, "cycle", None)
            if cycle is not None and not cycle.response_started:
                cycle.default_headers = [*cycle.default_headers, _CLOSE]
            elif getattr(protocol, "handshake_complete", False):
                # A WebSocket brings no further request to wait for: 1012, "service restart" (RFC 6455).
                protocol.shutdown()

    async def finish(self) -> None:
        for protocol in list(self.connections):
            # uvicorn's own way to stop: closes an idle connection, has a busy one close after its answer.
            protocol.shutdown()
        await self.connections.wait_empty(None)
        assert self._state is not None
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)

    async def shut_down(self) -> None:
        assert self._lifespan is not None
        await self._lifespan.shutdown()


class _ServerState:
    """What uvicorn's protocols ask of `uvicorn.server.ServerState`, with no timer behind it."""

    def __init__(self, connections: Connections[Any], headers: list[Header], *, with_date: bool) -> None:
        self.total_requests = 0
        self.connections = connections
        self.tasks: set[asyncio.Task[None]] = set()
        self._fixed_headers = list(headers)
        self._with_date = with_date
        self._headers: list[Header] = []
        self._headers_second = -1

    @property
    def default_headers(self) -> list[Header]:
        """The headers of every answer; made again when the second has changed, as `Date` has no finer."""
        second = int(time.time())
        if second != self._headers_second:
            date = [(b"date", formatdate(second, usegmt=True).encode())] if self._with_date else []
            self._headers = date + self._fixed_headers
            self._headers_second = second
        return self._headers

    def close_after_answer(self) -> None:
        """From the next request on, answers say `Connection: close`; uvicorn closes after those that do."""
        self._fixed_headers.append(_CLOSE)
        self._headers_second = -1
