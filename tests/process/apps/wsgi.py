"""A WSGI application for the tests of promises: says which worker answers, and holds requests, as web.py does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/hold":
        print(f"holding pid {os.getpid()}", file=sys.stderr, flush=True)
        Path(environ["QUERY_STRING"]).read_bytes()
    body = b"pid %d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
