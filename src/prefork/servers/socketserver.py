"""The standard library's `socketserver` under prefork: any protocol, one handler class.

`serve_forever` wakes up twice a second to see whether it should stop. Here a selector waits for the
listeners and for one end of a socketpair, whose other end `drain()` writes to: an idle worker sleeps.

With `threading=True` each connection has a thread. While draining, handlers still get what their clients
send within the linger; after it their sockets are at end-of-file (`SHUT_RD` on the connection, never on
the listener), as if the client had closed, and the drain waits for the threads.
With `threading=False` the main thread runs the handlers, one after another, so there is nobody to count a
linger: the connection being served gets its end-of-file at once.

A handler that wants to take its leave politely looks at `self.server.is_draining`.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import socketserver
import ssl
from collections.abc import Sequence
from threading import Condition
from typing import Any, ClassVar, Final

from prefork.http.limits import LINGER_S
from prefork.servers.base import ForeignServer, last_call
from prefork.worker.waking import woken_by_signals

logger: Final = logging.getLogger("prefork.servers")


class SocketServerServer(ForeignServer):
    """Serves `handler_class`, a `socketserver.BaseRequestHandler`, once a connection.

    `threading`: a thread for each connection; otherwise one connection at a time.
    """

    alpn: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, handler_class: type[socketserver.BaseRequestHandler], *, threading: bool = True
    ) -> None:
        self._handler_class = handler_class
        self._threading = threading
        self._drain_wanted = False
        self._wake: socket.socket | None = None
        self._open = _OpenConnections()

    def drain(self) -> None:
        """Ask for the drain; from a signal handler too: sets a flag and writes one byte."""
        self._drain_wanted = True
        if self._wake is not None:
            # A full buffer holds wake-ups enough.
            with contextlib.suppress(BlockingIOError):
                self._wake.send(b"\0")
        if not self._threading:
            self._open.end_reading()

    @property
    def is_draining(self) -> bool:
        """The drain has been asked for."""
        return self._drain_wanted

    def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> None:
        """Serve `listeners` until drained. Runs in the worker; blocks its main thread."""
        server_class = _ThreadingServer if self._threading else _OneByOneServer
        if context is not None:
            # Python reads a cut TLS stream as its end anyway; so that OpenSSL does too, and lets a handler
            # answer after our own end-of-file where it would otherwise send an alert.
            context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        ours, self._wake = socket.socketpair()
        ours.setblocking(False)
        self._wake.setblocking(False)
        with ours, self._wake, selectors.DefaultSelector() as selector:
            selector.register(ours, selectors.EVENT_READ)
            servers = []
            for listener in listeners:
                listener.setblocking(False)
                server = server_class(self, listener, self._handler_class, self._open, context)
                servers.append(server)
                selector.register(listener, selectors.EVENT_READ, server)
            with woken_by_signals(self._wake.fileno()):
                self._accept(selector, ours)
                is_anyone_waiting = last_call(listeners)
                while is_anyone_waiting():
                    _take_one_each(selector, 0.0)
            for server in servers:
                selector.unregister(server.socket)
                server.socket.close()
            self._finish(servers)
            self._wake = None

    def _accept(self, selector: selectors.BaseSelector, ours: socket.socket) -> None:
        while not self._drain_wanted:
            if _take_one_each(selector, None):
                ours.recv(4096)

    def _finish(self, servers: Sequence[socketserver.BaseServer]) -> None:
        if not self._open.wait_empty(LINGER_S):
            self._open.end_reading()
            self._open.wait_empty(None)
        for server in servers:
            server.server_close()


def _take_one_each(selector: selectors.BaseSelector, timeout_s: float | None) -> bool:
    """Serve one connection of each listener that has one waiting; True if something else woke us."""
    is_woken = False
    for key, _ in selector.select(timeout_s):
        if key.data is None:
            is_woken = True
        else:
            # What serve_forever calls; handle_request() would make a selector of its own.
            key.data._handle_request_noblock()  # noqa: SLF001
    return is_woken


class _OpenConnections:
    """The connections being served: added by the accepting thread, removed by the handler's."""

    def __init__(self) -> None:
        self._connections: set[socket.socket] = set()
        self._changed = Condition()

    def add(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.add(connection)

    def remove(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def wait_empty(self, limit_s: float | None) -> bool:
        """Wait until nobody is connected, `limit_s` seconds at most. True if nobody is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, limit_s)

    def end_reading(self) -> None:
        """Handlers see end-of-file once they have read what has arrived. Takes no lock: see `drain`."""
        for connection in self._connections.copy():
            # The client, or the handler, may have closed it since.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RD)


class _Server(socketserver.TCPServer):
    """A `TCPServer` on a socket that is listening already, TCP or Unix."""

    def __init__(
        self,
        owner: SocketServerServer,
        listener: socket.socket,
        handler_class: type[socketserver.BaseRequestHandler],
        connections: _OpenConnections,
        context: ssl.SSLContext | None,
    ) -> None:
        socketserver.BaseServer.__init__(self, listener.getsockname(), handler_class)
        self.socket = listener
        self.owner = owner
        self.connections = connections
        self.context = context

    @property
    def is_draining(self) -> bool:
        """For handlers: `self.server.is_draining`."""
        return self.owner.is_draining

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        connection.setblocking(True)
        if self.context is not None:
            # The handshake happens in the handler's first read, in its own thread.
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        finally:
            self.connections.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  (socketserver's hook)
        # socketserver calls this in its except clause.
        logger.exception("a handler raised, serving %s", client_address)  # noqa: LOG004


class _OneByOneServer(_Server):
    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.is_draining:
            # Asked for between the accept and the list that drain() looks at.
            self.connections.end_reading()
        return connection, address


class _ThreadingServer(socketserver.ThreadingMixIn, _Server):
    daemon_threads = True
    """Waited for by connection, not by thread, so that the linger can be counted."""
