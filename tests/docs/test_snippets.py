"""The snippets of README.md, CONTRIBUTING.md and docs/*.md are code that works.

* Every ```python block compiles.
* A ```python run block is executed by itself, in a fresh process and an empty directory, and ends with 0.
* Every option in a line of a ```sh block that calls `prefork` exists in `prefork --help`.
* A ```python NAME.py block is a file, and a ```sh run block is run beside it: see `walking` and `test_walks`.

The info string's second word is not shown by renderers, so the reader sees plain Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_LIMIT_S = 90.0

# A fence closes with as many backquotes as it opened with, at its own indentation (CommonMark 4.5).
_FENCE = re.compile(
    r"^(?P<indent>[ ]*)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_CALL = re.compile(r"(?:^|[\s/])prefork\s+(?P<rest>.*)")


class Snippet(NamedTuple):
    path: Path
    line: int
    info: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def find_snippets(path: Path) -> list[Snippet]:
    text = path.read_text(encoding="utf-8")
    return [
        Snippet(
            path,
            text.count("\n", 0, match.start()) + 1,
            " ".join(match["info"].split()),
            textwrap.dedent(match["code"]),
        )
        for match in _FENCE.finditer(text)
    ]


PAGES = [page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if page.exists()]
PAGES += sorted((ROOT / "docs").glob("*.md"))
SNIPPETS = [snippet for page in PAGES for snippet in find_snippets(page)]


def those(*infos: str) -> pytest.MarkDecorator:
    """Snippets of these kinds: an info string, or its first word and what follows (`python *`)."""
    chosen = [
        snippet
        for snippet in SNIPPETS
        if snippet.info in infos or f"{snippet.info.partition(' ')[0]} *" in infos
    ]
    return pytest.mark.parametrize("snippet", chosen, ids=lambda snippet: snippet.name)


def options_called(snippet: Snippet) -> list[str]:
    """The options given to `prefork` (not to `preforkctl`, not to the tool before it), joined lines included."""
    calls = (_CALL.search(line) for line in snippet.code.replace("\\\n", " ").splitlines())
    found = []
    for call in filter(None, calls):
        rest = re.split(r"\s#|[|;&]", call["rest"])[0]
        found += _OPTION.findall(rest)
    return found


@cache
def options_known() -> frozenset[str]:
    command = [sys.executable, "-m", "prefork", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True)
    return frozenset(_OPTION.findall(ended.stdout))


@those("python *")
def test_python_snippet_compiles(snippet: Snippet) -> None:
    """What a reader copies is at least Python; a traceback names the page and its line."""
    compile("\n" * snippet.line + snippet.code, str(snippet.path), "exec", dont_inherit=True)


@those("python run")
def test_python_snippet_runs(snippet: Snippet, tmp_path: Path) -> None:
    """What says that it runs, runs by itself, and ends well."""
    script = tmp_path / "snippet.py"
    script.write_text(snippet.code, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        cwd=tmp_path,
        check=False,
    )
    assert ended.returncode == 0, f"{snippet.name}\n{ended.stdout}{ended.stderr}"


@those("sh *", "bash *", "console *", "shell *")
def test_command_snippet_names_real_options(snippet: Snippet) -> None:
    """No page shows an option that the command does not have."""
    unknown = set(options_called(snippet)) - (options_known() if options_called(snippet) else frozenset())
    assert not unknown, f"{snippet.name}: prefork has no {', '.join(sorted(unknown))}"


def test_the_finder_sees_every_kind_of_fence(tmp_path: Path) -> None:
    """Indented fences, longer fences, other languages, joined lines: the net has no hole we know of."""
    page = ROOT / "docs" / "a page that is not there.md"
    example = tmp_path / "page.md"
    example.write_text(
        "text\n```python\na = 1\n```\n\n* item\n  ```python run\n  b = 2\n  ```\n"
        "````md\n```python\nnot code\n```\n````\n"
        "```sh\nFOO=--not-this prefork app:app \\\n    --bind :80 | grep --nor-this  # --nor-that\n```\n",
        encoding="utf-8",
    )
    snippets = find_snippets(example)
    assert [(one.line, one.info) for one in snippets] == [
        (2, "python"),
        (7, "python run"),
        (10, "md"),
        (15, "sh"),
    ]
    assert snippets[1].code == "b = 2\n"
    assert options_called(snippets[3]) == ["--bind"]
    assert snippets[0]._replace(path=page).name == "docs/a page that is not there.md:2"
