"""Which changes are the application's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefork.observe.watched import Watched


@pytest.mark.parametrize(
    ("path", "is_code"),
    [
        ("/site/app.py", True),
        ("/site/shop/models.py", True),
        ("/site/page.html", False),
        ("/elsewhere/app.py", False),
        ("/site-of-another/app.py", False),
        ("/site/.venv/lib/x.py", False),
        ("/site/.git/hooks/x.py", False),
        ("/site/venv/lib/python3.13/site-packages/x.py", False),
        ("/site/node_modules/x.py", False),
        ("/site/__pycache__/app.py", False),
        ("/site/app.pyc", False),
        ("/site/.#app.py", False),
        ("/site/.app.py.swp", False),
        ("/site/app.py~", False),
    ],
)
def test_by_default(path: str, *, is_code: bool) -> None:
    """Python below the directory, but for what nobody edits."""
    assert Watched(["/site"], ["*.py"], []).is_code(path) == is_code


@pytest.mark.parametrize(
    "name", ["app.py~", "4913", ".app.py.swp", "app.py.___jb_tmp___", "app.cpython-313.pyc"]
)
def test_drafts_of_editors_are_never_code(name: str) -> None:
    """Not even where everything is included."""
    watched = Watched(["/site"], ["*"], [])
    assert not watched.is_code(f"/site/{name}")
    assert watched.is_code("/site/app.py")


@pytest.mark.parametrize(
    ("includes", "path", "is_code"),
    [
        (["*.html"], "/site/templates/page.html", True),
        (["*.html"], "/site/app.py", False),
        (["*.py", "*.html"], "/site/app.py", True),
        (["templates/*.html"], "/site/templates/page.html", True),
        (["templates/*.html"], "/site/page.html", False),
        (["/site/page.*"], "/site/page.html", True),
    ],
)
def test_includes(includes: list[str], path: str, *, is_code: bool) -> None:
    """By name, by the path below the directory, by the whole path."""
    assert Watched(["/site"], includes, []).is_code(path) == is_code


@pytest.mark.parametrize(
    ("excludes", "path", "is_code"),
    [
        (["test_*.py"], "/site/test_app.py", False),
        (["test_*.py"], "/site/app.py", True),
        (["migrations"], "/site/shop/migrations/0001.py", False),
        (["shop/migrations"], "/site/shop/migrations/0001.py", False),
        (["shop/migrations/"], "/site/shop/migrations/0001.py", False),
        (["shop/migrations"], "/site/blog/migrations/0001.py", True),
        (["/site/shop"], "/site/shop/models.py", False),
    ],
)
def test_excludes(excludes: list[str], path: str, *, is_code: bool) -> None:
    """Files, and folders with all that is in them; they come after the includes."""
    assert Watched(["/site"], ["*.py"], excludes).is_code(path) == is_code


def test_virtual_environments_are_known_by_their_file(tmp_path: Path) -> None:
    """Whatever they are called."""
    (tmp_path / "my env").mkdir()
    (tmp_path / "my env" / "pyvenv.cfg").touch()
    watched = Watched([str(tmp_path)], ["*.py"], [])
    assert not watched.is_code(str(tmp_path / "my env" / "lib" / "x.py"))
    assert watched.is_code(str(tmp_path / "other" / "x.py"))


def test_what_is_named_is_watched_wherever_it_lies() -> None:
    """A directory in a hidden one, in a virtual environment, below another that is watched."""
    watched = Watched(["/home/me", "/home/me/.venv/src/lib"], ["*.py"], [])
    assert watched.is_code("/home/me/.venv/src/lib/x.py")
    assert not watched.is_code("/home/me/.venv/src/other/x.py")
    assert watched.shown("/home/me/.venv/src/lib/a/x.py") == "a/x.py"
    assert watched.shown("/etc/x.py") == "/etc/x.py"


def test_a_new_folder_is_code_if_there_is_some_in_it(tmp_path: Path) -> None:
    """At any depth; not where it is a virtual environment, or holds none."""
    watched = Watched([str(tmp_path)], ["*.py"], ["build"])
    for name in ("shop/deep/a.py", "env/lib/b.py", "build/c.py", ".git/d.py", "pages/e.html"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    found = {folder.name for folder in tmp_path.iterdir() if watched.holds_code(str(folder))}
    assert found == {"shop"}
    assert not watched.holds_code(str(tmp_path / "missing"))
