"""The demo that `make run` opens: which worker answered, what they share, and what happens when one dies.

It is an ordinary ASGI application. Started as `make run` starts it, PREFORK_ADMIN says where the dashboard is.

prefork --app-dir examples/demo demo:app --admin 8081      # without the dashboard beside it
"""

import json
import os
import signal
from pathlib import Path

from counter import shared_counter

HERE = Path(__file__).parent
FILES = {
    "/": ("page.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
ADMIN_PORT = os.environ.get("PREFORK_ADMIN", "").rpartition(":")[2]

counter = shared_counter()


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    asked = scope["method"], scope["path"]
    if asked == ("GET", "/who"):
        answer = {"pid": os.getpid(), "count": counter.add(1), "admin_port": ADMIN_PORT}
        await reply(send, 200, b"application/json", json.dumps(answer).encode())
    elif asked == ("POST", "/crash"):
        if not is_same_origin(scope):
            await reply(send, 403, b"text/plain", b"only this page's own button\n")
            return
        await reply(send, 200, b"application/json", json.dumps({"pid": os.getpid()}).encode())
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out: nothing is cleaned up
    elif scope["method"] == "GET" and scope["path"] in FILES:
        name, kind = FILES[scope["path"]]
        await reply(send, 200, kind, (HERE / name).read_bytes())
    else:
        await reply(send, 404, b"text/plain", b"there are / and /who here\n")


def is_same_origin(scope):
    """Whether our own page asks. Any page can send a POST here; its browser says whose it is."""
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"")
    return headers.get(b"origin") in (b"http://" + host, b"https://" + host)


async def reply(send, status, kind, body):
    headers = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        # A browser keeps its connection, and a connection its worker; here each answer is to be anybody's.
        (b"connection", b"close"),
        (
            b"content-security-policy",
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
            b"frame-src http://*:%s; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
            % (ADMIN_PORT or "1").encode(),
        ),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
