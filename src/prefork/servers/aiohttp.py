"""aiohttp under prefork: an `aiohttp.web` application on its own runner.

`AppRunner` starts and stops the application; what a runner does not do, and this file adds: an answer
given while draining says `Connection: close` (by the `on_response_prepare` signal), and the runner's own
stop, which closes idle connections at once, comes after the linger.

Not here: `web.run_app` and its signals.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from prefork.errors import ConfigError
from prefork.http.lifespan import start_failure
from prefork.servers.base import refuse_owned, require
from prefork.servers.drain import AsyncioServer, ProtocolFactory, logger

if TYPE_CHECKING:
    from aiohttp import web

_OWNED: Final = frozenset({"handle_signals"})


class AiohttpServer(AsyncioServer):
    """Serves an `aiohttp.web.Application`, or what a factory (plain or `async def`) makes in each worker.

    `options` are those of `aiohttp.web.AppRunner`: `keepalive_timeout`, `access_log` (off by default), ….
    `shutdown_timeout` (seconds) is None by default: requests in flight are bounded by prefork's own grace.
    """

    def __init__(
        self,
        application_or_factory: web.Application | Callable[[], web.Application | Awaitable[web.Application]],
        **options: Any,
    ) -> None:
        super().__init__()
        refuse_owned("aiohttp", options, _OWNED)
        self._source = application_or_factory
        self._options: dict[str, Any] = {"access_log": None, "shutdown_timeout": None, **options}
        self._runner: web.AppRunner | None = None

    def prepare(self) -> None:
        """Import `aiohttp.web`. Runs in the zygote."""
        require("aiohttp")
        import aiohttp.web  # noqa: F401  (imported for the workers that are forked after this)

    async def start_up(self) -> ProtocolFactory:
        from aiohttp import web

        try:
            application = self._source
            if not isinstance(application, web.Application):
                made: Any = application()
                application = await made if inspect.isawaitable(made) else made
        except Exception as error:
            raise start_failure(error) from error
        if not isinstance(application, web.Application):
            raise ConfigError(f"AiohttpServer needs an aiohttp.web.Application, not {application!r}")
        application.on_response_prepare.append(self._say_close)
        self._runner = web.AppRunner(application, handle_signals=False, **self._options)
        try:
            await self._runner.setup()
        except (Exception, SystemExit) as error:
            await self._undo()
            raise start_failure(error) from error
        assert self._runner.server is not None
        self._watch(self._runner.server)
        return self._runner.server

    def on_drain(self) -> None:
        """Nothing to switch: `_say_close` looks at `is_draining`."""

    async def finish(self) -> None:
        """Nothing: the runner's cleanup closes and waits itself, between on_shutdown and on_cleanup."""

    async def shut_down(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _undo(self) -> None:
        """Stop what did start before the application failed to (earlier cleanup contexts)."""
        assert self._runner is not None
        try:
            await self._runner.cleanup()
        except Exception:
            logger.exception("the application failed to clean up after its failed start")

    async def _say_close(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.is_draining and response.status != 101:
            response.headers["Connection"] = "close"
            response.force_close()

    def _watch(self, server: web.Server) -> None:
        """Have `server` tell of connections: shadows its two public callbacks on this one object."""
        made, lost = server.connection_made, server.connection_lost

        def connection_made(handler: Any, transport: Any) -> None:
            self.connections.add(handler)
            made(handler, transport)

        def connection_lost(handler: Any, exc: BaseException | None = None) -> None:
            lost(handler, exc)
            self.connections.discard(handler)

        server.connection_made = connection_made  # type: ignore[method-assign]
        server.connection_lost = connection_lost  # type: ignore[method-assign]
