"""The inside of a worker: what a fork or a fresh program leaves it with, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals

import pytest

from tests.process import procfs
from tests.process.library import METHODS, ask, descriptors, ready_workers, run

Script = Callable[..., Path]

SIGNALS = """
    import signal
    from prefork import Prefork
    from story import *

    def mine(signum, frame):
        say(f"mine {signum} in {os.getpid()}")

    if not is_child():
        signal.signal(signal.SIGTERM, mine)
        signal.signal(signal.SIGCHLD, mine)
        signal.signal(signal.SIGALRM, mine)
    signal.signal(signal.SIGUSR2, mine)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    WORDS["mask"] = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())
    WORDS["wakeup"] = lambda: signal.set_wakeup_fd(-1)
    WORDS["handler"] = lambda name: getattr(signal.getsignal(getattr(signal, name)), "__name__", "default")
    WORDS["timer"] = lambda: signal.getitimer(signal.ITIMER_REAL)
    tell(lambda: Prefork(serve_func=serve, workers=1, start_method=METHOD,
                         on_master_ready=lambda _: signal.pthread_sigmask(signal.SIG_SETMASK, ()))
         .listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize("method", METHODS)
def test_signals_are_a_workers_own(python_script: Script, method: str) -> None:
    """Nothing is blocked, the parent's handlers and wake-up descriptor are gone; the program's USR2 stays its own."""
    with run(python_script(SIGNALS), method) as fleet:
        (worker,) = ready_workers(fleet, 1)
        assert ask(fleet, "mask") == "set()"
        assert ask(fleet, "wakeup") == "-1"
        assert ask(fleet, "handler", "SIGTERM") == "_on_term"
        assert "mine" not in ask(fleet, "handler", "SIGCHLD")
        assert "mine" not in ask(fleet, "handler", "SIGALRM")
        assert ask(fleet, "handler", "SIGUSR2") == "mine"
        assert ask(fleet, "timer") == "(0.0, 0.0)"
        fleet.kill(worker, SIGTERM)
        fleet.wait_for(rf"worker 0 .pid {worker}\b.*exit status 0")
        ready_workers(fleet, 2)
        assert not fleet.find_all("mine 15")
        assert fleet.stop() == 0


RANDOM = """
    import random
    from prefork import Prefork
    from story import *

    class Server:
        def prepare(self):
            random.seed(1)

        def serve(self, listener):
            say(f"random {random.random()} {os.urandom(4).hex()}")
            serve(listener)

    random.seed(1)
    Prefork(Server(), workers=3, start_method=METHOD).listen_and_serve(ANY_PORT)
"""


def test_random_numbers_differ_between_workers(python_script: Script) -> None:
    """A seed of the parent's is no seed of its copies."""
    with run(python_script(RANDOM), "fork") as fleet:
        said = fleet.wait_for_all(r"^random (\S+) (\S+)", 3)
        assert len({match[1] for match in said}) == 3
        assert len({match[2] for match in said}) == 3
        ready_workers(fleet, 3)
        assert fleet.stop() == 0


DESCRIPTORS = """
    import asyncio
    from prefork import Prefork
    from story import *

    async def coroutine(listener):
        async def answer(reader, writer):
            await reader.readline()
            writer.write((WORDS["descriptors"]() + "\\n").encode())
            writer.close()
        async with await asyncio.start_server(answer, sock=listener) as server:
            await server.serve_forever()

    serve_func = {"blocking": serve, "coroutine": coroutine}[sys.argv[2]]
    Prefork(serve_func=serve_func, workers=3, start_method=METHOD, reuseport=True, recover_threshold=9)\\
        .listen_and_serve([ANY_PORT, "127.0.0.2:0"])
"""


@pytest.mark.parametrize(
    ("method", "form"), [("fork", "blocking"), ("exec", "blocking"), ("fork", "coroutine")]
)
def test_a_worker_holds_what_it_needs_and_no_more(python_script: Script, method: str, form: str) -> None:
    """Standard streams, its channel, its two listeners, the wake pipes, its connection, the scoreboard, what its loop has."""
    with run(python_script(DESCRIPTORS), method, form) as fleet:
        workers = ready_workers(fleet, 3)
        fleet.kill(workers[0])  # a replacement inherits no more than the first did
        ready_workers(fleet, 4)
        held = descriptors(fleet)
        kinds = sorted(re.sub(r"\d+|\[|\]|:$", "", target) for fd, target in held.items() if fd > 2)
        sockets = [kind for kind in kinds if kind.startswith("socket")]
        pipes = [kind for kind in kinds if kind.startswith("pipe")]
        others = [
            kind for kind in kinds if not kind.startswith(("socket", "pipe", "/proc", "/memfd:prefork"))
        ]
        assert sum(kind.startswith("/memfd:prefork") for kind in kinds) == 1, held
        if form == "blocking":
            assert (len(sockets), others) == (1 + 2 + 1, []), held
            assert len(pipes) in (2, 4), held  # one to wake `accept` for a drain, one for signals
        else:  # uvloop: an epoll set, an event descriptor, two socket pairs, and libuv's two pipes for signals
            assert len(sockets) <= 1 + 2 + 1 + 4, held
            assert len(pipes) <= 4 + 4, held
            own = ("eventpoll", "eventfd", "io_uring", "/dev/null")  # libuv keeps one spare
            assert all(any(name in kind for name in own) for kind in others), held
        for worker in fleet.workers():
            ours = set(procfs.open_descriptors(worker).values())
            siblings = [
                set(procfs.open_descriptors(pid).values()) for pid in fleet.workers() if pid != worker
            ]
            shared = set.union(*siblings) & ours
            assert not [target for target in shared if target.startswith("socket:")], "a sibling's socket"
        assert fleet.stop() == 0


def test_what_a_worker_starts_inherits_nothing_of_ours(python_script: Script) -> None:
    """What a worker starts gets standard streams only: neither listener nor channel nor pipe."""
    source = """
        import subprocess
        from prefork import Prefork
        from story import *

        WORDS["below"] = lambda: subprocess.run(
            [sys.executable, "-c", "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}')])"],
            close_fds=False, capture_output=True, text=True).stdout.strip()
        Prefork(serve_func=serve, workers=1, start_method=METHOD).listen_and_serve(ANY_PORT)
    """
    for method in METHODS:
        with run(python_script(source), method) as fleet:
            ready_workers(fleet, 1)
            assert ask(fleet, "below") == "[]"
            assert fleet.stop() == 0


ATEXIT = """
    import atexit
    from prefork import Prefork
    from story import *

    atexit.register(lambda: say(f"top {os.getpid()}"))

    class Server:
        def prepare(self):
            atexit.register(lambda: say(f"zygote {os.getpid()}"))

        def serve(self, listener):
            atexit.register(lambda: say(f"worker {os.getpid()}"))
            try:
                serve(listener)
            finally:
                say(f"finally {os.getpid()}")

    try:
        Prefork(Server(), workers=2, start_method="fork").listen_and_serve(ANY_PORT)
    finally:
        say(f"program {os.getpid()}")
"""


def test_each_process_runs_its_own_exit_handlers(python_script: Script) -> None:
    """A fork copies handlers and stack, and runs neither: who registered it runs it, once."""
    with run(python_script(ATEXIT)) as fleet:
        workers = ready_workers(fleet, 2)
        assert fleet.stop() == 0
        said = sorted(
            (m[1], int(m[2])) for m in fleet.find_all(r"^(top|zygote|worker|finally|program) (\d+)$")
        )
        (zygote,) = [pid for name, pid in said if name == "zygote"]
        assert zygote not in {fleet.pid, *workers}
        expected = [("zygote", zygote), ("top", fleet.pid), ("program", fleet.pid)]
        expected += [(name, pid) for name in ("worker", "finally") for pid in workers]
        assert said == sorted(expected)
        fleet.assert_nothing_left()


def test_text_written_before_the_fork_comes_once(python_script: Script) -> None:
    """A full buffer is copied by a fork too: it is written before."""
    source = """
        from prefork import Prefork
        from story import *

        class Server:
            def prepare(self):
                sys.stdout.write("from the zygote; ")

            def serve(self, listener):
                sys.stdout.write(f"from {os.getpid()}\\n")
                serve(listener)

        sys.stdout.write("from the program; ")
        Prefork(Server(), workers=2, start_method="fork").listen_and_serve(ANY_PORT)
    """
    with run(python_script(source), env={"PYTHONUNBUFFERED": None}) as fleet:
        workers = ready_workers(fleet, 2)
        assert fleet.stop() == 0
        assert fleet.output.count("from the program") == 1
        assert fleet.output.count("from the zygote") == 1
        for worker in workers:
            assert f"from {worker}" in fleet.output


FORKS = """
    import multiprocessing
    import signal
    import threading
    from prefork import Prefork
    from story import *

    forks = multiprocessing.get_context("fork")

    def linger():
        say(f"lingers, wake-up descriptor {signal.set_wakeup_fd(-1)}")
        while True:
            signal.pause()

    def fork():
        forked = forks.Process(target=linger, daemon=True)
        forked.start()
        return forked

    def fork_and_end():
        forked = fork()
        forked.terminate()
        forked.join()
        return forked.exitcode

    def in_thread():
        codes = []
        thread = threading.Thread(target=lambda: codes.append(fork_and_end()))
        thread.start()
        thread.join()
        return codes[0]

    WORDS["fork"] = lambda: fork().pid
    WORDS["fork_and_end"] = fork_and_end
    WORDS["in_thread"] = in_thread
    Prefork(serve_func=serve, workers=1, start_method=METHOD).listen_and_serve(ANY_PORT)
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("word", ["fork_and_end", "in_thread"])
def test_what_the_application_forks_is_ended_by_term(python_script: Script, method: str, word: str) -> None:
    """It is no worker: TERM does not drain it, and nothing that it shares with the worker says that that one drains."""
    with run(python_script(FORKS), method) as fleet:
        ready_workers(fleet, 1)
        assert ask(fleet, word) == str(-SIGTERM)
        assert fleet.stop() == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_leaves_with_the_daemons_that_it_has_forked(python_script: Script, method: str) -> None:
    """`multiprocessing` tells them to go, and waits for them: the worker leaves at once, not after its grace."""
    with run(python_script(FORKS), method) as fleet:
        (worker,) = ready_workers(fleet, 1)
        ask(fleet, "fork")
        fleet.wait_for("lingers, wake-up descriptor -1")
        assert fleet.stop() == 0
        fleet.wait_for(rf"worker 0 .pid {worker}\b.*exit status 0", since=0)
        fleet.assert_nothing_left()


@pytest.mark.parametrize("number", [SIGINT, SIGHUP, SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_the_group_while_a_zygote_is_made_ends_nobody(
    python_script: Script, number: Signals
) -> None:
    """It is the master's, and the zygote has no handler of its own yet: no traceback of an interrupt, no failed start."""
    source = """
        import signal
        from prefork import Prefork
        from story import *

        class Interruption:  # comes when the zygote, just forked, imports what it is to be
            def find_spec(self, name, path=None, target=None):
                if name == "prefork.worker.zygote":
                    os.kill(os.getpid(), int(sys.argv[2]))

        sys.meta_path.insert(0, Interruption())
        Prefork(serve_func=serve, workers=1, start_method="fork").listen_and_serve(ANY_PORT)
    """
    with run(python_script(source), "fork", str(int(number))) as fleet:
        ready_workers(fleet, 1)
        assert fleet.stop() == 0
        assert "Traceback" not in fleet.output
        assert "killed by" not in fleet.output
