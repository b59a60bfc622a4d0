"""The commits and commands that pages name as witnesses of their figures are there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest

from tests.docs.test_snippets import ROOT

PATHS = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
PAGES = "\n".join(page.read_text(encoding="utf-8") for page in PATHS)


def git(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def test_every_commit_that_is_named_is_there() -> None:
    """Where there is a history, and all of it."""
    if shutil.which("git") is None or git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("there is no history here, or not all of it")
    named = set(re.findall(r"(?:`|commits? |\nand )((?=\d*[a-f])[0-9a-f]{7})\b", PAGES))
    assert len(named) > 5
    assert not [name for name in named if git("merge-base", "--is-ancestor", name, "HEAD").returncode]


def test_every_command_that_is_named_is_there() -> None:
    """`python -m` of modules, `make` of targets."""
    modules = set(re.findall(r"(?:`|^)python -m ([\w.]+)", PAGES, re.MULTILINE))
    targets = set(re.findall(r"(?:`|^)make ([\w-]+)", PAGES, re.MULTILINE))
    assert modules
    assert not [name for name in modules if importlib.util.find_spec(name) is None]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not [name for name in targets if f"\n{name}:" not in makefile]
