"""What the admin process serves, asked directly: answers, headers, and how often the master is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from prefork.control import StatusReport
from prefork.observe.dashboard import Page
from prefork.observe.line import SilentError
from prefork.observe.site import FRESH_S, Site, Watcher
from prefork.observe.usage import Usages
from tests.unit.test_figures import look, worker
from tests.unit.test_usage import FakeMeter

SERVING = look(1000, worker(1, 8, 900), worker(2, 4, 950), addresses=("http://127.0.0.1:8080",))


class Master:
    """Answers, counts how often it was asked, or is silent."""

    def __init__(self) -> None:
        self.report: StatusReport | None = SERVING
        self.asked = 0
        self.now_s = 0.0

    async def ask(self) -> StatusReport:
        self.asked += 1
        if self.report is None:
            raise SilentError("the master has not answered within 3 s")
        return self.report

    def site(self, *others: Callable[[], str]) -> Site:
        watcher = Watcher(self.ask, Usages(FakeMeter(), 100), lambda: self.now_s)
        return Site(watcher, ("web-1",), others)


async def get(site: Site, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    given = {"host": "127.0.0.1:9090", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "server": ("127.0.0.1", 9090),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
    }
    await site(scope, None, send)
    head = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], head, said[1]["body"].decode()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_each_page_says_what_it_is() -> None:
    """And no browser keeps it, guesses its type, or lends it to another site."""

    async def story() -> None:
        site = Master().site()
        for path, kind in (
            ("/", "text/html; charset=utf-8"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
            ("/status.json", "application/json"),
            ("/healthz", "text/plain; charset=utf-8"),
            ("/readyz", "text/plain; charset=utf-8"),
        ):
            status, head, body = await get(site, path)
            assert (status, head["content-type"]) == (200, kind)
            assert head["cache-control"] == "no-store"
            assert head["x-content-type-options"] == "nosniff"
            assert head["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in head
            assert "default-src 'none'" in head["content-security-policy"]
            assert int(head["content-length"]) == len(body.encode())

    run(story)


def test_the_page_loads_nothing_and_runs_nothing_but_its_own() -> None:
    """By hash; and only what the fleet serves may frame it."""

    async def story() -> None:
        _, head, body = await get(Master().site(), "/")
        policy = head["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'sha256-" in policy
        assert policy.endswith("frame-ancestors 'self' http://127.0.0.1:8080")
        assert "http://" not in body.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in body

    run(story)


def test_the_page_comes_without_a_master_too() -> None:
    """It says itself that nobody answers."""

    async def story() -> None:
        master = Master()
        master.report = None
        status, head, _ = await get(master.site(), "/")
        assert status == 200
        assert head["content-security-policy"].endswith("frame-ancestors 'self'")

    run(story)


def test_a_silent_master_is_neither_healthy_nor_ready() -> None:
    """With the reason."""

    async def story() -> None:
        master = Master()
        master.report = None
        for path in ("/healthz", "/readyz", "/status.json", "/metrics"):
            status, _, body = await get(master.site(), path)
            assert (status, body) == (503, "the master has not answered within 3 s\n")

    run(story)


def test_ready_is_who_has_a_worker_and_does_not_leave() -> None:
    """A reload, or a worker less, does not matter."""

    async def story() -> None:
        master = Master()
        for state, ready, expected in (
            ("serving", 2, 200),
            ("reloading", 1, 200),
            ("upgrading", 2, 200),
            ("starting", 1, 200),
            ("starting", 0, 503),
            ("serving", 0, 503),
            ("stopping", 2, 503),
            ("resting", 2, 503),
        ):
            master.report = replace(SERVING, state=state, ready=ready)
            status, _, body = await get(master.site(), "/readyz")
            assert (status, body) == (expected, f"{state}, {ready} of 2 workers\n")
            assert (await get(master.site(), "/healthz"))[0] == 200

    run(story)


def test_those_who_look_at_the_same_time_share_a_look() -> None:
    """However many; and who comes later gets a new one."""

    async def story() -> None:
        master = Master()
        site = master.site()
        await asyncio.gather(*(get(site, "/status.json") for _ in range(20)), get(site, "/metrics"))
        assert master.asked == 1
        master.now_s += FRESH_S
        await get(site, "/metrics")
        assert master.asked == 2

    run(story)


def test_the_status() -> None:
    """Totals, and each worker."""

    async def story() -> None:
        _, _, body = await get(Master().site(), "/status.json")
        found = json.loads(body)
        assert (found["requests"], found["is_ready"], found["state"]) == (12, True, "serving")
        assert [each["requests"] for each in found["workers"]] == [8, 4]
        assert found["statuses"]["2xx"] == 12

    run(story)


def test_metrics_of_others_come_behind_ours() -> None:
    """The application's own, say."""

    async def story() -> None:
        _, _, body = await get(Master().site(lambda: "shop_orders_total 3\n"), "/metrics")
        assert body.endswith("\nshop_orders_total 3\n")

    run(story)


def test_what_is_refused() -> None:
    """With the reason, and what there is."""

    async def story() -> None:
        site = Master().site()
        status, head, _ = await get(site, "/status.json", "POST")
        assert (status, head["allow"]) == (405, "GET, HEAD")
        assert (await get(site, "/status.json", host="evil.example"))[0] == 403
        status, _, body = await get(site, "/wp-login.php")
        assert status == 404
        assert "/metrics" in body

    run(story)


def test_the_page_is_whole() -> None:
    """Style and script are in their places, and every element that the script names is there."""
    html = Page().html
    assert "/* style.css */" not in html
    assert "/* script.js */" not in html
    assert html.count("<script>") == 1
