"""What is drawn in docs/ is what the code decides today: `make docs-reference` draws it anew."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from prefork.master.fleet import Phase
from tests.docs.drawing.__main__ import DOCS, PICTURES, pictures, tables, with_table
from tests.docs.drawing.states import GONE, WORDS, ways
from tests.docs.drawing.stories import DRAWN


def test_the_pictures_are_those_of_today() -> None:
    """Each one that is committed, and none beside them."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in PICTURES.glob("*.svg")}
    stale = [name for name, svg in pictures().items() if committed.get(name) != svg]
    assert set(committed) == set(pictures())
    assert not stale, "draw them anew: make docs-reference"


@pytest.mark.parametrize(("page", "name"), sorted(tables()))
def test_a_table_is_that_of_today(page: str, name: str) -> None:
    """Drawn into its page once more, it changes nothing."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert with_table(text, name, tables()[page, name]) == text, "draw it anew: make docs-reference"


def test_every_picture_is_shown_and_can_be_read_without_being_seen() -> None:
    """On some page; with a title, and with its steps in words."""
    shown = {
        name
        for page in DOCS.glob("*.md")
        for name in re.findall(r"\(img/drawn/([\w-]+\.svg)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == set(pictures())
    for svg in pictures().values():
        root = ET.fromstring(svg)  # noqa: S314  (drawn by ourselves)
        title, words, *_ = root
        assert title.text
        assert words.text


def test_the_phases_are_all_there() -> None:
    """Every phase is come to and left, and every way has its words."""
    assert set(ways()) == set(WORDS)
    assert {start for start, _ in ways()} == {phase.value for phase in Phase}
    assert {end for _, end in ways()} == {phase.value for phase in Phase} - {"spawning"} | {GONE}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_story_is_the_same_each_time(name: str) -> None:
    """Nothing in it is left to chance, or the pictures would differ from run to run."""
    assert DRAWN[name].steps() == DRAWN[name].steps()


def test_a_page_without_a_place_is_told_of() -> None:
    """A table that has nowhere to go is no table that is current."""
    with pytest.raises(ValueError, match="no place for the table 'phases'"):
        with_table("# A page\n", "phases", "| a |")
