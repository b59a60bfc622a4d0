"""Django's tests of its live server, on ours: a program in place of `runtests.py`, which it runs in the end.

`LiveServerThread.server_class` becomes a server with the methods that Django calls, which serves by prefork's HttpServer. As
with Django's own, its threads are lent the test's connections to the database.

Usage, in the folder `tests` of Django's source distribution: django_live.py LABEL...
"""

from __future__ import annotations

import asyncio
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

import django.test.testcases as theirs
import uvloop
from django.db import connections

from prefork.http.options import split
from prefork.http.server import HttpServer


class LiveServer:
    """What Django's `ThreadedWSGIServer` is to a live server's thread."""

    def __init__(
        self, address: tuple[str, int], _handler: Any, *, connections_override: Any = None, **_options: Any
    ) -> None:
        self._lent: dict[str, Any] = connections_override or {}
        self._listener = socket.create_server(address)
        self._listener.setblocking(False)
        self.server_address = self._listener.getsockname()
        self._server: HttpServer | None = None

    def set_app(self, app: Any) -> None:
        """The application, once it is known."""

        def lent(environ: Any, start_response: Any) -> Any:
            for alias, connection in self._lent.items():
                connections[alias] = connection
            return app(environ, start_response)

        options, limits = split({})
        self._server = HttpServer(lent, interface="wsgi", options=options, limits=limits)

    def serve_forever(self) -> None:
        """Until `shutdown`."""
        assert self._server is not None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._server.serve(self._listener))

    def shutdown(self) -> None:
        """From another thread."""
        if self._server is not None:
            self._server.drain()

    def server_close(self) -> None:
        """The listener's end."""
        self._listener.close()


if __name__ == "__main__":
    theirs.LiveServerThread.server_class = LiveServer  # type: ignore[assignment]
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = ["runtests.py", *sys.argv[1:]]
    runpy.run_path("runtests.py", run_name="__main__")
