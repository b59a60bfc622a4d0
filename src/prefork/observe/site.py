"""What the admin process serves: a small ASGI application over looks at the fleet.

    /             the dashboard: one page, nothing loaded from anywhere else
    /metrics      Prometheus
    /status.json  all there is to know
    /healthz      200 while the master answers
    /readyz       200 while a worker accepts and the fleet is not about to leave

A look is taken when somebody asks, at most every `FRESH_S`, and shared by all who ask within that time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Final

from prefork.control import StatusReport
from prefork.observe.dashboard import Page
from prefork.observe.figures import Figures, Looks
from prefork.observe.line import SilentError
from prefork.observe.metrics import CONTENT_TYPE, prometheus
from prefork.observe.status import as_json, is_ready
from prefork.observe.usage import Usage, Usages
from prefork.observe.visitors import frame_ancestors, refusal

FRESH_S: Final = 0.2
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_TEXT: Final = "text/plain; charset=utf-8"

Look = tuple[Figures, dict[int, Usage]]


class Watcher:
    """Looks at the fleet when it is asked to."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[StatusReport]],
        usages: Usages,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ask = ask
        self._usages = usages
        self._now_s = now_s
        self._looks = Looks()
        self._last: Look | None = None
        self._last_at_s = 0.0
        self._lock = asyncio.Lock()

    async def look(self) -> Look:
        """The fleet as it is now, or was a moment ago. Raises SilentError."""
        async with self._lock:
            if self._last is None or self._now_s() - self._last_at_s >= FRESH_S:
                report = await self.ask()
                pids = [worker.pid for worker in report.workers if worker.pid is not None]
                at_s = self._last_at_s = self._now_s()
                # In a thread: the kernel walks page tables for it.
                usages = await asyncio.to_thread(self._usages.look, pids, at_s)
                self._last = (self._looks.add(report), usages)
            return self._last


class Site:
    """The application. `names` are those by which it may be asked; `others` add to the metrics, each a text of its own."""

    def __init__(
        self, watcher: Watcher, names: Collection[str], others: Iterable[Callable[[], str]] = ()
    ) -> None:
        self._watcher = watcher
        self._names = names
        self._others = tuple(others)
        self._page = Page()
        self._routes: dict[str, Callable[[str], Awaitable[tuple[int, str, str]]]] = {
            "/metrics": self._metrics,
            "/status.json": self._status,
            "/healthz": self._health,
            "/readyz": self._readiness,
        }

    async def __call__(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, host = scope["path"], headers.get("host", "")
        is_tcp = bool(scope["server"]) and scope["server"][1] is not None
        refused = refusal(scope["method"], path, headers, self._names, is_tcp=is_tcp)
        policy = ""
        if refused is not None:
            status, kind, text = refused.status, _TEXT, refused.why + "\n"
        elif path == "/":
            status, kind, text = 200, "text/html; charset=utf-8", self._page.html
            policy = self._page.policy(frame_ancestors(host, await self._addresses()))
        elif path in self._routes:
            try:
                status, kind, text = await self._routes[path](host)
            except SilentError as error:
                status, kind, text = 503, _TEXT, f"{error}\n"
        else:
            status, kind, text = 404, _TEXT, "there are /, /metrics, /status.json, /healthz and /readyz\n"
        await _answer(
            send, status, kind, text.encode(), policy or "default-src 'none'; frame-ancestors 'none'"
        )

    async def _addresses(self) -> Collection[str]:
        try:
            return (await self._watcher.ask()).addresses
        except SilentError:  # the page says so itself
            return ()

    async def _metrics(self, _host: str) -> tuple[int, str, str]:
        return (
            200,
            CONTENT_TYPE,
            "".join([prometheus(*await self._watcher.look()), *(each() for each in self._others)]),
        )

    async def _status(self, _host: str) -> tuple[int, str, str]:
        return 200, "application/json", json.dumps(as_json(*await self._watcher.look())) + "\n"

    async def _health(self, _host: str) -> tuple[int, str, str]:
        await self._watcher.ask()
        return 200, _TEXT, "ok\n"

    async def _readiness(self, _host: str) -> tuple[int, str, str]:
        report = await self._watcher.ask()
        text = f"{report.state}, {report.ready} of {report.wanted} workers\n"
        return (200, _TEXT, text) if is_ready(report) else (503, _TEXT, text)


async def _answer(send: Any, status: int, kind: str, body: bytes, policy: str) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"content-security-policy", policy.encode("latin-1", "replace")),
        *_HEADERS,
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
