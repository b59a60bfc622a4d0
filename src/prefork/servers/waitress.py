"""waitress under prefork: WSGI on a fixed number of threads.

waitress wakes up once a second by default, and stops by cancelling what its threads do not finish in
five. Its loop is one public function over a map of channels (`wasyncore.poll2`), so the loop is here: it
sleeps without a limit while nobody is connected, and drains in the order of this room.
`waitress_channel.py` has the two things that a channel must know: say `Connection: close`, and speak TLS.

Threads start in the worker, in `serve_many`; `prepare` only imports, since a fork must not see threads.
While connections are open the loop wakes every `cleanup_interval` (30 s) to close the abandoned ones.

Not supported: what prefork does itself (see `_OWNED`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from prefork.errors import ConfigError
from prefork.http.limits import LINGER_S
from prefork.net.sockets import backlog_of
from prefork.servers.base import (
    ForeignServer,
    last_call,
    refuse_owned,
    require,
)
from prefork.worker.waking import woken_by_signals

_OWNED: Final = frozenset(
    {"host", "port", "listen", "sockets", "unix_socket", "unix_socket_perms", "backlog", "ipv4", "ipv6"}
    | {"asyncore_loop_timeout", "asyncore_use_poll"}
)

CONNECTION_LIMIT: Final = 1000
"""waitress's own default, 100, is for one process with select(2); a worker here polls, and keep-alive
connections of browsers count too."""


class WaitressServer(ForeignServer):
    """Serves a WSGI application on `threads` threads a worker.

    `options` are waitress's adjustments that are not prefork's own job. Raises `ConfigError` for one that
    prefork owns; in `prepare()` for one that waitress refuses, or if waitress is not installed.
    """

    def __init__(self, wsgi_app: Any, threads: int = 4, **options: Any) -> None:
        refuse_owned("waitress", options, _OWNED)
        self._app = wsgi_app
        self._options: dict[str, Any] = {
            "threads": threads,
            "connection_limit": CONNECTION_LIMIT,
            **options,
        }
        self._drain_wanted = False
        self._wake: Any = None

    def prepare(self) -> None:
        """Import waitress and check its options. Runs in the zygote."""
        require("waitress")
        from waitress.adjustments import Adjustments

        import prefork.servers.waitress_channel  # noqa: F401  (for the workers forked after this)

        try:
            # `listen=""`: without it the constructor resolves and checks waitress's default address.
            Adjustments(listen="", **self._options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"waitress refuses its options: {error}") from error
        if self._app is None:
            raise ConfigError("the WSGI application is None: did its factory forget to return it?")

    def drain(self) -> None:
        """Ask for the drain; from a signal handler too: sets a flag and writes one byte to a pipe."""
        self._drain_wanted = True
        if self._wake is not None:
            # Without a thunk, because with one waitress takes a lock that the interrupted code may hold. A full
            # pipe holds wake-ups enough.
            with contextlib.suppress(BlockingIOError):
                self._wake.pull_trigger()

    def serve_many(self, listeners: Sequence[socket.socket], context: ssl.SSLContext | None) -> None:
        """Serve `listeners` until drained. Runs in the worker; blocks its main thread."""
        self.prepare()
        from waitress.task import ThreadedTaskDispatcher
        from waitress.trigger import trigger

        queue_logger = logging.getLogger("waitress.queue")
        if queue_logger.level == logging.NOTSET:
            # "Task queue depth is 3": one line a request as soon as all threads are busy. For who asks.
            queue_logger.setLevel(logging.ERROR)
        channels: dict[int, Any] = {}
        wake = trigger(channels)
        os.set_blocking(wake.trigger, False)
        self._wake = wake
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(int(self._options["threads"]))
        servers = [self._server(each, channels, dispatcher, context) for each in listeners]
        try:
            with woken_by_signals(wake.trigger):
                self._loop(servers, channels)
                self._drain(servers, channels, last_call(listeners))
        finally:
            self._wake = None
            dispatcher.shutdown()
            for server in servers:
                server.trigger.close()
            wake.close()

    def _server(
        self,
        listener: socket.socket,
        channels: dict[int, Any],
        dispatcher: Any,
        context: ssl.SSLContext | None,
    ) -> Any:
        """One waitress server on one listener; they share a loop and the threads."""
        from waitress.server import create_server

        from prefork.servers.waitress_channel import channel_class

        options = self._options if context is None else {"url_scheme": "https", **self._options}
        server = create_server(
            self._app,
            map=channels,
            _dispatcher=dispatcher,
            sockets=[listener],
            backlog=backlog_of(listener),
            **options,
        )
        server.channel_class = channel_class(context, self._is_draining)
        return server

    def _is_draining(self) -> bool:
        return self._drain_wanted

    def _loop(self, servers: list[Any], channels: dict[int, Any]) -> None:
        from waitress.wasyncore import poll2

        interval_s = float(servers[0].adj.cleanup_interval)
        while not self._drain_wanted:
            poll2(interval_s if _connected(servers) else None, channels)

    def _drain(
        self, servers: list[Any], channels: dict[int, Any], is_anyone_waiting: Callable[[], bool]
    ) -> None:
        from waitress.wasyncore import dispatcher, poll2

        while is_anyone_waiting():
            poll2(0.0, channels)
        for server in servers:
            # The listener alone: BaseWSGIServer.close would close the trigger that its threads still pull.
            dispatcher.close(server)
        linger_until = time.monotonic() + LINGER_S
        while _connected(servers) and (left_s := linger_until - time.monotonic()) > 0:
            poll2(left_s, channels)
        while connected := _connected(servers):
            for channel in connected:
                if _is_idle(channel):
                    channel.will_close = True
            # Without a limit: a thread changes its channel first and pulls the trigger second.
            poll2(None, channels)


def _connected(servers: list[Any]) -> list[Any]:
    return [channel for server in servers for channel in list(server.active_channels.values())]


def _is_idle(channel: Any) -> bool:
    """No request is running, none is being received past its head, and nothing is left to send."""
    is_receiving = channel.request is not None and channel.request.headers_finished
    return not (channel.requests or channel.total_outbufs_len or is_receiving)
