"""Links of the pages as they lie in the repository, where nobody has built a site: to files, and to headings of pages."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_FENCED = re.compile(r"^ *(`{3,}).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Where the page leads, strangers' sites left out."""
    text = _CODE.sub("", _FENCED.sub("", page.read_text(encoding="utf-8")))
    return [link for link in _LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]


@cache
def headings(page: Path) -> frozenset[str]:
    """The anchors of the page, as repositories make them: lower case, no punctuation, blanks are dashes."""
    titles = _HEADING.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file or a folder of the repository; and where it names a heading, that is there."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the repository"
        if anchor:
            assert anchor in headings(target), f"{page.name}: {link}"


def test_the_finder_finds_links() -> None:
    """Or none of this would prove anything; the table of README leads to every page of docs/ but the site's own first one."""
    led_to = {Path(link.partition("#")[0]).name for link in links(ROOT / "README.md")}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - led_to == {"index.md"}
