"""hypercorn under prefork: HTTP/1.1, and HTTP/2 by ALPN over TLS and by prior knowledge in clear text.

hypercorn's `serve()` answers a drain by closing every idle connection at once and by resetting HTTP/2
streams that arrive late. Its connection class is below that, and takes two things by which a drain can be
done better; `hypercorn_connection.py` says how. `Config.certfile` and its kin are not used: the context
is prefork's, with `h2` added to its ALPN.

Not supported: HTTP/3 (needs a datagram socket), and what prefork does itself (see `_OWNED`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from prefork.errors import ConfigError
from prefork.http.lifespan import Lifespan
from prefork.servers.base import refuse_owned, require
from prefork.servers.detect import interface_of
from prefork.servers.drain import AsyncioServer, ProtocolFactory, logger
from prefork.servers.streams import READ_LIMIT_BYTES, stream_protocols

if TYPE_CHECKING:
    from prefork.servers.hypercorn_connection import DrainingConfig

_OWNED: Final = frozenset(
    {"bind", "insecure_bind", "quic_bind", "backlog", "certfile", "keyfile", "keyfile_password", "ca_certs"}
    | {"ciphers", "verify_flags", "verify_mode", "workers", "worker_class", "use_reloader", "pid_path"}
    | {"daemon", "user", "group", "umask", "graceful_timeout", "max_requests", "max_requests_jitter"}
    | {"alpn_protocols", "application_path"}
)


class HypercornServer(AsyncioServer):
    """Serves an ASGI or WSGI application with hypercorn's HTTP/1.1 and HTTP/2.

    `config` are attributes of `hypercorn.Config` that are not prefork's own job; `interface` is "auto",
    "asgi" or "wsgi", `lifespan` "auto", "on" or "off". Raises `ConfigError` for an option that prefork
    owns; in `prepare()` for one that hypercorn does not know, or if hypercorn is not installed.
    """

    alpn: ClassVar[tuple[str, ...]] = ("h2", "http/1.1")

    def __init__(
        self,
        app: Any,
        *,
        interface: Literal["auto", "asgi", "wsgi"] = "auto",
        lifespan: Literal["auto", "on", "off"] = "auto",
        **config: Any,
    ) -> None:
        super().__init__()
        refuse_owned("hypercorn", config, _OWNED)
        self._app = app
        self._interface = interface
        self._lifespan_mode = lifespan
        self._options = config
        self._config: DrainingConfig | None = None
        self._lifespan: Lifespan | None = None
        self._context: Any = None

    def prepare(self) -> None:
        """Import hypercorn with both of its protocols. Runs in the zygote."""
        if self._config is not None:
            return
        require("hypercorn")
        from prefork.servers.hypercorn_connection import DrainingConfig

        for name in self._options:
            if not hasattr(DrainingConfig, name):
                raise ConfigError(f"hypercorn has no option {name!r}")
        self._config = cast(DrainingConfig, DrainingConfig.from_mapping(self._options))

    async def start_up(self) -> ProtocolFactory:
        from hypercorn.asyncio.worker_context import WorkerContext
        from hypercorn.typing import LifespanState
        from hypercorn.utils import wrap_app

        from prefork.servers.hypercorn_connection import DrainingConnection

        assert self._config is not None
        config = self._config
        interface = interface_of(self._app) if self._interface == "auto" else self._interface
        mode = self._lifespan_mode if interface == "asgi" else "off"
        self._lifespan = Lifespan(self._app, mode)
        await self._lifespan.startup()
        app = wrap_app(self._app, config.wsgi_max_body_size, interface)
        state = LifespanState(self._lifespan.state)
        self._context = WorkerContext(None)
        loop = asyncio.get_running_loop()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await DrainingConnection(app, loop, config, self._context, state, reader, writer)
            except OSError:
                # The peer went away while hypercorn was closing.
                logger.debug("a connection ended early", exc_info=True)

        return stream_protocols(self.connections, handle, READ_LIMIT_BYTES)

    def on_drain(self) -> None:
        assert self._config is not None
        self._config.start_draining()

    async def finish(self) -> None:
        # hypercorn's own signal to stop: idle connections close, busy ones do after their answer.
        await self._context.terminated.set()
        await self.connections.wait_empty(None)

    async def shut_down(self) -> None:
        assert self._lifespan is not None
        await self._lifespan.shutdown()
