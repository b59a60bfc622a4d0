"""A page is walked as a reader does: its files are written, its commands run in order, and what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.docs.test_snippets import Snippet
from tests.process.harness import free_port

STEP_LIMIT_S = 60.0


class Walk:
    """A folder, two ports of its own in place of those that pages name, and a shell."""

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

    def write(self, steps: Iterable[Snippet]) -> None:
        """Write the files that a page shows: blocks whose info string ends in a file's name."""
        for step in steps:
            language, _, name = step.info.partition(" ")
            if language == "python" and name.endswith(".py"):
                (self.folder / name).write_text(step.code, encoding="utf-8")

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

    def go(self, steps: Iterable[Snippet], runs: str, seen: str = "") -> int:
        """Run the steps whose info string is `runs`; each `text` behind them is what they print. How many were run."""
        said, count = "", 0
        for step in steps:
            if step.info == runs:
                said, count = self.run(step), count + 1
            elif step.info == "text" and count:
                assert said == step.code, f"{step.name}\n{seen}"
        return count
