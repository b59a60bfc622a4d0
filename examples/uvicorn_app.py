"""uvicorn, with options of its own."""

import sys

from asgi_hello import app

from prefork import Prefork
from prefork.servers.uvicorn import UvicornServer

server = UvicornServer(app, server_header=False, access_log=True)

if __name__ == "__main__":
    Prefork(server).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
