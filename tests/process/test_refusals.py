"""A request that kills workers is refused before it has killed the fleet; and nobody else is."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import APPS, UNCACHED, Held, Site, ask, reload, serving, wait_until_ready
from tests.process.attending import metric, status
from tests.process.controlling import done
from tests.process.harness import WAIT_S, Fleet
from tests.process.load import Load

MOST = 3
OPTION = ("--refuse-after-kills", str(MOST))
CRASHED = r"crashed: .*while it ran GET /{path}"
REFUSED = r"refused from now on: GET /{path}, which has killed 3 workers"

ASGI = """
    import asyncio, os, signal, sys, time
    from pathlib import Path

    async def app(scope, receive, send):
        path, query = scope["path"], scope["query_string"]
        if path == "/segv":
            signal.raise_signal(signal.SIGSEGV)  # in this very thread
        elif path == "/later":
            await asyncio.sleep(0)
            os._exit(1)
        elif path == "/thread":
            await asyncio.to_thread(lambda: (time.sleep(0.1), os._exit(1)))
        elif path == "/hang":
            time.sleep(1000)
        elif path == "/hold":
            print("holding pid", os.getpid(), file=sys.stderr, flush=True)
            await asyncio.to_thread(lambda: Path(query.decode()).open("rb", buffering=0).read(1))
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
    """

WSGI = """
    import os, signal, time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/segv":
            signal.raise_signal(signal.SIGSEGV)  # in this very thread
        elif environ["PATH_INFO"] == "/later":
            os._exit(1)
        body = b"pid %d" % os.getpid()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """


def get(fleet: Fleet, path: str) -> int:
    """The status of one answer; 0 where the connection ended without one."""
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=WAIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (ConnectionError, http.client.BadStatusLine):
        return 0
    else:
        return answer.status
    finally:
        connection.close()


def kill_with(fleet: Fleet, path: str, how: str = CRASHED) -> None:
    """One request that kills its worker; the master knows of it, and another serves, when this returns."""
    since = fleet.mark()
    assert get(fleet, path) == 0
    name = path[1:].replace("?", r"\?")
    fleet.wait_for(how.format(path=name), since=since)
    fleet.wait_for(r"generation \d+\) ready", since=since)


def crashes(fleet: Fleet) -> int:
    return len(fleet.find_all("crashed: "))


def site_of(tmp_path: Path, source: str = ASGI) -> Site:
    site = Site(tmp_path)
    site.write(source)
    return site


def serving_site(fleet_of: Callable[..., Fleet], site: Site, *words: str) -> Fleet:
    fleet = fleet_of(*site.serving(*OPTION, *words), env=UNCACHED)
    wait_until_ready(fleet)
    return fleet


@pytest.mark.parametrize("path", ["segv", "later"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (ASGI, ("--lifespan", "off")),
        (ASGI, ("--lifespan", "off", "--start-method", "exec")),
        (WSGI, ("--threads", "1")),
        (WSGI, ("--threads", "4")),
    ],
    ids=["asgi", "exec", "wsgi", "threads"],
)
def test_it_kills_so_many_workers_and_no_more(
    tmp_path: Path, fleet_of: Callable[..., Fleet], source: str, words: tuple[str, ...], path: str
) -> None:
    """From then on it is answered, by every worker; all else is served as before. The log says which it was."""
    fleet = serving_site(fleet_of, site_of(tmp_path, source), *words)
    for _ in range(MOST):
        assert ask(fleet)
        kill_with(fleet, f"/{path}?x=1")
    fleet.wait_for(REFUSED.format(path=rf"{path}\?x=1"), since=0)
    workers = fleet.workers()
    assert [get(fleet, f"/{path}?x=1") for _ in range(8)] == [503] * 8
    assert ask(fleet)
    assert fleet.workers() == workers
    assert crashes(fleet) == MOST
    assert fleet.stop() == 0


def test_work_in_a_thread_of_the_applications_takes_twice_as_many(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    """Nobody ran on the loop then; one that waited may have had nothing to do with it."""
    fleet = serving_site(fleet_of, site_of(tmp_path), "--lifespan", "off")
    for _ in range(2 * MOST):
        kill_with(fleet, "/thread", r"crashed: exit status 1.*, while GET /{path} waited")
    fleet.wait_for("refused from now on: GET /thread, which has killed 6 workers", since=0)
    assert get(fleet, "/thread") == 503
    assert fleet.stop() == 0


def test_one_that_hangs_workers_is_refused_as_well(tmp_path: Path, fleet_of: Callable[..., Fleet]) -> None:
    site = site_of(tmp_path)
    fleet = fleet_of(
        *site.serving("--refuse-after-kills", "1", "--hang-timeout", "1", "--lifespan", "off"), env=UNCACHED
    )
    wait_until_ready(fleet)
    assert get(fleet, "/hang") == 504
    fleet.wait_for(r"refused from now on: GET /hang, which has killed 1 worker;", since=0)
    assert get(fleet, "/hang") == 503
    assert ask(fleet)
    assert fleet.stop() == 0


def test_who_was_in_flight_beside_it_is_not_refused(tmp_path: Path, fleet_of: Callable[..., Fleet]) -> None:
    """One worker, so all of them were: at each death, and never once served."""
    site = site_of(tmp_path)
    fleet = fleet_of(*site.serving(*OPTION, "--lifespan", "off", workers=1), env=UNCACHED)
    wait_until_ready(fleet, 1)
    pipe = tmp_path / "neighbour"
    for turn in range(MOST):
        neighbour = Held(fleet, tmp_path, "neighbour")
        kill_with(fleet, "/segv")
        assert not neighbour.answer(), turn
        pipe.unlink()
    fleet.wait_for(REFUSED.format(path="segv"), since=0)
    assert get(fleet, "/segv") == 503
    neighbour = Held(fleet, tmp_path, "neighbour")
    assert neighbour.answer()
    assert fleet.stop() == 0


def test_workers_that_somebody_kills_accuse_nobody_who_is_served(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """SIGKILL from outside is a crash, and somebody ran at each; but it is served, again and again."""
    fleet = fleet_of(*serving("web", "--refuse-after-kills", "2", folder=APPS))
    wait_until_ready(fleet)
    load = load_on(fleet.url + "/")
    for _ in range(8):
        since = fleet.mark()
        fleet.kill(fleet.workers()[0])
        fleet.wait_for("crashed: killed by signal 9", since=since)
        fleet.wait_for(r"ready", since=since)
        assert ask(fleet)
    report = load.finish()
    assert not fleet.find_all("refused from now on")
    assert not {kind for kind in report.failed if kind.startswith("status")}, report
    assert fleet.stop() == 0


def test_a_query_that_varies_shuts_the_route_and_no_other(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    fleet = serving_site(fleet_of, site_of(tmp_path), "--lifespan", "off")
    for number in range(MOST):
        kill_with(fleet, f"/segv?x={number}")
    fleet.wait_for(REFUSED.format(path="segv with any query"), since=0)
    assert [get(fleet, path) for path in ("/segv?x=9", "/segv", "/segv/x", "/")] == [503, 503, 200, 200]
    assert fleet.stop() == 0


def test_new_code_begins_anew_and_somebody_may_forgive(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    """A reload lifts it, and so does `preforkctl forgive`; the status and the metrics tell of it until then."""
    site = site_of(tmp_path)
    fleet = fleet_of(
        *site.serving("--refuse-after-kills", "1", "--lifespan", "off", "--admin", "127.0.0.1:0"),
        env=UNCACHED,
    )
    wait_until_ready(fleet)
    kill_with(fleet, "/segv?secret=1")
    assert [get(fleet, "/segv?secret=1") for _ in range(2)] == [503, 503]
    assert "GET /segv?…, which has killed 1 worker" in done(fleet, "status")
    assert metric(fleet, "prefork_refused_requests_total") == 2
    told = status(fleet)
    assert [each["what"] for each in told["refused"]] == ["GET /segv?…"]
    assert "refused" in {event["kind"] for event in told["events"]}
    assert "secret" not in str(told)
    assert done(fleet, "forgive") == "1 refused before; nothing is any more"
    kill_with(fleet, "/segv?secret=1")
    assert get(fleet, "/segv?secret=1") == 503
    site.write(ASGI.replace("raise_signal", "Signals"))  # mended
    reload(fleet)
    assert get(fleet, "/segv?secret=1") == 200
    assert metric(fleet, "prefork_refused") == 0
    assert metric(fleet, "prefork_refused_requests_total") == 3
    assert fleet.stop() == 0


PROGRAM = """
from prefork import Prefork, Server

async def app(scope, receive, send):
    pass

if __name__ == "__main__":
    Prefork({server}, refuse_after_kills=3, workers=2).listen_and_serve("127.0.0.1:0")
"""


def test_a_program_with_a_low_threshold_is_warned(
    tmp_path: Path, fleet_of_script: Callable[..., Fleet]
) -> None:
    """The fleet would be given up before."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(server='Server(app, lifespan="off")'))
    fleet = fleet_of_script(script)
    fleet.wait_for("more than 1 crashes within 60 s end the fleet, so 3 in a row are hardly ever seen")
    fleet.wait_for("ready: 2 workers")
    assert fleet.stop(signal.SIGTERM) == 0


def test_a_server_that_tells_nothing_is_an_error(
    tmp_path: Path, fleet_of_script: Callable[..., Fleet]
) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(server="serve_func=print"))
    fleet = fleet_of_script(script)
    fleet.wait_for(r"ConfigError: refuse_after_kills needs prefork's own server.*Prefork\(Server\(app\)\)")
    assert fleet.wait() != 0
