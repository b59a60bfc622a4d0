"""Warm-up: requests that run through the application before workers are forked, so that they share what those load.

    import of the application -> GET of each path, in this process -> gc.freeze() -> fork, fork, fork

Rules:

* Runs in the zygote (under start method "exec" in each worker, before it is ready). No socket and no server is involved: the
  application is called with a request, and what it answers is thrown away. An answer of 500 or more, or an exception, is
  a failure: told, and with `strict` a failed start.
* An ASGI application runs on a loop of asyncio's own, made for this and closed again: uvloop's has threads of its own, which
  a fork would lose. Tasks that it leaves behind are cancelled. Its lifespan is **not** run: what that opens (connections,
  pools, clients) belongs to one process and one loop, and this process serves nobody. So a path that needs what the
  lifespan makes answers 500 here.
* Each request has `timeout_s`, by the kernel's timer: code that blocks is interrupted, too.
* A fork copies threads as locked locks and connections as one connection with many owners. So threads that are left are
  waited for, and told by name (the zygote then refuses to fork); sockets that are left are told by where they lead.

Source of the idea: uWSGI's and Puma's preloading, and Shopify's warm-up of its mold, where shared caches are most of what a
fork saves.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from prefork.errors import ApplicationError
from prefork.http.pages import Page
from prefork.http.wsgi_environ import beginning

_AGENT: Final = "prefork-warmup"
_LEAVE_S: Final = 1.0
"""Threads that are about to end (a pool's, when its loop is closed) have this long in all."""

_CLEAR_S: Final = 3.0
"""Tasks that are cancelled have this long to end: far more than they take, also on a machine that has much else to do."""

_logger: Final = logging.getLogger("prefork.http")


class _TimeUpError(BaseException):
    """Not an Exception: the application's own handlers must not swallow it."""


def warm_up(
    app: Any, pages: Sequence[Page], *, is_wsgi: bool, root_path: str, timeout_s: float, is_strict: bool
) -> None:
    """Run each page through the application. In the process that workers are forked from; blocks, in its main thread.

    Raises ApplicationError if one of them fails and `is_strict`; else failures are logged.
    """
    threads, sockets = set(threading.enumerate()), _sockets()
    call = _wsgi if is_wsgi else _asgi
    for page in pages:
        began_s = time.monotonic()
        try:
            with _bounded(timeout_s):
                # A context of its own: what the application sets in it would be set in every worker.
                status = contextvars.copy_context().run(call, app, page, root_path)
        except _TimeUpError:
            _failed(f"no answer within {timeout_s:g} s", "", page, is_strict=is_strict)
        except (Exception, SystemExit) as error:
            _failed(f"{type(error).__name__}: {error}", _traceback(error), page, is_strict=is_strict)
        else:
            if status >= 500:
                _failed(f"status {status}", "", page, is_strict=is_strict)
                continue
            took_ms = (time.monotonic() - began_s) * 1000
            _logger.info("warm-up %s: status %d in %.0f ms", page.shown, status, took_ms)
    _tell_left_overs(threads, sockets)


def _failed(why: str, details: str, page: Page, *, is_strict: bool) -> None:
    if is_strict:
        raise ApplicationError(f"warm-up {page.shown} failed: {why}", details)
    _logger.warning("%s", f"warm-up {page.shown} failed: {why}" + (f"\n{details}" if details else ""))


def _traceback(error: BaseException) -> str:
    """With the frames that are not ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in (
        __file__,
        asyncio.base_events.__file__,
    ):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


# -- one request --------------------------------------------------------------------------------------


def _wsgi(app: Any, page: Page, root_path: str) -> int:
    environ = beginning(
        scheme=page.scheme, server=page.server, root_path=root_path, tls=None, is_multithread=False
    )
    environ |= {
        "PATH_INFO": unquote_to_bytes(page.path).decode("latin-1"),
        "QUERY_STRING": page.query,
        "RAW_URI": page.path,
        "REQUEST_URI": page.path,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": page.host,
        "HTTP_USER_AGENT": _AGENT,
    }
    said: list[str] = []

    def start_response(status: str, _headers: Any, _exc_info: Any = None) -> Callable[[bytes], None]:
        said.append(status)
        return lambda _data: None

    body = app(environ, start_response)
    try:
        for _ in body:
            continue
    finally:
        if hasattr(body, "close"):
            body.close()
    if not said:
        raise RuntimeError("it has not called start_response")
    return int(said[-1].split(" ", 1)[0])


def _asgi(app: Any, page: Page, root_path: str) -> int:
    loop = asyncio.SelectorEventLoop()
    try:
        return loop.run_until_complete(_ask(app, page, root_path))
    finally:
        # However it went, nothing of the loop stays: not even where the application will not have it.
        with _bounded(_CLEAR_S), suppress(_TimeUpError):
            _clear(loop)
        loop.close()


async def _ask(app: Any, page: Page, root_path: str) -> int:
    statuses: list[int] = []
    is_answered = asyncio.Event()
    is_read = False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            is_answered.set()

    await app(_scope(page, root_path), receive, send)
    if not statuses:
        raise RuntimeError("it has not answered")
    return statuses[-1]


def _scope(page: Page, root_path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": page.scheme,
        "path": root_path + unquote_to_bytes(page.path).decode("utf-8", "surrogateescape"),
        "raw_path": page.path.encode(),
        "query_string": page.query.encode(),
        "root_path": root_path,
        "headers": [(b"host", page.host.encode()), (b"user-agent", _AGENT.encode())],
        "client": ("127.0.0.1", 0),
        "server": page.server,
        "state": {},
        "extensions": {},
    }


def _clear(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())


@contextmanager
def _bounded(timeout_s: float) -> Iterator[None]:
    """Raise _TimeUpError in the body, wherever it is, when its time is over (setitimer(2)). Main thread only.

    Again each second: the first may end a task that nobody waits for.
    """

    def ring(_signum: int, _frame: FrameType | None) -> None:
        raise _TimeUpError

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, timeout_s, 1.0)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # it has rung in the last moment
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)


# -- what is left behind ------------------------------------------------------------------------------


def _tell_left_overs(threads: set[threading.Thread], sockets: dict[int, str]) -> None:
    deadline_s = time.monotonic() + _LEAVE_S
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    left = sorted(thread.name for thread in set(threading.enumerate()) - threads)
    if left:
        _logger.error(
            "warm-up has left threads alive, which no fork takes along: %s. Have the application end them, or leave out "
            "the path that starts them",
            ", ".join(left),
        )
    opened = [where for fd, where in _sockets().items() if sockets.get(fd) != where]
    if opened:
        _logger.warning(
            "warm-up has left connections open, which all workers would share: %s. Have the application close them, or "
            "leave out the path that opens them",
            ", ".join(sorted(opened)),
        )


def _sockets() -> dict[int, str]:
    """The sockets that are open here, and where each leads; none where there is no procfs."""
    found: dict[int, str] = {}
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # the descriptor of the listing itself; closed meanwhile
                target = str(Path("/proc/self/fd", name).readlink())
                if target.startswith("socket:"):
                    found[int(name)] = f"{target} ({_peer(int(name))})"
    return found


def _peer(fd: int) -> str:
    """Whom a socket is connected to."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
        peer = copy.getpeername()
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer or "a pair")
    return "not connected"
