"""The master's death: who hears of it, what becomes of a worker, and of a request in flight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGSTOP

import pytest

from tests.process import procfs
from tests.process.harness import wait_until
from tests.process.library import METHODS, Client, Held, ask, places, ready_workers, run

Script = Callable[..., Path]

PROGRAM = """
    import asyncio
    from prefork import Prefork, drain_orphan
    from story import *

    async def coroutine(listener):
        async def answer(reader, writer):
            await reader.readline()
        async with await asyncio.start_server(answer, sock=listener) as server:
            await server.serve_forever()

    def own():
        say(f"orphan {os.getpid()} {threading.current_thread() is threading.main_thread()} {is_child()}")
        os._exit(1)

    def stuck(listener):
        listener.fileno()
        while True:
            pass

    def drained_and_said():
        say(f"orphan {os.getpid()}")
        drain_orphan()

    GIVEN = {"default": {}, "none": {"on_master_death": None}, "own": {"on_master_death": own},
             "said": {"on_master_death": drained_and_said}}
    FORM = {"blocking": serve, "coroutine": coroutine, "stuck": stuck}
    tell(lambda: Prefork(serve_func=FORM[sys.argv[3]], workers=2, start_method=METHOD, **GIVEN[sys.argv[2]])
         .listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("fork", "blocking"),
        ("exec", "blocking"),
        ("fork", "coroutine"),
        ("exec", "coroutine"),
        ("fork", "stuck"),
    ],
)
def test_nobody_outlives_the_master(python_script: Script, method: str, form: str) -> None:
    """By default: after the master's SIGKILL there is none of its processes left, busy or not. Measured: within a second."""
    with run(python_script(PROGRAM), method, "default", form) as fleet:
        ready_workers(fleet, 2)
        fleet.members()
        fleet.signal(SIGKILL)
        fleet.wait()
        fleet.assert_nothing_left()


def test_a_stopped_worker_does_not_outlive_the_master_either(python_script: Script) -> None:
    """SIGSTOP makes a worker deaf; the kernel lets it go on when the master dies, and it leaves."""
    with run(python_script(PROGRAM), "fork", "default", "blocking") as fleet:
        stopped = ready_workers(fleet, 2)[0]
        fleet.kill(stopped, SIGSTOP)
        wait_until(lambda: procfs.state(stopped) == "T", "the worker is stopped")
        fleet.members()
        fleet.signal(SIGKILL)
        fleet.wait()
        fleet.assert_nothing_left()


@pytest.mark.parametrize("method", METHODS)
def test_the_programs_own_way(python_script: Script, method: str) -> None:
    """A callable of its own is called once in each worker, in its main thread."""
    with run(python_script(PROGRAM), method, "own", "blocking") as fleet:
        workers = ready_workers(fleet, 2)
        fleet.signal(SIGKILL)
        said = fleet.wait_for_all(r"^orphan (\d+) True True", 2)
        assert sorted(int(match[1]) for match in said) == sorted(workers)
        fleet.wait()
        fleet.assert_nothing_left()
        assert len(fleet.find_all("^orphan ")) == 2


def test_the_default_can_be_called_from_it(python_script: Script) -> None:
    """Custom clean-up first, then `drain_orphan()`."""
    with run(python_script(PROGRAM), "fork", "said", "blocking") as fleet:
        ready_workers(fleet, 2)
        fleet.signal(SIGKILL)
        fleet.wait_for_all(r"^orphan \d+", 2)
        fleet.wait()
        fleet.assert_nothing_left()


@pytest.mark.parametrize("method", METHODS)
def test_none_lives_on(python_script: Script, method: str) -> None:
    """Without the watch a worker serves on, alone; whoever wants its end knows its pid."""
    with run(python_script(PROGRAM), method, "none", "blocking") as fleet:
        workers = ready_workers(fleet, 2)
        (place,) = places(fleet)
        fleet.members()
        fleet.signal(SIGKILL)
        fleet.wait()
        wait_until(lambda: {p.pid for p in fleet.leftovers()} == set(workers), "only the workers are left")
        for _ in range(4):
            with Client.at(place) as late:
                assert int(late.ask("pid")) in workers
        for worker in workers:
            fleet.kill(worker)
        fleet.assert_nothing_left()


def test_a_request_in_flight_gets_its_answer(python_script: Script, tmp_path: Path) -> None:
    """The default drains: what is open has most of a second to finish."""
    with run(python_script(PROGRAM), "fork", "said", "blocking") as fleet:
        ready_workers(fleet, 2)
        held = Held(fleet, tmp_path)
        fleet.signal(SIGKILL)
        fleet.wait_for(f"^orphan {held.pid}", since=0)
        assert held.let_go() == "let go: now"
        fleet.wait()
        fleet.assert_nothing_left()


def test_a_master_that_dies_while_the_application_is_loaded(python_script: Script) -> None:
    """The zygote hears of it even where its code is stuck in an import."""
    source = """
        from prefork import Prefork
        from story import *

        class Slow:
            def prepare(self):
                say("loading")
                while True:
                    pass

            def serve(self, listener):
                serve(listener)

        Prefork(Slow(), workers=2, start_method=METHOD).listen_and_serve(ANY_PORT)
    """
    with run(python_script(source), "fork") as fleet:
        fleet.wait_for("^loading")
        fleet.members()
        fleet.signal(SIGKILL)
        fleet.wait()
        fleet.assert_nothing_left()


def test_a_master_that_dies_while_a_zygote_is_made(python_script: Script) -> None:
    """The zygote has not yet asked the kernel to end it with its master: it looks whether that one is still there."""
    source = """
        import signal
        from prefork import Prefork
        from story import *

        class Murder:  # comes when the zygote, just forked, imports what it is to be
            def find_spec(self, name, path=None, target=None):
                if name == "prefork.worker.zygote":
                    master = os.getppid()
                    os.kill(master, signal.SIGKILL)
                    while os.getppid() == master:
                        os.sched_yield()

        class Server:
            def prepare(self):
                while True:
                    signal.pause()

            def serve(self, listener):
                pass

        sys.meta_path.insert(0, Murder())
        Prefork(Server(), workers=1, start_method="fork").listen_and_serve(ANY_PORT)
    """
    with run(python_script(source)) as fleet:
        fleet.wait()
        fleet.assert_nothing_left()


def test_the_pid_of_an_answer_is_a_childs(python_script: Script) -> None:
    """Forked by the zygote, but the master's child: it is the master that waits for it."""
    with run(python_script(PROGRAM), "fork", "default", "blocking") as fleet:
        ready_workers(fleet, 2)
        assert ask(fleet, "parent") == str(fleet.pid)
        assert fleet.stop() == 0
