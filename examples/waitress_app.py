"""waitress and plain WSGI: two threads in each worker."""

import os
import sys

from prefork import Prefork
from prefork.servers.waitress import WaitressServer


def app(environ, start_response):
    body = f"hello from worker {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    Prefork(WaitressServer(app, threads=2)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
