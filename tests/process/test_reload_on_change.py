"""Reload on change, with a real watcher and real edits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from prefork.errors import ConfigError
from prefork.master.lookout import Sights
from tests.process import procfs
from tests.process.apps import GOOD, Site, ask, wait_until_ready
from tests.process.harness import Fleet, wait_until

WATCHING = "reload on change: watching"
METHODS = pytest.mark.parametrize("method", ["fork", "exec"])


def watched(fleet: Fleet, workers: int = 1) -> Fleet:
    """It serves, and sees edits."""
    wait_until_ready(fleet, workers)
    fleet.wait_for(WATCHING, since=0)
    return fleet


def wait_for_version(fleet: Fleet, version: str) -> None:
    """The code that answers is that one."""
    fleet.wait_for("reload done")
    wait_until(lambda: ask(fleet).startswith(version), f"{version} answers", show=lambda: fleet.output)


def appear(path: Path, aside: Path) -> None:
    """Make a file by one event: to create one and to close it are two, and a busy machine may tell them apart."""
    (aside / "draft").write_text("")
    (aside / "draft").rename(path)


def lookout_of(fleet: Fleet) -> int:
    """The pid of the process that watches."""
    (pid,) = [
        x for x in procfs.children(fleet.pid) if any("observe.watcher" in y for y in procfs.command_line(x))
    ]
    return pid


@METHODS
def test_an_edit_is_served(fleet_of: Callable[..., Fleet], tmp_path: Path, method: str) -> None:
    """Written as editors do, by a rename; then in place; then in a package that is new."""
    site = Site(tmp_path)
    fleet = watched(fleet_of(*site.serving("--reload", "--start-method", method, workers=1)))
    site.write_good("second")
    fleet.wait_for("changed: site_app.py")
    wait_for_version(fleet, "second")
    (tmp_path / "site_app.py").write_text(textwrap.dedent(GOOD.replace("VERSION", "third")))
    wait_for_version(fleet, "third")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    wait_for_version(fleet, "third")
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_broken_code_is_shown_and_the_old_serves_until_it_is_mended(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Three ways to be broken: it does not parse, it raises, its lifespan fails."""
    site = Site(tmp_path)
    fleet = watched(fleet_of(*site.serving("--reload", workers=1)))
    for source, said in (
        ("def app(:\n", "SyntaxError"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("async def app(scope, receive, send):\n    raise RuntimeError('no database')\n", ""),
    ):
        site.write(source if said else LIFESPAN_FAILS)
        fleet.wait_for(said or "no database")
        fleet.wait_for("reload failed: .* generation 1 serves on")
        assert ask(fleet).startswith("first")
    site.write_good("mended")
    wait_for_version(fleet, "mended")
    assert fleet.stop() == 0


LIFESPAN_FAILS = """
    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
    """


def test_a_first_start_that_is_broken_waits_for_its_edit(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Without --reload it would be the end, with status 3."""
    site = Site(tmp_path)
    site.write("raise RuntimeError('broken on purpose')\n")
    fleet = fleet_of(*site.serving("--reload"))
    fleet.wait_for("RuntimeError: broken on purpose")
    fleet.wait_for("waiting for an edit")
    fleet.wait_for(WATCHING, since=0)
    site.write_good("mended")
    wait_for_version(fleet, "mended")
    assert fleet.stop() == 0


def test_several_changes_within_a_moment_are_one_reload(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A branch that is checked out; a last edit, which comes for sure, closes the count."""
    site = Site(tmp_path)
    fleet = watched(fleet_of(*site.serving("--reload", workers=1)))
    watcher = lookout_of(fleet)
    # So that it sees them within a moment, however long they take to be written here.
    fleet.kill(watcher, SIGSTOP)
    wait_until(lambda: procfs.state(watcher) == "T", "the watcher is stopped")
    for number in range(50):
        (tmp_path / f"module_{number}.py").write_text("")
    fleet.kill(watcher, SIGCONT)
    fleet.wait_for(r"changed: module_\d+.py, module_\d+.py, module_\d+.py and 47 more")
    fleet.wait_for("reload done")
    assert len(fleet.find_all("changed:")) == 1
    assert fleet.stop() == 0


def test_what_is_no_code_of_ours_is_no_reload(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A virtual environment, an exclude, a template that is not included; the edit after them is."""
    site = Site(tmp_path)
    environment, build = tmp_path / "env", tmp_path / "build"
    for folder in (environment, build):
        folder.mkdir()
    (environment / "pyvenv.cfg").touch()
    templates = tmp_path / "pages"
    templates.mkdir()
    words = (
        "--reload",
        "--reload-exclude",
        "build",
        "--reload-include",
        "*.py",
        "--reload-include",
        "*.html",
    )
    fleet = watched(fleet_of(*site.serving(*words, workers=1)))
    for path in (environment / "x.py", build / "x.py", tmp_path / "x.txt", tmp_path / ".x.py.swp"):
        path.write_text("changed")
    appear(templates / "page.html", tmp_path.parent)
    fleet.wait_for("reload done")
    assert [match.string.partition("changed: ")[2] for match in fleet.find_all("changed: ")] == [
        "pages/page.html"
    ]
    assert fleet.stop() == 0


def test_other_directories(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """--reload-dir, twice, in place of that of the application."""
    here, there = tmp_path / "here", tmp_path / "there"
    (tmp_path / "site").mkdir()
    for folder in (here, there):
        folder.mkdir()
    site = Site(tmp_path / "site")
    words = ("--reload", "--reload-dir", str(here), "--reload-dir", str(there))
    fleet = watched(fleet_of(*site.serving(*words, workers=1)))
    site.write_good("unseen")
    appear(there / "x.py", tmp_path)
    wait_for_version(fleet, "unseen")
    assert len(fleet.find_all("changed:")) == 1
    assert fleet.stop() == 0


def test_the_watcher_is_watched(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """It is killed: said, and there is another, which sees the next edit. The fleet serves all the time."""
    site = Site(tmp_path)
    fleet = watched(fleet_of(*site.serving("--reload", workers=1)))
    fleet.kill(lookout_of(fleet))
    fleet.wait_for("nobody watches, killed by signal 9")
    assert ask(fleet).startswith("first")
    fleet.wait_for(WATCHING)
    site.write_good("second")
    wait_for_version(fleet, "second")
    fleet.signal(SIGKILL)
    fleet.assert_nothing_left()


def test_a_program_of_ones_own(fleet_of_script: Callable[..., Fleet], tmp_path: Path) -> None:
    """`Prefork(..., reload=True)`: the program is run again for its new code; the master has no thread, and no watchfiles."""
    path = tmp_path / "program.py"
    source = """
        import os, sys, threading
        from prefork import Prefork, Server

        async def app(scope, receive, send):
            body = b"VERSION pid %d" % os.getpid()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        def ready(pids):
            print("threads", threading.active_count(), "watchfiles" in sys.modules, flush=True)

        server = Server(app, lifespan="off")
        Prefork(server, workers=1, reload=True, on_master_ready=ready).listen_and_serve("127.0.0.1:0")
        """
    path.write_text(textwrap.dedent(source.replace("VERSION", "first")))
    fleet = watched(fleet_of_script(path, cwd=tmp_path))
    assert fleet.wait_for(r"threads (.*)", since=0)[1] == "1 False"
    path.write_text(textwrap.dedent(source.replace("VERSION", "second")))
    wait_for_version(fleet, "second")
    assert fleet.stop() == 0


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(ConfigError, match=r"--reload-dir .*missing' is not a directory"):
        Sights.of([str(tmp_path / "missing")], ["*.py"], [])


def test_a_missing_watchfiles_is_told(tmp_path: Path) -> None:
    """With what to install, before anything is opened."""
    code = (
        "import sys; sys.modules['watchfiles'] = None\n"
        "from prefork.cli.serve import main\n"
        f"sys.argv = ['prefork', *{Site(tmp_path).serving('--reload')!r}]\n"
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "prefork: error: --reload needs watchfiles: pip install 'prefork[watch]'" in ended.stderr
    assert "Traceback" not in ended.stderr
