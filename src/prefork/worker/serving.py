"""From a server, or a function that serves, to a `Service`: the one call that a worker makes.

A server that takes several listeners (`serve_many`) is called once with all of them, over TLS with a context that is
made here, before the fork: session tickets then resume on any worker. Anything else is called once for each listener, in
the seed's form.
"""

from __future__ import annotations

import inspect
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefork.contracts import (
    Drains,
    Prepares,
    ServeFunc,
    Server,
    ServesMany,
    ServeTLSEmbedFunc,
    ServeTLSFunc,
    TLSServer,
)
from prefork.errors import ConfigError
from prefork.net.material import TLSBytes, TLSFiles, TLSMaterial
from prefork.worker.job import Service

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Served:
    """What a program gave to serve with: a server object, or functions that stand in for its methods (seed)."""

    server: object | None = None
    serve_func: ServeFunc | None = None
    serve_tls_func: ServeTLSFunc | None = None
    serve_tls_embed_func: ServeTLSEmbedFunc | None = None

    def check(self, tls: TLSMaterial | None) -> None:
        """Raise ConfigError if there is nothing to serve with. Runs in the master, before anything is opened."""
        self._single(tls)
        is_ours = isinstance(self.server, ServesMany) and not self._has_function(tls)
        if tls is not None and tls.clients is not None and not is_ours:
            raise ConfigError(
                "client_ca is for servers with serve_many: this one makes its TLS context itself"
            )

    def load(self, tls: TLSMaterial | None, become: Callable[[], object] | None = None) -> Service:
        """Prepare the server, once, and say how it is called. Runs in the zygote (or the executed worker).

        `become` gives up rights, before anything of the application's is run; what only root may read is read before.
        """
        server = self.server
        if become is not None:
            if isinstance(tls, TLSFiles) and isinstance(server, ServesMany) and not self._has_function(tls):
                from prefork.net.tls import read_in

                tls = read_in(tls)
            become()
        from prefork.worker.loops import loop_factory  # the master, which checks, loads no event loop

        loop_factory()
        if isinstance(server, Prepares):
            server.prepare()
        drain = server.drain if isinstance(server, Drains) else None
        if isinstance(server, ServesMany) and not self._has_function(tls):
            many, context = server.serve_many, _context(server, tls)
            return Service(lambda listeners: many(listeners, context), drain)
        return Service(for_each(self._single(tls)), drain)

    def _has_function(self, tls: TLSMaterial | None) -> bool:
        return self._function(tls) is not None

    def _function(self, tls: TLSMaterial | None) -> ServeFunc | None:
        if tls is None:
            return self.serve_func
        if isinstance(tls, TLSFiles):
            over_files = self.serve_tls_func
            return over_files and _with(over_files, tls.cert_file, tls.key_file)
        over_bytes = self.serve_tls_embed_func
        return over_bytes and _with(over_bytes, tls.cert_data, tls.key_data)

    def _single(self, tls: TLSMaterial | None) -> ServeFunc:
        """The function, or the server's method, that serves one listener."""
        function = self._function(tls)
        if function is not None:
            return function
        server = self.server
        if isinstance(server, ServesMany):
            return lambda listener: server.serve_many([listener], _context(server, tls))
        if tls is None and isinstance(server, Server):
            return server.serve
        if isinstance(tls, TLSFiles) and isinstance(server, TLSServer):
            return _with(server.serve_tls, tls.cert_file, tls.key_file)
        if isinstance(tls, TLSBytes) and isinstance(server, TLSServer):
            return _with(server.serve_tls_embed, tls.cert_data, tls.key_data)
        raise ConfigError(_NOTHING[type(tls)])


def _context(server: object, tls: TLSMaterial | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    from prefork.net.tls import server_context

    return server_context(tls, getattr(server, "alpn", ("http/1.1",)))


_NOTHING = {
    type(None): "nothing to serve with: give Prefork(server) an object with serve(listener), or serve_func=",
    TLSFiles: "nothing to serve TLS with: the server has no serve_tls(listener, cert_file, key_file); "
    "give Prefork serve_tls_func=",
    TLSBytes: "nothing to serve TLS with: the server has no serve_tls_embed(listener, cert_data, key_data); "
    "give Prefork serve_tls_embed_func=",
}


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _with(function: Callable[..., Any], *material: Any) -> ServeFunc:
    """`function` of a listener alone; a coroutine function stays one."""
    if _is_async(function):

        async def serve_async(listener: socket.socket) -> None:
            await function(listener, *material)

        return serve_async
    return lambda listener: function(listener, *material)


def for_each(serve: ServeFunc) -> Callable[[Sequence[socket.socket]], Any]:
    """Serve several listeners with a function that takes one: coroutines together, plain calls in threads."""

    def serve_all(listeners: Sequence[socket.socket]) -> Any:
        if len(listeners) == 1:
            return serve(listeners[0])
        if _is_async(serve):
            return _gather([serve(listener) for listener in listeners])
        failures: list[Exception] = []

        def serve_one(listener: socket.socket) -> None:
            try:
                serve(listener)
            except Exception as error:  # raised below, by the thread that can end the worker
                failures.append(error)
                signal.pthread_kill(main, signal.SIGTERM)

        main = threading.get_ident()
        try:
            for listener in listeners[1:]:
                name = f"serve {listener.getsockname()}"
                threading.Thread(target=serve_one, args=(listener,), name=name).start()
            return serve(listeners[0])
        finally:
            if failures:
                raise failures[0]

    return serve_all


async def _gather(serving: list[Any]) -> None:
    import asyncio

    await asyncio.gather(*serving)
