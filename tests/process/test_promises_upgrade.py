"""USR2: the master's own program is replaced while it serves, and comes back if the new one does not work."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import GOOD, UNCACHED, Held, Site, ask, pid_of, serving, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.load import Load
from tests.process.test_promises_signals import ServiceManager, listening_sockets

SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
CLIENTS = 16


def upgrade(fleet: Fleet, master: int, workers: int = 2) -> int:
    """Have the program of `master` replaced, and wait until it is gone: the new master's pid."""
    mark = fleet.mark()
    fleet.kill(master, signal.SIGUSR2)
    new = int(fleet.wait_for(rf"\[master (\d+)\] ready: {workers} workers", since=mark)[1])
    assert new != master
    fleet.wait_for(rf"\[master {master}\] upgrade: the new master serves", since=mark)
    wait_until(lambda: procfs.state(master) in {"", "Z"}, "the old master is gone", show=lambda: fleet.output)
    return new


def end(fleet: Fleet, master: int) -> None:
    """Stop the master that is the last one, gracefully; nobody of the whole line is left."""
    fleet.kill(master, signal.SIGTERM)
    fleet.assert_nothing_left(WAIT_S)
    assert not fleet.find_all("Traceback")


@SHARING
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_no_request_fails_while_the_program_is_replaced(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], app: str, sharing: tuple[str, ...]
) -> None:
    """Twice in a row, under clients that come fresh and clients that stay: all are answered, on the same port."""
    fleet = fleet_of(*serving(app, *sharing))
    old = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    second = upgrade(fleet, fleet.pid)
    assert fleet.wait() == 0
    third = upgrade(fleet, second)
    report = load.finish()
    assert not report.failed, report
    assert report.answered > 100
    assert pid_of(ask(fleet)) not in old
    assert listening_sockets(fleet.port) == (2 if sharing else 1)
    assert len({fleet.pid, second, third}) == 3
    end(fleet, third)


def test_the_new_program_is_really_new(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """What was edited is what answers; and the new master reloads and stops as any."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write_good("second")
    master = upgrade(fleet, fleet.pid)
    assert {ask(fleet).split()[0] for _ in range(8)} == {"second"}
    site.write_good("third")
    fleet.kill(master, signal.SIGHUP)
    fleet.wait_for(rf"\[master {master}\] reload done")
    wait_until(lambda: ask(fleet).startswith("third"), "the third version answers")
    end(fleet, master)


def test_a_program_of_ones_own_is_replaced(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """The library as the command: `listen_and_serve` returns in the old program, which says its last words."""
    script = python_script(
        """
        import os
        from prefork import Prefork, Server

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            body = b"pid %d" % os.getpid()
            head = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})

        Prefork(Server(app, interface="asgi"), workers=2).listen_and_serve("127.0.0.1:0")
        print("returned", flush=True)
        """
    )
    fleet = fleet_of_script(script)
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    master = upgrade(fleet, fleet.pid)
    fleet.wait_for("returned", since=0)
    assert fleet.wait() == 0
    report = load.finish()
    assert not report.failed, report
    end(fleet, master)


def test_a_request_in_flight_is_finished_by_the_old_worker(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """The old master leaves when its workers have: no answer is cut off."""
    fleet = fleet_of(*serving("web"))
    wait_until_ready(fleet)
    held = Held(fleet, tmp_path)
    mark = fleet.mark()
    fleet.signal(signal.SIGUSR2)
    new = int(fleet.wait_for(r"\[master (\d+)\] ready: 2 workers", since=mark)[1])
    fleet.wait_for("upgrade: the new master serves", since=mark)
    # The old workers are told in this moment, and may have taken one connection more before they hear of it.
    wait_until(
        lambda: pid_of(ask(fleet)) != held.pid, "the old worker takes no more", show=lambda: fleet.output
    )
    assert fleet.is_running
    assert pid_of(held.answer()) == held.pid
    assert fleet.wait() == 0
    end(fleet, new)


BROKEN = {
    "raises": "raise RuntimeError('broken on purpose')",
    "exits": "import sys; sys.exit(0)",
    "exits hard": "import os; os._exit(0)",
    "dies": "import os; os.kill(os.getppid(), 9); import time; time.sleep(1000)",
    "lifespan fails": """
        async def app(scope, receive, send):
            await receive()
            raise RuntimeError("broken on purpose")
        """,
}


@SHARING
def test_a_new_program_that_fails_changes_nothing(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path, sharing: tuple[str, ...]
) -> None:
    """However it fails: the old one serves on, says so, loses nothing, and can be upgraded later."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(*sharing), env=UNCACHED)
    old = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    for what, source in BROKEN.items():
        site.write(source)
        fleet.signal(signal.SIGUSR2)
        fleet.wait_for(r"upgrade failed: .*this master serves on")
        assert fleet.is_running, what
        assert ask(fleet).startswith("first"), what
        assert set(old) <= set(fleet.workers()), what
    site.write_good("mended")
    master = upgrade(fleet, fleet.pid)
    assert ask(fleet).startswith("mended")
    report = load.finish()
    assert not report.failed, report
    fleet.kill(master, signal.SIGTERM)
    fleet.assert_nothing_left(WAIT_S)


def test_a_new_program_that_hangs_is_given_up(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """The new master's own boot time-out, or the old one's patience: either way it ends, with all its children."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving("--boot-timeout", "5"), env=UNCACHED)
    old = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    site.write("import time; time.sleep(1000)")
    fleet.signal(signal.SIGUSR2)
    fleet.wait_for("upgrade failed: ")
    report = load.finish()
    assert not report.failed, report
    assert fleet.workers() == old
    assert ask(fleet).startswith("first")
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def _begin_slow_upgrade(fleet: Fleet, site: Site, folder: Path) -> Path:
    """USR2 to a program whose import waits until the file that is returned is gone."""
    gate = folder / "gate"
    gate.touch()
    waits = f"""
    import pathlib, time
    print("loading", flush=True)
    while pathlib.Path({str(gate)!r}).exists():
        time.sleep(0.01)
    """
    site.write(waits + GOOD.replace("VERSION", "second"))
    fleet.signal(signal.SIGUSR2)
    fleet.wait_for("loading")
    return gate


def test_one_upgrade_at_a_time(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A second USR2 while the first is under way is ignored, and said so; the first goes on."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    gate = _begin_slow_upgrade(fleet, site, tmp_path)
    fleet.signal(signal.SIGUSR2)
    fleet.wait_for("upgrade ignored: one is under way")
    assert ask(fleet).startswith("first")
    gate.unlink()
    master = int(fleet.wait_for(r"\[master (\d+)\] ready: 2 workers")[1])
    assert fleet.wait() == 0
    assert ask(fleet).startswith("second")
    assert len({m[1] for m in fleet.find_all(r"\[master (\d+)\] .*serving")}) == 2
    end(fleet, master)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_ends_an_upgrade_that_is_under_way(
    fleet_of: Callable[..., Fleet], tmp_path: Path, number: signal.Signals
) -> None:
    """Old and new end together; nobody is left to take the port."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    _begin_slow_upgrade(fleet, site, tmp_path)
    assert fleet.stop(number) == 0
    fleet.assert_nothing_left()


def test_a_reload_and_a_crash_during_an_upgrade(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """The old master goes on with its work until it is relieved."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    old = wait_until_ready(fleet)
    gate = _begin_slow_upgrade(fleet, site, tmp_path)
    mark = fleet.mark()
    fleet.kill(old[0])
    fleet.wait_for_workers(1, since=mark)
    load = load_on(fleet.url, clients=8)
    gate.unlink()
    master = int(fleet.wait_for(r"\[master (\d+)\] ready: 2 workers")[1])
    assert fleet.wait() == 0
    report = load.finish()
    assert not report.failed, report
    end(fleet, master)


def test_a_new_master_that_is_killed_is_an_upgrade_that_failed(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """End-of-file is what the old one goes by: no way to die leaves it waiting."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=8)
    mark = fleet.mark()
    _begin_slow_upgrade(fleet, site, tmp_path)
    new = next(
        int(m[1]) for m in fleet.find_all(r"\[master (\d+)\] .*serving", mark) if int(m[1]) != fleet.pid
    )
    fleet.kill(new)
    fleet.wait_for("upgrade failed: .*this master serves on")
    report = load.finish()
    assert not report.failed, report
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_a_unix_socket_outlives_the_old_master(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """Its path is there all the time, for the same socket, and the last master removes it."""
    path = tmp_path / "socket"
    fleet = fleet_of(*serving("web", bind=f"unix:{path}"))
    wait_until_ready(fleet)
    inode = path.stat().st_ino
    load = load_on(fleet.url, clients=CLIENTS)
    master = upgrade(fleet, fleet.pid)
    assert fleet.wait() == 0
    assert path.stat().st_ino == inode
    assert ask(fleet)
    report = load.finish()
    assert not report.failed, report
    end(fleet, master)
    assert not path.exists()


def test_a_unix_socket_outlives_an_upgrade_that_fails(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """The new master does not take the path with it when it goes."""
    path = tmp_path / "socket"
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(bind=f"unix:{path}"), env=UNCACHED)
    wait_until_ready(fleet)
    site.write("raise RuntimeError('broken on purpose')")
    fleet.signal(signal.SIGUSR2)
    fleet.wait_for("upgrade failed: ")
    assert ask(fleet).startswith("first")
    assert fleet.stop() == 0
    assert not path.exists()


def test_the_service_manager_learns_of_the_new_main_process(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """MAINPID, from the old master before it goes; not a word of a stop; and then the new one speaks."""
    manager = ServiceManager(tmp_path)
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"}
    fleet = fleet_of(*serving("web"), env=environment)
    manager.hear_until("READY")
    wait_until_ready(fleet)
    master = upgrade(fleet, fleet.pid)
    heard = [manager.hear()]
    while "MAINPID" not in heard[-1]:
        heard.append(manager.hear())
    assert int(heard[-1]["MAINPID"]) == master
    assert fleet.wait() == 0
    assert not any("STOPPING" in message for message in heard)
    # The old one fed it until it left; the new one goes on, or the service would be killed for its silence.
    assert manager.hear_until("WATCHDOG")
    fleet.kill(master, signal.SIGTERM)
    last = manager.hear()
    while "STOPPING" not in last:
        assert not re.search("READY", str(last))
        last = manager.hear()
    fleet.assert_nothing_left(WAIT_S)
    manager.close()
