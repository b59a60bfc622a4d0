"""The warm-up in real fleets: what it loads is there in every worker, and what no fork can take along is refused."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP

import pytest

from tests.process.apps import UNCACHED, Site, ask, wait_until_ready
from tests.process.harness import Fleet, run_to_end

LAZY_ASGI = """
    import os

    cache = {}

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/broken":
            raise LookupError("broken on purpose")
        by = cache.setdefault("loaded by", os.getpid())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d pid %d" % (by, os.getpid())})
    """
LAZY_WSGI = """
    import os

    cache = {}

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/broken":
            raise LookupError("broken on purpose")
        by = cache.setdefault("loaded by", os.getpid())
        start_response("200 OK", [])
        return [b"%d pid %d" % (by, os.getpid())]
    """
BOTH = pytest.mark.parametrize("source", [LAZY_ASGI, LAZY_WSGI], ids=["asgi", "wsgi"])


def site_of(folder: Path, source: str) -> Site:
    site = Site(folder)
    site.write(source)
    return site


@BOTH
def test_all_workers_have_what_the_zygote_has_loaded(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str
) -> None:
    """Also the one that replaces another, and those of a reload, which is warmed up anew."""
    site = site_of(tmp_path, source)
    fleet = fleet_of(*site.serving("--warmup", "/", "--lifespan", "off"))
    workers = wait_until_ready(fleet)
    said = fleet.wait_for(r"\[zygote 1 (\d+)\] warm-up /: status 200", since=0)
    zygote = int(said[1])
    assert ask(fleet).startswith(f"{zygote} pid ")
    for pid in workers:
        fleet.kill(pid)
    fleet.wait_for_workers(4)
    assert ask(fleet).startswith(f"{zygote} pid ")
    fleet.signal(SIGHUP)
    fleet.wait_for("reload done")
    second = int(fleet.wait_for(r"\[zygote 2 (\d+)\] warm-up /: status 200", since=0)[1])
    assert second != zygote
    assert fleet.stop() == 0
    assert "Traceback" not in fleet.output


@BOTH
@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_strict_warm_up_that_fails_is_a_failed_start(tmp_path: Path, source: str, method: str) -> None:
    """Status 3, and the application's traceback once."""
    site = site_of(tmp_path, source)
    words = ("--warmup", "/broken", "--warmup-strict", "--lifespan", "off", "--start-method", method)
    status, output = run_to_end(*site.serving(*words, workers=1))
    assert status == 3, output
    assert "warm-up /broken failed: LookupError: broken on purpose" in output
    assert output.count("Traceback") == 1


@BOTH
def test_one_that_is_not_strict_is_told(fleet_of: Callable[..., Fleet], tmp_path: Path, source: str) -> None:
    """And the fleet serves."""
    site = site_of(tmp_path, source)
    fleet = fleet_of(*site.serving("--warmup", "/broken", "--warmup", "/", "--lifespan", "off"))
    fleet.wait_for("warm-up /broken failed: LookupError: broken on purpose")
    fleet.wait_for("warm-up /: status 200")
    wait_until_ready(fleet)
    assert ask(fleet)
    assert fleet.stop() == 0


def test_in_a_reload_the_old_code_serves_on(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """The new does not pass its warm-up: as if it could not be imported."""
    site = site_of(tmp_path, LAZY_ASGI)
    words = ("--warmup", "/", "--warmup-strict", "--lifespan", "off")
    fleet = fleet_of(*site.serving(*words), env=UNCACHED)
    wait_until_ready(fleet)
    before = ask(fleet).split()[0]
    site.write(LAZY_ASGI.replace('"/broken"', '"/"'))
    fleet.signal(SIGHUP)
    fleet.wait_for("reload failed: warm-up / failed: LookupError: broken on purpose; generation 1 serves on")
    assert ask(fleet).split()[0] == before
    assert fleet.stop() == 0


def test_threads_that_it_leaves_are_refused_by_name(tmp_path: Path) -> None:
    """A fork would copy their locks locked."""
    site = site_of(
        tmp_path,
        """
        import threading

        async def app(scope, receive, send):
            threading.Thread(target=threading.Event().wait, name="pool of the shop", daemon=True).start()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
        """,
    )
    status, output = run_to_end(*site.serving("--warmup", "/", "--lifespan", "off"))
    assert status == 3, output
    assert "warm-up has left threads alive, which no fork takes along: pool of the shop" in output
    assert (
        "cannot fork while the application is loaded: 1 more thread(s) are alive (pool of the shop)" in output
    )


def test_it_is_bounded(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """An application that hangs in it, in code that blocks."""
    site = site_of(
        tmp_path,
        """
        import os, threading

        async def app(scope, receive, send):
            if scope["path"] == "/hangs":
                threading.Event().wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"pid %d" % os.getpid()})
        """,
    )
    words = ("--warmup", "/hangs", "--warmup-timeout", "0.2", "--lifespan", "off")
    fleet = fleet_of(*site.serving(*words))
    fleet.wait_for("warm-up /hangs failed: no answer within 0.2 s")
    wait_until_ready(fleet)
    assert ask(fleet)
    assert fleet.stop() == 0


def test_the_lifespan_is_the_workers_alone(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """It is run once in each of them, after the fork, and never in the zygote."""
    site = site_of(
        tmp_path,
        """
        import os

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                os.write(1, b"lifespan in %d\\n" % os.getpid())  # in one piece: two workers say it at once
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"pid %d" % os.getpid()})
        """,
    )
    fleet = fleet_of(*site.serving("--warmup", "/"))
    workers = wait_until_ready(fleet)
    assert {int(found[1]) for found in fleet.find_all(r"lifespan in (\d+)")} == set(workers)
    assert fleet.stop() == 0


def test_a_program_of_ones_own(fleet_of_script: Callable[..., Fleet], tmp_path: Path) -> None:
    """`Server(app, warmup=...)`: in the zygote, too."""
    path = tmp_path / "program.py"
    program = """
        from prefork import Prefork, Server

        Prefork(Server(app, lifespan="off", warmup=["/"]), workers=2).listen_and_serve("127.0.0.1:0")
        """
    path.write_text(textwrap.dedent(LAZY_ASGI) + textwrap.dedent(program))
    fleet = fleet_of_script(path)
    wait_until_ready(fleet)
    loaded_by, _, pid = ask(fleet).split()
    assert loaded_by != pid
    assert int(loaded_by) not in {os.getpid(), fleet.pid, *fleet.workers()}
    assert fleet.stop() == 0
