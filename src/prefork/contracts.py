"""What a server, a hook and a logger must look like: the shapes prefork accepts from outside.

Nothing here is a base class to inherit from; all are Protocols, checked by shape. A server needs the
first method of `Server` only; the others are offered when it has them.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import ssl  # for annotations only: a master without TLS has no use for it

ServeFunc = Callable[[socket.socket], "Awaitable[Any] | Any"]
ServeTLSFunc = Callable[[socket.socket, str, str], "Awaitable[Any] | Any"]
ServeTLSEmbedFunc = Callable[[socket.socket, bytes, bytes], "Awaitable[Any] | Any"]

OnChildSpawn = Callable[[int], object]
OnMasterReady = Callable[[list[int]], object]
OnChildRecover = Callable[[int, int], object]
OnMasterDeath = Callable[[], object]


@runtime_checkable
class Server(Protocol):
    """Serves one bound, listening socket, in a worker, until it is told to stop."""

    def serve(self, listener: socket.socket) -> Awaitable[Any] | Any:
        """Serve `listener`; return when drained. Plain or `async def`. Runs in the worker."""
        ...


@runtime_checkable
class TLSServer(Protocol):
    """A server that can also speak TLS by itself, from files or from PEM in memory (seed)."""

    def serve_tls(self, listener: socket.socket, cert_file: str, key_file: str) -> Awaitable[Any] | Any:
        """Serve TLS on `listener` with the PEM files named. Runs in the worker."""
        ...

    def serve_tls_embed(
        self, listener: socket.socket, cert_data: bytes, key_data: bytes
    ) -> Awaitable[Any] | Any:
        """Serve TLS on `listener` with PEM held in memory. Runs in the worker."""
        ...


@runtime_checkable
class ServesMany(Protocol):
    """A server that serves several listeners at once, over TLS if a context is given."""

    def serve_many(
        self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None
    ) -> Awaitable[Any] | Any:
        """Serve all `listeners` until drained. Preferred over `serve` where it exists. Runs in the worker."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A server with work to do once, before workers are forked: imports, caches."""

    def prepare(self) -> object:
        """Runs in the zygote (in the worker under start method "exec"); may block; must start no thread."""
        ...


@runtime_checkable
class Drains(Protocol):
    """A server that can be asked to finish: accept nothing new, finish what is open, return from `serve`."""

    def drain(self) -> object:
        """Ask for the drain. Runs in the worker's main thread, inside a signal handler: must not block."""
        ...


@runtime_checkable
class Reopens(Protocol):
    """A server with log files of its own, which can be moved away while it serves."""

    def reopen(self) -> object:
        """Open them again. Runs in the worker's main thread, inside a signal handler: must not block."""
        ...


@runtime_checkable
class Logger(Protocol):
    """Anything that logs with printf-style arguments; a `logging.Logger` is one."""

    def info(self, msg: str, *args: object) -> object: ...

    def warning(self, msg: str, *args: object) -> object: ...

    def error(self, msg: str, *args: object) -> object: ...


class HasFileno(Protocol):
    """Something with an open file descriptor."""

    def fileno(self) -> int: ...


CommandProducer = Callable[[Sequence[HasFileno]], "subprocess.Popen[Any]"]
