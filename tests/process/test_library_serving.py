"""`serve_func` without a server: blocking, async, with a loop or threads of its own; when it is ready, how it drains."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from prefork import Prefork
from tests.process.harness import free_port
from tests.process.library import Client, Held, ask, client, make_certificate, places, ready_workers, run

Script = Callable[..., Path]

FORMS = """
    import asyncio
    import functools
    from prefork import Prefork
    from story import *

    async def answer(reader, writer):
        while line := await reader.readline():
            word, *arguments = line.decode().split()
            writer.write(f"{WORDS[word](*arguments)}\\n".encode())
        writer.close()

    async def coroutine(listener):
        server = await asyncio.start_server(answer, sock=listener)
        async with server:
            await server.serve_forever()

    def own_loop(listener):
        asyncio.run(coroutine(listener))

    def threads(listener):
        def accept():
            while True:
                talk(listener.accept()[0])

        pool = [threading.Thread(target=accept, name=f"acceptor {n}") for n in range(2)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        say(f"drained {os.getpid()}")

    class Callable_:
        async def __call__(self, listener):
            await coroutine(listener)

    async def tls(listener, cert_file, key_file):
        await coroutine(listener)

    def caught(listener):
        from prefork import DrainedError
        try:
            serve(listener)
        except DrainedError:
            say(f"drained {os.getpid()}")

    FORM = {"blocking": serve, "coroutine": coroutine, "own_loop": own_loop, "threads": threads, "caught": caught,
            "partial": functools.partial(coroutine), "callable": Callable_()}
    which, addresses = sys.argv[2], [f"127.0.0.{n}:0" for n in range(1, 1 + int(sys.argv[3]))]
    fleet = Prefork(serve_func=FORM.get(which), serve_tls_func=tls, workers=1, start_method=METHOD)
    if which == "tls":
        fleet.listen_and_serve_tls(addresses, os.environ["KEY"], os.environ["CERT"])
    else:
        fleet.listen_and_serve(addresses)
"""


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("fork", "blocking"),
        ("exec", "blocking"),
        ("fork", "coroutine"),
        ("exec", "coroutine"),
        ("fork", "own_loop"),
        ("fork", "threads"),
        ("fork", "caught"),
    ],
)
def test_every_form_serves_and_stops(python_script: Script, method: str, form: str) -> None:
    """Whatever shape it has, it is ready when it accepts, TERM ends it with status 0, and INT to all is no harm."""
    with run(python_script(FORMS), method, form, "1") as fleet:
        (worker,) = ready_workers(fleet, 1)
        fleet.kill(worker, SIGINT)
        assert int(ask(fleet, "pid")) == worker
        assert fleet.stop() == 0
        fleet.wait_for(rf"worker 0 .pid {worker}\b.* stopped: exit status 0", since=0)
        if form in ("threads", "caught"):
            fleet.wait_for(f"drained {worker}", since=0)
        if form != "own_loop":  # a loop that nobody knows of is interrupted where it stands, and may say so
            assert "Traceback" not in fleet.output
        fleet.assert_nothing_left()


@pytest.mark.parametrize("form", ["blocking", "coroutine", "partial", "callable"])
def test_several_addresses_are_all_served(python_script: Script, form: str) -> None:
    """One call for each, side by side, in one worker; all end at TERM."""
    with run(python_script(FORMS), "fork", form, "3") as fleet:
        (worker,) = ready_workers(fleet, 1)
        assert len(places(fleet)) == 3
        for place in places(fleet):
            with Client.at(place) as each:
                assert each.ask("pid") == str(worker)
        assert fleet.stop() == 0
        fleet.wait_for("stopped: exit status 0", since=0)
        assert "Traceback" not in fleet.output


def test_several_addresses_of_an_async_tls_function(python_script: Script, tmp_path: Path) -> None:
    """The functions for TLS may be coroutines too."""
    cert, key, _ = make_certificate(tmp_path)
    env = {"KEY": str(key), "CERT": str(cert)}
    with run(python_script(FORMS), "fork", "tls", "2", env=env) as fleet:
        (worker,) = ready_workers(fleet, 1)
        for place in places(fleet):
            with Client.at(place) as each:  # the function is given the plain socket
                assert each.ask("pid") == str(worker)
        assert fleet.stop() == 0


HALF = """
    from prefork import Prefork
    from story import *

    def serve_first(listener):
        if listener.getsockname()[1] != first:
            raise RuntimeError("the second cannot be served")
        serve(listener)

    first = int(sys.argv[2])
    tell(lambda: Prefork(serve_func=serve_first, workers=1, start_method=METHOD, recover_threshold=1,
                         recover_interval_s=0.01).listen_and_serve([f"127.0.0.1:{first}", "127.0.0.1:0"]))
"""


def test_a_worker_that_cannot_serve_all_is_no_worker(python_script: Script) -> None:
    """One of two addresses fails: that is a crash, not a worker that serves half."""
    with run(python_script(HALF), "fork", str(free_port())) as fleet:
        fleet.wait_for("raised OverRecoveryError")
        assert fleet.wait() == 0
        assert "RuntimeError: the second cannot be served" in fleet.output


SLOW = """
    from prefork import Prefork
    from story import *

    def slow(listener):
        address = listener.getsockname()
        say(f"starting {listener.family.name} {address[1]} {listener.gettimeout()}")
        open(sys.argv[2]).read()
        if sys.argv[3] == "poll":
            import selectors
            with selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                selector.select()
                talk(listener.accept()[0])
        serve(listener)

    Prefork(serve_func=slow, workers=1, start_method=METHOD).listen_and_serve(ANY_PORT)
"""


@pytest.mark.parametrize(("method", "how"), [("fork", "accept"), ("exec", "poll")])
def test_ready_at_the_first_touch_of_the_listener(
    python_script: Script, tmp_path: Path, method: str, how: str
) -> None:
    """A slow starter is not ready before it reaches for the socket; who connects meanwhile waits in the queue."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with run(python_script(SLOW), method, str(gate), how) as fleet:
        fleet.wait_for("starting AF_INET")
        with client(fleet) as early:
            early.send("pid")
            assert not fleet.find_all(" ready")
            gate.write_text("go")
            (worker,) = ready_workers(fleet, 1)
            assert early.hear() == str(worker)
        assert fleet.stop() == 0


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_term_in_a_slow_start_is_obeyed(python_script: Script, tmp_path: Path, method: str) -> None:
    """Nothing was accepted, so nothing is waited for."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with run(python_script(SLOW), method, str(gate), "accept") as fleet:
        fleet.wait_for("starting")
        assert fleet.stop() == 0
        fleet.assert_nothing_left()


@pytest.mark.parametrize(
    ("method", "form"), [("fork", "blocking"), ("exec", "blocking"), ("fork", "threads")]
)
def test_a_request_in_flight_is_finished(
    python_script: Script, tmp_path: Path, method: str, form: str
) -> None:
    """TERM in the middle of a request: it gets its answer, the next accept ends the worker, in peace."""
    with run(python_script(FORMS), method, form, "1") as fleet:
        ready_workers(fleet, 1)
        held = Held(fleet, tmp_path)
        fleet.signal(SIGTERM)
        fleet.wait_for("stopping")
        assert held.let_go() == "let go: now"
        assert fleet.wait() == 0
        fleet.wait_for("stopped: exit status 0", since=0)


def test_past_the_grace_period_it_is_killed(python_script: Script, tmp_path: Path) -> None:
    """A request that never ends holds up nobody for longer than was promised."""
    source = """
        from prefork import Prefork
        from story import *

        tell(lambda: Prefork(serve_func=serve, workers=1, start_method=METHOD,
                             shutdown_grace_period_s=0.2).listen_and_serve(ANY_PORT))
    """
    with run(python_script(source), "fork") as fleet:
        ready_workers(fleet, 1)
        held = Held(fleet, tmp_path)
        fleet.signal(SIGTERM)
        fleet.wait_for(r"did not finish .*: killing it")
        fleet.wait_for("returned")
        with held.client:
            assert held.client.hear() == ""
        assert fleet.wait() == 0


def test_nothing_to_serve_with() -> None:
    """Said before anything is opened."""
    with pytest.raises(ValueError, match="serve_func"):
        Prefork().listen_and_serve("127.0.0.1:0")
