"""The harness keeps its own rules: it waits for words, finds orphans, and kills nobody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.harness import Fleet, free_port, wait_until

SAYS_AND_WAITS = """
    import signal
    print("worker 0 (pid 41, generation 1) ready")
    print("worker 1 (pid 42, generation 1) ready")
    print("serving http://127.0.0.1:4711 with 2 workers")
    signal.pause()
"""

LEAVES_AN_ORPHAN = """
    import os, signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(f"orphan {os.getpid()}", flush=True)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    print("master waits", flush=True)
    signal.pause()
"""


def test_a_story_waits_for_one_line_after_another(python_script: Callable[..., Path]) -> None:
    """The cursor moves on, `since` looks back, and the helpers know the master's words."""
    with Fleet.script(python_script(SAYS_AND_WAITS)) as fleet:
        assert fleet.wait_for(r"worker \d")[0] == "worker 0"
        assert fleet.wait_for(r"worker \d")[0] == "worker 1"
        assert fleet.url == "http://127.0.0.1:4711"
        assert fleet.port == 4711
        assert fleet.wait_for_workers(2) == [41, 42]
        assert len(fleet.wait_for_all(r"worker (\d)", 2)) == 2
        assert fleet.wait_for("worker 0", since=0)
        assert fleet.workers() == []  # those pids are nobody of this fleet's
        assert fleet.stop() == -signal.SIGTERM


def test_what_will_never_be_said_fails_at_once(python_script: Callable[..., Path]) -> None:
    """A fleet that has ended says no more: the wait shows its output and does not use up its time."""
    with (
        Fleet.script(python_script("print('the only line')")) as fleet,
        pytest.raises(AssertionError, match=r"(?s)never be said.*the only line"),
    ):
        fleet.wait_for("another line", timeout_s=50)


def test_what_is_not_said_in_time_fails_with_the_output(python_script: Callable[..., Path]) -> None:
    """The bound holds while the fleet lives."""
    with Fleet.script(python_script(SAYS_AND_WAITS)) as fleet:
        assert fleet.url
        with pytest.raises(
            AssertionError, match=r"(?s)not said in 0.01 s.*worker 1 \(pid 42, generation 1\) ready"
        ):
            fleet.wait_for("another line", timeout_s=0.01)


def test_an_orphan_is_found_and_ended(python_script: Callable[..., Path]) -> None:
    """A grandchild in another session, its parents dead, is still seen, and gone after the fleet's end."""
    with Fleet.script(python_script(LEAVES_AN_ORPHAN)) as fleet:
        orphan = int(fleet.wait_for(r"orphan (\d+)", since=0)[1])  # two processes talk: no order
        fleet.wait_for("master waits", since=0)
        fleet.signal(signal.SIGKILL)
        assert fleet.wait() == -signal.SIGKILL
        assert {process.pid for process in fleet.leftovers()} == {orphan}
        with pytest.raises(AssertionError, match=f"left: {orphan}"):
            fleet.assert_nothing_left(timeout_s=0.01)
    assert procfs.identify(orphan) is None
    fleet.assert_nothing_left()


def test_strangers_are_not_touched(python_script: Callable[..., Path]) -> None:
    """A process that is none of the fleet's cannot be signalled through it, and outlives its end."""
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with Fleet.script(python_script(SAYS_AND_WAITS)) as fleet:
            assert fleet.url
            with pytest.raises(ValueError, match="no live process of this fleet"):
                fleet.kill(stranger.pid)
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n", timeout=45)
    assert stranger.returncode == 0


def test_a_stopped_process_is_seen_as_stopped(python_script: Callable[..., Path]) -> None:
    """State, memory and context switches of a member can be read, and say something."""
    with Fleet.script(python_script(SAYS_AND_WAITS)) as fleet:
        assert fleet.url
        fleet.kill(fleet.pid, signal.SIGSTOP)
        wait_until(lambda: procfs.state(fleet.pid) == "T", "the master is stopped")
        assert 1_000_000 < fleet.pss_bytes() < 200_000_000
        before = fleet.context_switches()
        assert before[fleet.pid].voluntary > 0
        assert fleet.context_switches() == before
        assert procfs.parent_pid(fleet.pid) == os.getpid()
        assert fleet.pid in procfs.children(os.getpid())


def test_the_environment_is_laid_over_ours(
    python_script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name given is set, a name of None is removed, the rest is inherited."""
    monkeypatch.setenv("STAYS", "1")
    monkeypatch.setenv("GOES", "1")
    script = python_script("import os; print([os.environ.get(n) for n in ('STAYS', 'GOES', 'COMES')])")
    with Fleet.script(script, env={"GOES": None, "COMES": "2"}) as fleet:
        assert fleet.wait_for(r"\['1', None, '2'\]")
        assert fleet.wait() == 0


def test_a_free_port_can_be_bound() -> None:
    """The port is free when it is given."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
