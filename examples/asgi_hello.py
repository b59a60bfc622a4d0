"""An ASGI application that says which worker answered.

prefork examples.asgi_hello:app          # or: python examples/asgi_hello.py
curl http://127.0.0.1:8080/
"""

import os
import sys

from prefork import Prefork, Server


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = f"hello from worker {os.getpid()}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    Prefork(Server(app)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
