"""The five-minute tour, walked as it is written: every command, in its order, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT, Snippet, find_snippets
from tests.process.harness import Fleet, free_port

TOUR = find_snippets(ROOT / "docs" / "tour.md")
STEP_LIMIT_S = 60.0
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Walk:
    """A folder, two ports of its own in place of those that the tour names, and a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {"8080": str(free_port()), "9090": str(free_port())}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # The reader has one master; this machine may have more, so this one is named.
        self.environment = {
            "PATH": path,
            "PREFORK_CONTROL": str(folder / "control.sock"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def here(self, code: str) -> str:
        """The commands, with this walk's ports."""
        return re.sub(r"\b(8080|9090)\b", lambda found: self._ports[found[1]], code)

    def run(self, step: Snippet) -> str:
        """Run the commands of one step: what they print."""
        ended = subprocess.run(
            ["sh", "-e", "-c", self.here(step.code)],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=STEP_LIMIT_S,
            check=False,
        )
        assert ended.returncode == 0, f"{step.name}\n{ended.stdout}{ended.stderr}"
        return ended.stdout


def of(info: str) -> Snippet:
    """The one snippet of that kind."""
    (found,) = (step for step in TOUR if step.info == info)
    return found


def test_the_tour_goes_as_it_is_told(tmp_path: Path) -> None:
    """Start, ask, kill, reload, break, mend, look, scale, stop."""
    walk = Walk(tmp_path)
    (tmp_path / "main.py").write_text(of("python main.py").code, encoding="utf-8")
    steps = [step for step in TOUR if step.info in ("sh", "text")]
    assert len(steps) > 10, "the tour has lost its steps"
    command = walk.here(of("sh start").code).split()
    with Fleet([sys.executable, "-m", *command], env=dict(walk.environment), cwd=tmp_path) as fleet:
        fleet.wait_for("ready: 2 workers")
        said = ""
        for step in steps:
            if step.info == "sh":
                said = walk.run(step)
            else:
                assert said == step.code, f"{step.name}\n{fleet.output}"
        assert fleet.wait() == 0
        fleet.assert_nothing_left()
