"""Pages whose commands say `sh run`: their files are written, the commands run, and what they print is what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT, find_snippets
from tests.docs.walking import Walk


@pytest.mark.parametrize("page", ["fork-safety", "embedding"])
def test_a_page_goes_as_it_is_told(page: str, tmp_path: Path) -> None:
    """Every step of it, in its order."""
    steps = find_snippets(ROOT / "docs" / f"{page}.md")
    walk = Walk(tmp_path)
    walk.write(steps)
    assert walk.go(steps, "sh run") >= 1
