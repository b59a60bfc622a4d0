"""What every foreign server has in common: the seed's three serve forms in terms of one.

Rules that each server of this room keeps:

* It touches a listener's descriptor only when it could answer, because that touch is what the worker
  takes for readiness: lifespan first, listener second.
* It closes its own listener object and never shuts one down: siblings share the open socket.
* It leaves signals, pid files, forks and access lines to whoever asks for them.
* Its package is imported in `prepare()`, never when this room is imported: a package that is missing is
  no error until its server is used.
* Drain: accept whoever waits if nobody comes after us (`last_call`), stop accepting, answer late requests with
  `Connection: close` for at most `LINGER_S`, finish what is in flight, run the shutdown hooks, return. No bound
  beyond the linger: the master's grace period is the bound.

Not here: which loop runs the call, who asks for the drain, what happens when it takes too long.
"""

from __future__ import annotations

import importlib.util
import select
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from prefork.errors import ConfigError
from prefork.net.material import TLSBytes, TLSFiles
from prefork.net.tls import server_context
from prefork.scoreboard import LAST_CALL_S, UNDECIDED_S


def last_call(listeners: Sequence[socket.socket]) -> Callable[[], bool]:
    """What says, asked by a drain between two accepts, that somebody waits whom nobody else will accept. Runs in the worker.

    True for `LAST_CALL_S` at most. Always False unless all workers stop: those who wait are their siblings' then. As long as
    the master has not said whether they do, somebody may come.
    """
    if not any(getattr(listener, "is_last_call", False) for listener in listeners):
        return lambda: False
    until_s = time.monotonic() + LAST_CALL_S
    queues = select.poll()
    for listener in listeners:
        queues.register(listener.fileno(), select.POLLIN)

    def is_anyone_waiting() -> bool:
        is_undecided = any(getattr(listener, "is_undecided", False) for listener in listeners)
        is_anyone_there = bool(queues.poll(UNDECIDED_S * 1000 if is_undecided else 0))
        return (is_anyone_there or is_undecided) and time.monotonic() < until_s

    return is_anyone_waiting


class ForeignServer(ABC):
    """A server of another project, as a worker runs it. One object serves once, in one process."""

    alpn: ClassVar[tuple[str, ...]] = ("http/1.1",)
    """Protocols offered in the TLS handshake (RFC 7301), best first; empty for protocols that are not HTTP."""

    def prepare(self) -> None:  # noqa: B027  (a server with nothing to prepare is a server too)
        """Import everything heavy. Runs in the zygote, before the fork; starts no thread and no loop.

        Raises `ConfigError` if the package is missing or refuses its options.
        """

    @abstractmethod
    def serve_many(
        self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None
    ) -> Awaitable[Any] | Any:
        """Serve all `listeners`, over TLS if there is a `context`; return when drained. Runs in the worker.

        Raises `ApplicationError` if the application refuses to start.
        """

    @abstractmethod
    def drain(self) -> None:
        """Ask for the drain. Runs in the worker's main thread, inside a signal handler: does not block."""

    def serve(self, listener: socket.socket) -> Awaitable[Any] | Any:
        """Seed: `ServeFunc`. Serve one bound, listening socket until drained. Runs in the worker."""
        return self.serve_many([listener], None)

    def serve_tls(self, listener: socket.socket, cert_file: str, key_file: str) -> Awaitable[Any] | Any:
        """Seed: `ServeTLSFunc`. As `serve`, over TLS with PEM files. Runs in the worker.

        Raises `TLSConfigError` if they cannot be used.
        """
        return self.serve_many([listener], server_context(TLSFiles(cert_file, key_file), self.alpn))

    def serve_tls_embed(
        self, listener: socket.socket, cert_data: bytes, key_data: bytes
    ) -> Awaitable[Any] | Any:
        """Seed: `ServeTLSEmbedFunc`. As `serve`, over TLS with PEM in memory. Runs in the worker.

        Raises `TLSConfigError` if it cannot be used.
        """
        return self.serve_many([listener], server_context(TLSBytes(cert_data, key_data), self.alpn))


def require(package: str) -> None:
    """Raise `ConfigError` with the command that helps if `package` is not installed. Imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{package} is not installed: pip install 'prefork[{package}]'")


def refuse_owned(server: str, options: dict[str, Any], owned: frozenset[str]) -> None:
    """Raise `ConfigError` for options of the foreign server whose job prefork does itself."""
    for name in sorted(owned & options.keys()):
        raise ConfigError(f"{server} option {name!r} is prefork's own job: set it on Prefork or leave it out")
