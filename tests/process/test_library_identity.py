"""Who is a child: the marker alone makes none, and a child has exactly one (seed: TestIsChild, TestChildEnv)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork import is_child
from tests.process.library import METHODS, ask, ready_workers, run

Script = Callable[..., Path]

PROGRAM = """
    import subprocess
    from prefork import Prefork
    from story import *

    class Server:
        def prepare(self):
            say(f"prepare: {is_child()}")

        def serve(self, listener):
            say(f"serve: {is_child()} {marker_count()}")
            serve(listener)

    def marker_count():
        listed = subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()
        return [line for line in listed if line.startswith("PREFORK_CHILD=")]

    def grandchild():
        return subprocess.run([sys.executable, "-c", "from prefork import is_child; print(is_child())"],
                              capture_output=True, text=True).stdout.strip()

    WORDS["grandchild"] = grandchild
    WORDS["sibling"] = lambda: os.environ.get("PREFORK_CHILD_SIBLING")

    say(f"top: {is_child()}")
    Prefork(Server(), workers=1, start_method=METHOD,
            on_master_ready=lambda _: say(f"hook: {is_child()} {os.environ.get('PREFORK_CHILD')}")
            ).listen_and_serve(ANY_PORT)
    say(f"after: {is_child()} {os.environ.get('PREFORK_CHILD')}")
"""


def test_we_are_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as we are, nor with a marker that came from somewhere."""
    assert not is_child()
    monkeypatch.setenv("PREFORK_CHILD", "1")
    assert not is_child()


@pytest.mark.parametrize(
    ("method", "stale"), [("fork", None), ("fork", "1"), ("exec", None), ("exec", "1"), ("exec", "stale")]
)
def test_who_is_a_child(python_script: Script, method: str, stale: str | None) -> None:
    """Zygote and workers are, the master and a worker's own programs are not, whatever the environment held."""
    with run(
        python_script(PROGRAM), method, env={"PREFORK_CHILD": stale, "PREFORK_CHILD_SIBLING": "keep"}
    ) as fleet:
        fleet.wait_for("top: False", since=0)
        fleet.wait_for(f"hook: False {stale}", since=0)
        fleet.wait_for("prepare: True", since=0)
        fleet.wait_for(r"serve: True \['PREFORK_CHILD=1'\]", since=0)
        (worker,) = ready_workers(fleet, 1)
        assert ask(fleet, "pid") == str(worker)
        assert ask(fleet, "is_child") == "True"
        assert ask(fleet, "marker") == "1"
        assert ask(fleet, "grandchild") == "False"
        assert ask(fleet, "sibling") == "keep"
        if method == "exec":
            environ = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
            assert [entry for entry in environ if entry.startswith(b"PREFORK_CHILD=")] == [b"PREFORK_CHILD=1"]
        assert fleet.stop() == 0
        fleet.wait_for(f"after: False {stale}", since=0)
        assert len(fleet.find_all("top: ")) == (2 if method == "exec" else 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_master_below_a_worker(python_script: Script, method: str) -> None:
    """A program that a worker starts may be a master itself: the marker that it inherits is not its own."""
    inner = python_script(
        """
        from prefork import Prefork
        from story import *

        Prefork(serve_func=serve, workers=1, start_method=METHOD,
                on_child_spawn=lambda pid: say(f"inner spawn {pid}")).listen_and_serve(ANY_PORT)
        """,
        "inner.py",
    )
    outer = python_script(
        """
        import subprocess
        from prefork import Prefork
        from story import *

        def serve_inner(listener):
            inner = subprocess.Popen([sys.executable, sys.argv[2], METHOD])
            try:
                serve(listener)
            finally:
                inner.terminate()
                inner.wait()

        Prefork(serve_func=serve_inner, workers=1, start_method=METHOD).listen_and_serve(ANY_PORT)
        """,
        "outer.py",
    )
    with run(outer, method, str(inner)) as fleet:
        pid = int(fleet.wait_for(r"inner spawn (\d+)", since=0)[1])
        fleet.wait_for(rf"pid {pid}\b.* ready", since=0)
        ready_workers(fleet, 2)
        assert fleet.stop() == 0
        fleet.assert_nothing_left()


def test_pipes_are_no_channel() -> None:
    """Even with a marker, a program is only a child where it finds a channel: a pipe is none."""
    source = "from prefork import is_child; print(is_child())"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={"PREFORK_CHILD": "1", "PATH": ""},
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
