"""Take the pictures of docs/img anew: `make pictures`. Needs chromium; takes a minute.

A fleet that sells nothing, under load, in which a worker crashes, the code is loaded anew, and a worker is recycled.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.ecosystem.browsing import chromium, visit
from tests.process.apps import reload, serving, wait_until_ready
from tests.process.attending import admin_port
from tests.process.controlling import done
from tests.process.harness import Fleet
from tests.process.load import Load

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "img"
SHOP = """
    import asyncio, random

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        await asyncio.sleep(random.lognormvariate(-4.6, 0.8))
        status = random.choices((200, 404, 500), (970, 29, 1))[0]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
"""
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def take_dashboard(browser: Any) -> None:
    """light.png, dark.png, phone.png."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").write_text(textwrap.dedent(SHOP))
        words = serving("shop", "--admin", "127.0.0.1:0", folder=Path(folder), workers=4)
        with Fleet.command(*words) as fleet:
            wait_until_ready(fleet, 4)
            url = f"http://127.0.0.1:{admin_port(fleet)}/"
            with (
                Load(fleet.url, clients=6),
                visit(browser, url, color_scheme="light", **DESKTOP) as light,
                visit(browser, url, color_scheme="dark", **DESKTOP) as dark,
                visit(browser, url, color_scheme="light", **PHONE) as phone,
            ):
                light.page.wait_for_timeout(16_000)
                fleet.kill(fleet.workers()[1])
                light.page.wait_for_timeout(9_000)
                reload(fleet)
                light.page.wait_for_timeout(11_000)
                done(fleet, "recycle", "2")
                light.page.wait_for_timeout(5_000)
                light.page.screenshot(path=IMAGES / "dashboard-light.png")
                dark.page.screenshot(path=IMAGES / "dashboard-dark.png")
                phone.page.screenshot(path=IMAGES / "dashboard-phone.png", full_page=True)


def take_demo(browser: Any) -> None:
    """demo.png."""
    words = serving(
        "demo",
        "--admin",
        "127.0.0.1:8081",
        folder=ROOT / "examples" / "demo",
        workers=4,
        bind="127.0.0.1:8080",
    )
    with Fleet.command(*words, env={"PREFORK_ADMIN": "127.0.0.1:8081"}) as fleet:
        wait_until_ready(fleet, 4)
        with visit(
            browser, fleet.url, color_scheme="light", viewport={"width": 1440, "height": 860}
        ) as visited:
            visited.page.wait_for_timeout(9_000)
            visited.page.click("#ask")
            visited.page.wait_for_timeout(6_000)
            visited.page.click("#crash")
            visited.page.mouse.move(5, 5)
            visited.page.wait_for_timeout(1_500)
            visited.page.screenshot(path=IMAGES / "demo.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        take_dashboard(browser)
        take_demo(browser)


if __name__ == "__main__":
    main()
