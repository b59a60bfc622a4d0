"""The five-minute tour, walked as it is written: every command, in its order, and what it prints."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT, Snippet, find_snippets
from tests.docs.walking import Walk
from tests.process.harness import Fleet

TOUR = find_snippets(ROOT / "docs" / "tour.md")
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def of(info: str) -> Snippet:
    """The one snippet of that kind."""
    (found,) = (step for step in TOUR if step.info == info)
    return found


def test_the_tour_goes_as_it_is_told(tmp_path: Path) -> None:
    """Start, ask, kill, reload, break, mend, look, scale, stop."""
    walk = Walk(tmp_path)
    walk.write(TOUR)
    command = walk.here(of("sh start").code).split()
    with Fleet([sys.executable, "-m", *command], env=dict(walk.environment), cwd=tmp_path) as fleet:
        fleet.wait_for("ready: 2 workers")
        assert walk.go(TOUR, "sh") >= 7, "the tour has lost its steps"
        assert fleet.wait() == 0
        fleet.assert_nothing_left()
