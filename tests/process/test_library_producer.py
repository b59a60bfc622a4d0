"""`command_producer`: what it is given, what it may return, and its three errors (seed: TestDoCommandCommandProducerErrors)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.library import ask, ready_workers, run

Script = Callable[..., Path]

BROKEN = """
    import subprocess
    from prefork import Prefork
    from story import *

    class Unstarted:
        pass

    class UnstartedPopen:
        pid = None
        def poll(self):
            return None

    def raises(files):
        raise RuntimeError("boom")

    def missing(files):
        return subprocess.Popen(["/no/such/program"])

    made = []

    def second_raises(files):
        if made:
            raise RuntimeError("boom")
        made.append(subprocess.Popen(["sleep", "60"], pass_fds=[f.fileno() for f in files]))
        return made[0]

    PRODUCERS = {"raises": raises, "missing": missing, "none": lambda files: None, "second": second_raises,
                 "unstarted": lambda files: Unstarted(), "no-pid": lambda files: UnstartedPopen()}
    before = sorted(os.listdir("/proc/self/fd"))
    tell(lambda: Prefork(command_producer=PRODUCERS[sys.argv[2]], serve_func=serve, workers=2,
                         shutdown_grace_period_s=60).listen_and_serve(ANY_PORT))
    say(f"first child: {[p.poll() for p in made]}")
    made.clear()
    say(f"clean: {sorted(os.listdir('/proc/self/fd')) == before}")
"""


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("raises", "raised RuntimeError: boom from RuntimeError"),
        ("missing", "raised FileNotFoundError: .*from FileNotFoundError"),
        ("none", "returned None"),
        ("unstarted", "returned Unstarted, which is not a started command"),
        ("no-pid", "returned UnstartedPopen, which is not a started command"),
        ("second", "raised RuntimeError: boom"),
    ],
)
def test_a_broken_producer_is_told_clearly(python_script: Script, which: str, message: str) -> None:
    """Each way to break the contract is a CommandProducerError of its own; what was started is killed."""
    with run(python_script(BROKEN), "exec", which) as fleet:
        fleet.wait_for(f"raised CommandProducerError: command_producer {message}")
        fleet.wait_for(r"first child: \[-9\]" if which == "second" else r"first child: \[\]")
        fleet.wait_for("clean: True")
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


PRODUCER = """
    import errno, subprocess
    from prefork import Prefork
    from story import *

    def command(files):
        fds = [file.fileno() for file in files]
        if not is_child():
            say(f"files: {len(fds)} {all(os.fstat(fd) for fd in fds)}")
        tries.append(fds)
        if WHICH == "eagain" and len(tries) in (1, 3):
            raise BlockingIOError(errno.EAGAIN, "try again")
        if WHICH == "channel-only":
            fds = fds[-1:]
        if WHICH == "no-marker":
            return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=fds)
        environment = {**os.environ, "PREFORK_CHILD": "1", "MADE_BY": "command"}
        return subprocess.Popen([sys.executable, *sys.argv], env=environment, pass_fds=fds)

    WHICH, tries = sys.argv[2], []
    WORDS["made_by"] = lambda: os.environ.get("MADE_BY")
    kept = open("/dev/null"), open("/dev/null"), open("/dev/null"), open("/dev/null")
    WORDS["kept"] = lambda: [os.readlink(f"/proc/self/fd/{file.fileno()}") for file in kept]
    tell(lambda: Prefork(command_producer=command, serve_func=serve, workers=2, boot_timeout_s=1 if WHICH == "no-marker" else 20, recover_threshold=9,
                         reuseport=WHICH == "reuseport").listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize("which", ["plain", "reuseport", "channel-only"])
def test_a_real_child_serves(python_script: Script, which: str) -> None:
    """With the marker set and the files inherited, the command is a worker; none of its own files is closed."""
    with run(python_script(PRODUCER), "exec", which) as fleet:
        fleet.wait_for("files: 2 True", since=0)
        workers = ready_workers(fleet, 2)
        assert int(ask(fleet, "pid")) in workers
        assert ask(fleet, "made_by") == "command"
        assert ask(fleet, "is_child") == "True"
        assert ask(fleet, "kept") == str(["/dev/null"] * 4)
        assert fleet.stop() == 0
        fleet.wait_for("returned", since=0)
        fleet.assert_nothing_left()


def test_no_process_left_is_tried_again(python_script: Script) -> None:
    """EAGAIN, as fork(2) gives it, is no breach of the contract: logged, and tried again."""
    with run(python_script(PRODUCER), "exec", "eagain") as fleet:
        fleet.wait_for("warning .*worker 0: cannot be spawned, will be tried again: .*try again")
        assert len(set(ready_workers(fleet, 2))) == 2
        assert fleet.stop() == 0


def test_a_child_that_keeps_its_channel_and_is_silent_is_not_ready(python_script: Script) -> None:
    """It holds the channel, so it is to speak: past the boot time-out it is a start that failed."""
    with run(python_script(PRODUCER), "exec", "no-marker") as fleet:
        fleet.wait_for("not ready within 1 s of its start")
        fleet.wait_for("raised ApplicationError: not ready within")
        assert fleet.wait() == 0
        assert not fleet.find_all(r"worker \d .*ready$")
        fleet.assert_nothing_left()
