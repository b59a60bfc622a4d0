"""The migration guide names options that exist, and every row of its tables says something."""

from __future__ import annotations

import re

import pytest

from tests.docs.deploying import ROOT, default_of, options

TEXT = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
PEERS = ("gunicorn", "uvicorn", "granian", "uWSGI")


def rows(peer: str) -> list[tuple[str, str]]:
    """Theirs and ours, row by row."""
    found = re.search(rf"^\| {peer} \| prefork \|.*?\n\|---.*?\n((?:\|.*\n?)+)", TEXT, re.MULTILINE)
    assert found, f"no table for {peer}"
    lines = found[1].splitlines()
    return [(cells[1].strip(), cells[2].strip()) for cells in (line.split("|") for line in lines)]


@pytest.mark.parametrize("peer", PEERS)
def test_every_option_of_ours_exists(peer: str) -> None:
    """What the middle column says can be said to the command."""
    ours = {name for _, cell in rows(peer) for name in re.findall(r"`(--[a-z-]+)", cell)}
    assert len(ours) > 10
    assert ours - options() == set()


@pytest.mark.parametrize("peer", PEERS)
def test_every_row_says_something(peer: str) -> None:
    """An option of ours, "not needed" or "none"."""
    for theirs, cell in rows(peer):
        assert theirs
        assert cell in ("none", "not needed") or cell.startswith("`"), (theirs, cell)


def test_a_default_that_is_told_is_the_default() -> None:
    """Numbers that people will rely on."""
    assert "default 75" in TEXT
    assert default_of("--keep-alive") == 75
    assert default_of("--threads") == 8
    assert default_of("--connections") == 16_384
    assert default_of("--message-bytes") == 1 << 20
    assert default_of("--target-bytes") == 8192
    assert default_of("--backlog") == 2048
    assert default_of("--recycle-jitter") == 0.2
    assert default_of("--body-bytes") == 1 << 30
