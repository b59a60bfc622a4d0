"""The hooks: in which order, in which process, and what their failure does (seed: prefork_test.go)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.harness import Fleet
from tests.process.library import METHODS, ask, ready_workers, run

Script = Callable[..., Path]

EVENT = r"master: (spawn|all|recover) ([\d ]+)"

REAL = """
    from prefork import Prefork
    from story import *

    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD, recover_threshold=5, **hooks())
         .listen_and_serve(ANY_PORT))
"""

DUMMY = """
    import subprocess
    from prefork import Prefork
    from story import *

    def command(files):
        return subprocess.Popen(COMMAND)

    COMMAND = sys.argv[2:]
    tell(lambda: Prefork(command_producer=command, serve_func=serve, workers=2, recover_threshold=3,
                         recover_interval_s=0.01, **hooks()).listen_and_serve(ANY_PORT))
"""


def events(fleet: Fleet, count: int | None = None) -> list[tuple[str, list[int]]]:
    """What the hooks have said, the first `count` of it (waited for), or all that there is."""
    found = fleet.find_all(EVENT) if count is None else fleet.wait_for_all(EVENT, count)
    return [(match[1], [int(pid) for pid in match[2].split()]) for match in found]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_a_life(python_script: Script, method: str) -> None:
    """So many times spawn, once ready with the n pids, then for a crash spawn before recover; all in the master."""
    with run(python_script(REAL), method) as fleet:
        spawned = [pids[0] for name, pids in events(fleet, 2) if name == "spawn"]
        assert len(set(spawned)) == 2
        assert events(fleet, 3)[2] == ("all", spawned)
        assert set(ready_workers(fleet, 2)) == set(spawned)
        old = spawned[0]
        fleet.kill(old)
        (name, (new,)), recovered = events(fleet, 5)[3:]
        assert name == "spawn"
        assert recovered == ("recover", [old, new])
        assert ready_workers(fleet, 3)[2] == new
        assert int(ask(fleet, "pid")) in {spawned[1], new}
        assert fleet.stop() == 0
        assert [name for name, _ in events(fleet)] == ["spawn", "spawn", "all", "spawn", "recover"]
        assert "elsewhere" not in fleet.output


def test_the_order_with_children_that_know_nothing_of_us(python_script: Script) -> None:
    """The seed's no-op children: they end at once, until the threshold; ready once, no recovery without spawn."""
    with run(python_script(DUMMY), "exec", "true") as fleet:
        fleet.wait_for("raised OverRecoveryError")
        fleet.wait()
        story = events(fleet)
    names = [name for name, _ in story]
    assert names[:3] == ["spawn", "spawn", "all"]
    assert names.count("all") == 1
    assert story[2][1] == [story[0][1][0], story[1][1][0]]
    assert names.count("recover") >= 1
    for index, (name, pids) in enumerate(story):
        if name == "recover":
            assert ("spawn", [pids[1]]) in story[3:index]
            assert pids[0] != pids[1]


def test_children_that_only_run_are_ready_while_they_run(python_script: Script) -> None:
    """`sleep` lets go of its channel, so all that can be said is that it runs; TERM ends it."""
    with run(python_script(DUMMY), "exec", "sleep", "60") as fleet:
        fleet.wait_for("ready: 2 workers")
        assert fleet.stop() == 0
        assert "returned" in fleet.output
        fleet.assert_nothing_left()


FAILING = """
    from prefork import Prefork
    from story import *

    class Rejected(Exception):
        pass

    def reject(*_):
        raise Rejected(WHICH)

    def see(pid):
        seen.append(pid)
        if WHICH == "on_child_spawn" or (WHICH == "on_child_spawn_again" and len(seen) > 2):
            reject()
        say(f"master: spawn {pid}")

    WHICH, seen = sys.argv[2], []
    given = {**hooks(), WHICH.removesuffix("_again"): reject, "on_child_spawn": see}
    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD, recover_threshold=5,
                         shutdown_grace_period_s=60, **given).listen_and_serve(ANY_PORT))
    say(f"still running: {[pid for pid in seen if os.path.exists(f'/proc/{pid}')]}")
"""


@pytest.mark.parametrize(
    ("method", "hook"),
    [
        *(
            ("fork", hook)
            for hook in ("on_child_spawn", "on_master_ready", "on_child_spawn_again", "on_child_recover")
        ),
        ("exec", "on_child_spawn"),
        ("exec", "on_child_spawn_again"),
    ],
)
def test_a_failing_hook_kills_all_and_is_raised(python_script: Script, method: str, hook: str) -> None:
    """Whatever a hook raises comes out of listen_and_serve, when every child is gone; the others are not called."""
    with run(python_script(FAILING), method, hook) as fleet:
        if hook in ("on_child_spawn_again", "on_child_recover"):
            fleet.kill(ready_workers(fleet, 2)[0])
        fleet.wait_for(f"raised Rejected: {hook}$")
        fleet.wait_for(r"still running: \[\]")
        assert fleet.wait() == 0
        names = [name for name, _ in events(fleet)]
        fleet.assert_nothing_left()
    expected = {
        "on_child_spawn": [],
        "on_master_ready": ["spawn", "spawn"],
        "on_child_spawn_again": ["spawn", "spawn", "all"],
        "on_child_recover": ["spawn", "spawn", "all", "spawn"],
    }
    assert names == expected[hook]


def test_a_failing_hook_does_not_wait_for_a_stubborn_child(python_script: Script) -> None:
    """Killed means killed: a child that ignores TERM, and a grace period of a minute, hold up nothing."""
    source = """
        import signal
        from prefork import Prefork
        from story import *

        def stubborn(listener):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            serve(listener)

        def fail(old, new):
            raise ValueError("no more")

        tell(lambda: Prefork(serve_func=stubborn, workers=2, start_method=METHOD, recover_threshold=9,
                             shutdown_grace_period_s=60, on_child_recover=fail).listen_and_serve(ANY_PORT))
    """
    with run(python_script(source), "fork") as fleet:
        fleet.kill(ready_workers(fleet, 2)[0])
        fleet.wait_for("raised ValueError: no more")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


def test_a_hook_that_exits_leaves_nobody(python_script: Script) -> None:
    """`sys.exit` in a hook ends the program, and its children with it."""
    source = """
        from prefork import Prefork
        from story import *

        Prefork(serve_func=serve, workers=2, start_method=METHOD,
                on_master_ready=lambda pids: sys.exit(7)).listen_and_serve(ANY_PORT)
    """
    with run(python_script(source), "fork") as fleet:
        assert fleet.wait() == 7
        fleet.assert_nothing_left()


def test_a_hook_may_stop_the_fleet(python_script: Script) -> None:
    """`stop()` in a hook is a graceful stop: listen_and_serve returns, the spawned are gone."""
    source = """
        from prefork import Prefork
        from story import *

        fleet = Prefork(serve_func=serve, workers=2, start_method=METHOD, on_master_ready=lambda _: fleet.stop())
        tell(lambda: fleet.listen_and_serve(ANY_PORT))
    """
    with run(python_script(source), "fork") as fleet:
        fleet.wait_for("stopping .graceful.: the program asked for it")
        fleet.wait_for("returned")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()
