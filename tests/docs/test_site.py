"""The site of these pages (`make docs`): every link and anchor leads somewhere, nothing comes from elsewhere, a phone can show it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT
from tests.ecosystem.browsing import chromium

DOCS = ROOT / "docs"
PHONE_PX = 390
BUILD_LIMIT_S = 150.0
pytestmark = pytest.mark.slow
pytest.importorskip("sphinx", reason="sphinx is not installed: it is in the group `docs`")


def build(pages: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs`, quick to fail."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", DOCS, pages, to]
    return subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)


@pytest.mark.timeout(
    180
)  # five seconds of CPU time for a build, as many for a browser: others may want the CPUs, too
def test_the_site(tmp_path: Path) -> None:
    """One build, which is what takes the time, and then all that must hold of it."""
    site = tmp_path / "site"
    ended = build(DOCS, site)
    assert (ended.returncode, ended.stderr) == (0, "")
    every_page_is_in_the_menu(site)
    nothing_is_fetched_from_elsewhere(site)
    if shutil.which("chromium") is not None:
        a_phone_shows_it(site)


def every_page_is_in_the_menu(site: Path) -> None:
    """And every page of docs/ is on the site."""
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        times = index.count(f'toctree-l1"><a class="reference internal" href="{page.stem}.html')
        assert times == (0 if page.stem == "index" else 1), f"{page.name} is in the menu {times} times"


def nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No font, no script, no picture: who reads it offline reads all of it, and nobody else is told."""
    fetched = re.compile(r"""(?:src=|url\(|@import\s+|<link[^>]+href=)["']?(?:https?:)?//[^"')\s]+""")
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        found = fetched.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found}"


def a_phone_shows_it(site: Path) -> None:
    """No page is wider than the screen: what is wide scrolls by itself."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": PHONE_PX, "height": 844}, java_script_enabled=False)
        wide = {}
        for path in sorted(site.glob("*.html")):
            page.goto(path.as_uri(), wait_until="load")  # with its style sheets
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > PHONE_PX:
                wide[path.name] = width
        assert not wide


@pytest.mark.timeout(200)
def test_what_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    """A page, a heading, a file of the repository, a picture: each is named."""
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.md").write_text(
        "# A page\n\n[a](nowhere.md) [b](index.md#nothing) [c](../deploy/none.conf) ![d](img/no.png)\n",
        encoding="utf-8",
    )
    ended = build(pages, tmp_path / "site")
    assert ended.returncode != 0
    for name in ("'nowhere.md'", "'nothing'", "deploy/none.conf, which is not there", "img/no.png"):
        assert name in ended.stderr, ended.stderr
