"""One worker without a master: `python worker.py FD CASE [LOOP] [CERT KEY]`, told to drain by SIGTERM.

Says on standard output: "ready" at the first touch of the listener, "draining" when told to,
"returned" when the serve call has returned, or a JSON object if the application refused to start.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import applications
from applications import say

from prefork.errors import ApplicationError
from prefork.net.material import TLSFiles
from prefork.net.tls import server_context
from prefork.servers.aiohttp import AiohttpServer
from prefork.servers.base import ForeignServer
from prefork.servers.hypercorn import HypercornServer
from prefork.servers.server import Server
from prefork.servers.socketserver import SocketServerServer
from prefork.servers.streams import StreamsServer
from prefork.servers.uvicorn import UvicornServer

CASES: dict[str, Callable[[], ForeignServer]] = {
    "uvicorn": lambda: Server(applications.asgi),
    "uvicorn-h11": lambda: UvicornServer(applications.asgi, http="h11"),
    "uvicorn-bare": lambda: UvicornServer(applications.asgi_without_lifespan),
    "uvicorn-failed": lambda: UvicornServer(applications.asgi_that_says_failed),
    "uvicorn-raises": lambda: UvicornServer(applications.asgi_that_raises),
    "hypercorn": lambda: HypercornServer(applications.asgi),
    "hypercorn-wsgi": lambda: HypercornServer(applications.wsgi),
    "hypercorn-raises": lambda: HypercornServer(applications.asgi_that_raises),
    "aiohttp": lambda: AiohttpServer(applications.aiohttp_application),
    "aiohttp-raises": lambda: AiohttpServer(applications.aiohttp_application(fails=True)),
    "waitress": lambda: Server(applications.wsgi),
    "streams": lambda: StreamsServer(applications.stream_echo),
    "socketserver": lambda: SocketServerServer(applications.ThreadEcho),
    "socketserver-single": lambda: SocketServerServer(applications.ThreadEcho, threading=False),
}


class Listener(socket.socket):
    """Says "ready" when a server first asks for what it needs to accept, as the worker runtime does."""

    said = False

    def fileno(self) -> int:
        if not Listener.said:
            Listener.said = True
            say("ready")
        return super().fileno()


def main() -> None:
    fd, case, loop, *files = sys.argv[1:]
    with Listener(fileno=int(fd)) as listener:
        run(listener, case, loop, files)


def run(listener: Listener, case: str, loop: str, files: list[str]) -> None:
    server = CASES[case]()
    server.prepare()
    if threading.active_count() > 1:
        raise SystemExit("prepare() has started a thread")

    def drain(*_: Any) -> None:
        server.drain()
        say("draining")

    signal.signal(signal.SIGTERM, drain)
    context = server_context(TLSFiles(*files)) if files else None
    try:
        result = server.serve_many([listener], context)
        if inspect.isawaitable(result):
            with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                runner.run(awaited(result))
    except ApplicationError as error:
        say(json.dumps({"message": str(error), "details": error.details}))
        return
    say("returned")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


async def awaited(result: Any) -> None:
    await result


if __name__ == "__main__":
    main()
