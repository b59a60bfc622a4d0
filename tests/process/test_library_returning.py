"""What listen_and_serve leaves behind in its program: nothing. And how the program ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signals

import pytest

from tests.process.harness import free_port
from tests.process.library import METHODS, ask, ready_workers, run

Script = Callable[..., Path]

TWICE = """
    import signal
    from prefork import Prefork
    from story import *

    def mine(signum, frame):
        say(f"mine {signum}")

    def state():
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return sorted(os.listdir("/proc/self/fd")), [signal.getsignal(s) for s in signal.valid_signals()], wakeup, dict(os.environ)

    if not is_child():
        signal.signal(signal.SIGUSR1, mine)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = state()
    fleet = Prefork(serve_func=serve, workers=2, start_method=METHOD, reuseport=sys.argv[2] == "reuseport")
    port = int(sys.argv[3])
    for count in range(2):
        tell(lambda: fleet.listen_and_serve(f"127.0.0.1:{port}"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        say(f"restored: {state() == before} {[p for p in zip(before, state()) if p[0] != p[1]]}")
    os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.parametrize(
    ("method", "sharing"), [("fork", "shared"), ("exec", "reuseport"), ("fork", "reuseport")]
)
def test_everything_is_given_back_and_it_can_be_called_again(
    python_script: Script, method: str, sharing: str
) -> None:
    """The port can be bound at once, no descriptor is left, the program's own signal handling is back; twice."""
    with run(python_script(TWICE), method, sharing, str(free_port())) as fleet:
        for count in (1, 2):
            mark = fleet.mark()
            workers = ready_workers(fleet, 2 * count)[-2:]
            assert int(ask(fleet, "pid")) in workers
            fleet.signal(SIGTERM)
            fleet.wait_for("^returned")
            fleet.wait_for(r"restored: True \[\]")
            assert mark < fleet.mark()
        fleet.wait_for("mine 10")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


STOPPED = """
    from prefork import Prefork
    from story import *

    fleet = Prefork(serve_func=serve, workers=2, start_method="exec", shutdown_grace_period_s=30)
    fleet.stop()  # nothing runs yet: nothing happens

    def stopper():
        with open(sys.argv[2]) as gate:
            gate.read()
        fleet.stop(fast=METHOD == "fast")

    thread = threading.Thread(target=stopper, name="stopper")
    if not is_child():
        thread.start()
    tell(lambda: fleet.listen_and_serve(ANY_PORT))
    thread.join()
    fleet.stop()
    say("over")
"""


@pytest.mark.parametrize("how", ["graceful", "fast"])
def test_stop_from_another_thread(python_script: Script, tmp_path: Path, how: str) -> None:
    """With "exec", threads may live, and one of them may end the fleet; before and after, stop() does nothing."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with run(python_script(STOPPED), how, str(gate)) as fleet:
        ready_workers(fleet, 2)
        gate.write_text("now")
        fleet.wait_for(rf"stopping \({how}\): the program asked for it")
        fleet.wait_for("^returned")
        fleet.wait_for("^over")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


IN_A_THREAD = """
    from prefork import Prefork
    from story import *

    fleet = Prefork(serve_func=serve, workers=1, start_method="exec")

    def main():
        tell(lambda: fleet.listen_and_serve(ANY_PORT))

    if is_child():
        main()
    thread = threading.Thread(target=main)
    thread.start()
    with open(sys.argv[2]) as gate:
        gate.read()
    fleet.stop()
    thread.join()
"""


def test_a_master_that_is_not_in_the_main_thread(python_script: Script, tmp_path: Path) -> None:
    """It hears no signals (a rule of Python's), but it serves, and stop() ends it."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with run(python_script(IN_A_THREAD), "exec", str(gate)) as fleet:
        (worker,) = ready_workers(fleet, 1)
        fleet.kill(worker)
        assert ready_workers(fleet, 2)[1] != worker
        gate.write_text("now")
        fleet.wait_for("^returned")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


PLAIN = """
    from prefork import Prefork
    from story import *

    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD).listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize(
    ("method", "number"), [("fork", SIGTERM), ("fork", SIGINT), ("fork", SIGQUIT), ("exec", SIGINT)]
)
def test_a_stop_is_a_return(python_script: Script, method: str, number: Signals) -> None:
    """Stopped by a signal, gracefully or fast, listen_and_serve returns, and the program goes on to its end."""
    with run(python_script(PLAIN), method) as fleet:
        ready_workers(fleet, 2)
        assert fleet.stop(number) == 0
        assert "returned" in fleet.output
        fleet.assert_nothing_left()


EARLY = """
    import atexit
    from prefork import Prefork
    from story import *

    class Server:
        def prepare(self):
            atexit.register(lambda: say("the zygote's own handler"))

        def serve(self, listener):
            serve(listener)

    for _ in range(15):
        fleet = Prefork(Server(), workers=2, start_method="fork", on_master_ready=lambda pids: fleet.stop())
        fleet.listen_and_serve(ANY_PORT)
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        say(f"children left: [{children.read()}]")
"""


def test_a_stop_as_early_as_can_be(python_script: Script) -> None:
    """A worker told to stop before it can hear it stops all the same; none is killed, none left, dead or alive."""
    with run(python_script(EARLY)) as fleet:
        fleet.wait_for(r"children left: \[\]")
        assert fleet.wait() == 0
        assert not fleet.find_all("killing it|killed by|Traceback")
        assert len(fleet.find_all("the zygote's own handler")) == 15
        fleet.assert_nothing_left()


def test_ctrl_c_ends_it_once(python_script: Script) -> None:
    """A terminal sends INT to all of the group: the workers leave it to the master, nobody prints a traceback."""
    with run(python_script(PLAIN), "fork") as fleet:
        ready_workers(fleet, 2)
        fleet.signal_group(SIGINT)
        assert fleet.wait() == 0
        assert "returned" in fleet.output
        assert "Traceback" not in fleet.output
        assert "KeyboardInterrupt" not in fleet.output


GENERATIONS = """
    from prefork import Prefork
    from story import *

    WORDS["version"] = lambda: VERSION
    VERSION = 1
    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD, **hooks()).listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_reload_loads_new_code(python_script: Script, method: str) -> None:
    """HUP runs the program again as it is on the disk now; then what does not parse, or raises, changes nothing."""
    script = python_script(GENERATIONS)
    good = script.read_text()
    with run(script, method) as fleet:
        first = ready_workers(fleet, 2)
        assert ask(fleet, "version") == "1"
        script.write_text(good.replace("VERSION = 1", "VERSION = 2"))
        fleet.signal(SIGHUP)
        fleet.wait_for("reload done: generation 2 serves")
        fleet.wait_for_all("stopped: exit status 0", 2)
        assert ask(fleet, "version") == "2"
        second = fleet.workers()
        assert not set(first) & set(second)
        for generation, broken in enumerate(("def broken(:", "raise RuntimeError('no')", "sys.exit(0)"), 3):
            script.write_text(f"{broken}\n" if generation != 5 else "import sys\nsys.exit(0)\n")
            fleet.signal(SIGHUP)
            fleet.wait_for("reload failed: .*; generation 2 serves on")
            assert ask(fleet, "version") == "2"
        assert fleet.workers() == second
        assert len(fleet.find_all("SyntaxError")) == 1
        script.write_text(good.replace("VERSION = 1", "VERSION = 6"))
        fleet.signal(SIGHUP)
        fleet.wait_for("reload done: generation 6 serves")
        assert ask(fleet, "version") == "6"
        assert len(fleet.find_all("master: all")) == 1
        assert not fleet.find_all("master: recover")
        assert fleet.stop() == 0
        fleet.assert_nothing_left()


def test_a_reload_to_code_that_serves_badly_keeps_the_old(python_script: Script) -> None:
    """It loads, but its serve function raises before it accepts: the old workers stay, none was told to stop."""
    script = python_script(GENERATIONS)
    good = script.read_text()
    with run(script, "fork") as fleet:
        first = ready_workers(fleet, 2)
        bad = good.replace("VERSION = 1", "VERSION = 2\ndef serve(listener): raise RuntimeError('badly')")
        script.write_text(bad)
        fleet.signal(SIGHUP)
        fleet.wait_for("reload failed: the server raised RuntimeError: badly; generation 1 serves on")
        assert ask(fleet, "version") == "1"
        assert fleet.workers() == first
        assert fleet.stop() == 0
