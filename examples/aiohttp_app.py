"""aiohttp.web: the factory makes an application in each worker, on that worker's event loop."""

import os
import sys

from aiohttp import web

from prefork import Prefork
from prefork.servers.aiohttp import AiohttpServer


async def hello(request):
    return web.Response(text=f"hello from worker {os.getpid()}\n")


def make_app():
    app = web.Application()
    app.add_routes([web.get("/", hello)])
    return app


if __name__ == "__main__":
    Prefork(AiohttpServer(make_app)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
