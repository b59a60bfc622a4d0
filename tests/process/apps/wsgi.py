"""A WSGI application for the tests of promises: says which worker answers, and holds requests, as web.py does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as the path asks."""
    if environ["PATH_INFO"] == "/hold":
        sys.stderr.write(f"holding pid {os.getpid()}\n")
        with Path(environ["QUERY_STRING"]).open("rb", buffering=0) as end:
            end.read(1)
    body = b"pid %d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
