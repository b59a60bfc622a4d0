"""A real browser: Debian's Chromium, driven by playwright, without a window and without calls home of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # tests run as root in containers; the pages are our own
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A name that a stranger has pointed at this machine (DNS rebinding).
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]
WAIT_MS = 45_000


@dataclass
class Visit:
    """One page, and all that it has asked for or complained of."""

    page: Any
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        found: str = self.page.inner_text(selector)
        return found

    def wait_for(self, expression: str, argument: object = None) -> None:
        """Wait until `expression`, a function's source, is true in the page."""
        self.page.wait_for_function(expression, arg=argument, timeout=WAIT_MS)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser; skips the test, saying why, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visit(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """Open `url` in a profile of its own."""
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    visited = Visit(page)
    page.on("request", lambda request: visited.asked.append(request.url))
    page.on("console", lambda message: visited.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: visited.complaints.append(str(error)))
    try:
        page.goto(url)
        yield visited
    finally:
        context.close()
