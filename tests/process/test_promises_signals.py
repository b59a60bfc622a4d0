"""The master's signals: TTIN and TTOU scale, WINCH rests, USR1 opens logs again; process 1; a service manager's watch."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import Litter, Request, Site, ask, pid_of, reload, serving, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, free_port, wait_until
from tests.process.load import Load

SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
MANY = 16


def listening_sockets(port: int) -> int:
    """How many sockets of this machine listen on `port` (IPv4)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(f[1].rpartition(":")[2], 16) == port and f[3] == "0A" for f in lines)


def _scale(fleet: Fleet, number: signal.Signals, wanted: int) -> None:
    """One step, and wait until it has been taken, sockets included."""
    fleet.signal(number)
    fleet.wait_for(rf"scale: workers wanted: {wanted}")
    wait_until(lambda: len(fleet.workers()) == wanted, f"{wanted} workers", show=lambda: fleet.output)


@SHARING
def test_no_request_fails_while_the_fleet_grows_and_shrinks(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], sharing: tuple[str, ...]
) -> None:
    """One to four workers and back, twice; under --reuseport each worker's socket comes and goes with it."""
    fleet = fleet_of(*serving("web", *sharing, workers=1))
    wait_until_ready(fleet, 1)
    load = load_on(fleet.url, clients=MANY)
    for _ in range(2):
        for wanted in (2, 3, 4):
            _scale(fleet, signal.SIGTTIN, wanted)
        for wanted in (3, 2, 1):
            _scale(fleet, signal.SIGTTOU, wanted)
    report = load.finish()
    assert not report.failed, report
    assert len(report.workers) > 1
    wait_until(lambda: listening_sockets(fleet.port) == 1, "the sockets of the others are closed")
    assert ask(fleet)
    assert fleet.stop() == 0


def test_a_burst_of_steps_ends_where_it_should(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """Up and down faster than workers come and go."""
    fleet = fleet_of(*serving("web", "--reuseport", workers=2))
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=MANY)
    for nth in range(10):
        fleet.signal(signal.SIGTTIN if nth % 2 == 0 else signal.SIGTTOU)
        fleet.wait_for("scale: ")
    report = load.finish()
    assert not report.failed, report
    wait_until(lambda: len(fleet.workers()) == 2, "two workers again", show=lambda: fleet.output)
    wait_until(lambda: listening_sockets(fleet.port) == 2, "two sockets again")


def test_the_last_worker_stays(fleet_of: Callable[..., Fleet]) -> None:
    """TTOU never goes below one; to stop all, there is WINCH."""
    fleet = fleet_of(*serving("web", workers=1))
    workers = wait_until_ready(fleet, 1)
    fleet.signal(signal.SIGTTOU)
    fleet.wait_for("scale: workers wanted: 1")
    assert pid_of(ask(fleet)) in workers


# -- WINCH --------------------------------------------------------------------------------------------


@SHARING
@pytest.mark.parametrize(("number", "count"), [(signal.SIGHUP, 2), (signal.SIGTTIN, 1)], ids=["HUP", "TTIN"])
def test_a_rest(
    fleet_of: Callable[..., Fleet], sharing: tuple[str, ...], number: signal.Signals, count: int
) -> None:
    """WINCH: workers leave, sockets stay; who connects meanwhile waits, and is answered by those that return."""
    fleet = fleet_of(*serving("web", *sharing))
    old = wait_until_ready(fleet)
    fleet.signal(signal.SIGWINCH)
    fleet.wait_for("resting")
    wait_until(lambda: not fleet.workers(), "the workers have left", show=lambda: fleet.output)
    waiting = [Request(fleet.connect()).send() for _ in range(MANY)]
    if number is signal.SIGHUP:
        # Under --reuseport each waits in the queue of one slot: with one worker back, only some are answered.
        fleet.signal(number)
        answers = [request.answer() for request in waiting]
        assert all(answers), f"{answers.count('')} of {MANY} were lost"
        assert not {pid_of(answer) for answer in answers} & set(old)
    else:
        fleet.signal(number)
    wait_until(lambda: len(fleet.workers()) == count, f"{count} workers are back", show=lambda: fleet.output)
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_a_rest_can_be_ended_by_a_stop(fleet_of: Callable[..., Fleet]) -> None:
    """TERM while nobody serves."""
    fleet = fleet_of(*serving("web"))
    wait_until_ready(fleet)
    fleet.signal(signal.SIGWINCH)
    fleet.wait_for("resting")
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


def test_a_rest_is_not_ended_by_a_crash_or_by_ttou(fleet_of: Callable[..., Fleet]) -> None:
    """Nothing brings workers back but those who may."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    fleet.kill(workers[0], signal.SIGSTOP)
    fleet.signal(signal.SIGWINCH)
    fleet.wait_for("resting")
    fleet.kill(workers[0])
    fleet.signal(signal.SIGTTOU)
    wait_until(lambda: not fleet.workers(), "all have left", show=lambda: fleet.output)
    mark = fleet.mark()
    fleet.signal(signal.SIGTTIN)
    fleet.wait_for_workers(1, since=mark)
    assert len(fleet.workers()) == 1


# -- USR1 ---------------------------------------------------------------------------------------------

LOGGING = """
    import logging, os

    async def app(scope, receive, send):
        if scope["type"] == "http":
            logging.getLogger("site").warning("asked for %s", scope["path"])
            body = b"pid %d" % os.getpid()
            head = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})
    """


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_logs_are_opened_again(fleet_of: Callable[..., Fleet], tmp_path: Path, method: str) -> None:
    """As logrotate does it: the file is moved, USR1 is sent, and everybody writes to the new one."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    site = Site(tmp_path)
    site.write(LOGGING)
    port = free_port()
    words = ("--log-file", str(log), "--start-method", method)
    fleet = fleet_of(*site.serving(*words, workers=2, bind=f"127.0.0.1:{port}"))

    def get(path: str) -> int:
        return pid_of(Request(socket.create_connection(("127.0.0.1", port), WAIT_S), path).send().answer())

    wait_until(lambda: log.exists() and "ready: 2 workers" in log.read_text(), "it is ready")
    get("/before")
    assert "asked for /before" in log.read_text()
    log.rename(old)
    fleet.signal(signal.SIGUSR1)

    def all_write_to_the_new_one() -> bool:
        get("/after")
        return log.exists() and len(set(re.findall(r"\[worker [^]]+\] asked for", log.read_text()))) == 2

    wait_until(all_write_to_the_new_one, "both workers write to the new file")
    length = old.stat().st_size
    get("/later")
    fleet.signal(signal.SIGTTIN)
    wait_until(lambda: "scale: workers wanted: 3" in log.read_text(), "the master writes to the new file")
    wait_until(lambda: len([x for x in log.read_text().splitlines() if " ready" in x]) >= 1, "a third worker")
    assert old.stat().st_size == length
    assert fleet.stop() == 0


def test_usr1_without_a_log_file_does_nothing(fleet_of: Callable[..., Fleet]) -> None:
    """It is not the end, which is what the system would make of it."""
    fleet = fleet_of(*serving("web"))
    workers = wait_until_ready(fleet)
    fleet.signal(signal.SIGUSR1)
    reload(fleet)
    assert fleet.is_running
    assert pid_of(ask(fleet)) not in workers


# -- process 1 ----------------------------------------------------------------------------------------


def _may_make_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@contextmanager
def _as_process_one(*arguments: str) -> Iterator[tuple[Fleet, int]]:
    """A fleet whose master is process 1 of a namespace, as in a container: (the fleet, its master's pid outside)."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "prefork"]
    with Fleet([*words, *arguments]) as fleet:
        wait_until_ready(fleet)
        (master,) = procfs.children(fleet.pid)
        yield fleet, master


needs_namespaces = pytest.mark.skipif(
    not _may_make_namespaces(), reason="pid namespaces cannot be made here (unshare)"
)


@needs_namespaces
def test_process_one_stops_when_told() -> None:
    """The kernel gives process 1 no default action for signals: TERM works because we hear it."""
    with _as_process_one(*serving("web")) as (fleet, master):
        assert fleet.find_all(r"\[master 1\] .*serving")
        assert ask(fleet)
        fleet.kill(master, signal.SIGTERM)
        assert fleet.wait() == 0
        fleet.assert_nothing_left()


@needs_namespaces
def test_process_one_reaps_orphans(tmp_path: Path) -> None:
    """Whatever loses its parent in the container is ours to bury."""
    with _as_process_one(*serving("web")) as (fleet, master):
        Litter(fleet, tmp_path, master).wait_until_reaped()
        assert ask(fleet)


@needs_namespaces
def test_process_one_refuses_to_be_replaced_and_says_why() -> None:
    """Its end would be the container's; a reload is what is wanted."""
    with _as_process_one(*serving("web")) as (fleet, master):
        fleet.kill(master, signal.SIGUSR2)
        fleet.wait_for(r"upgrade failed: process 1 cannot be replaced, .*use HUP")
        assert ask(fleet)
        fleet.kill(master, signal.SIGHUP)
        fleet.wait_for("reload done")
        fleet.kill(master, signal.SIGTERM)
        assert fleet.wait() == 0


# -- sd_notify ----------------------------------------------------------------------------------------


class ServiceManager:
    """The other end of NOTIFY_SOCKET: hears what the service says of itself."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(WAIT_S)

    def hear(self) -> dict[str, str]:
        """The next message, as names and values."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def hear_until(self, name: str) -> dict[str, str]:
        """The next message that has `name`."""
        while name not in (message := self.hear()):
            continue
        return message

    def close(self) -> None:
        """Forget it."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    """A service manager that listens."""
    one = ServiceManager(tmp_path)
    yield one
    one.close()


def test_the_service_manager_is_told_of_every_turn(
    fleet_of: Callable[..., Fleet], manager: ServiceManager
) -> None:
    """READY once all are, RELOADING with its time and READY at its end, STOPPING at last."""
    before_us = time.monotonic_ns() // 1000
    fleet = fleet_of(*serving("web"), env={"NOTIFY_SOCKET": str(manager.path)})
    ready = manager.hear()
    assert ready["READY"] == "1"
    assert "2 workers" in ready["STATUS"]
    wait_until_ready(fleet)
    fleet.signal(signal.SIGHUP)
    reloading = manager.hear_until("RELOADING")
    assert before_us < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert "generation 2" in manager.hear_until("READY")["STATUS"]
    fleet.signal(signal.SIGTERM)
    assert manager.hear_until("STOPPING") == {"STOPPING": "1"}
    assert fleet.wait() == 0


def test_a_reload_that_fails_ends_for_the_service_manager_too(
    fleet_of: Callable[..., Fleet], manager: ServiceManager, tmp_path: Path
) -> None:
    """`systemctl reload` must not wait for ever: READY comes, and the status says what happened."""
    site = Site(tmp_path)
    environment = {"NOTIFY_SOCKET": str(manager.path), "PYTHONDONTWRITEBYTECODE": "1"}
    fleet = fleet_of(*site.serving(), env=environment)
    manager.hear_until("READY")
    site.write("raise RuntimeError('broken on purpose')")
    fleet.signal(signal.SIGHUP)
    manager.hear_until("RELOADING")
    assert "reload failed" in manager.hear_until("READY")["STATUS"]


def test_the_watchdog_is_fed_in_time(fleet_of: Callable[..., Fleet], manager: ServiceManager) -> None:
    """Twice as often as it must be, from the first moment on, and while a reload runs."""
    limit_s = 6.0
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": f"{limit_s * 1e6:.0f}"}
    fleet = fleet_of(*serving("web"), env=environment)
    heard_s = []
    for _ in range(3):
        assert manager.hear_until("WATCHDOG")["WATCHDOG"] == "1"
        heard_s.append(time.monotonic())
        fleet.signal(signal.SIGHUP)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(heard_s)]
    assert max(gaps_s) < limit_s
    assert max(gaps_s) > limit_s / 4


def test_a_watchdog_of_somebody_else_is_left_alone(
    fleet_of: Callable[..., Fleet], manager: ServiceManager
) -> None:
    """WATCHDOG_PID names another process: the variable was only inherited."""
    environment = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "10000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    fleet = fleet_of(*serving("web"), env=environment)
    assert "READY" in manager.hear()
    fleet.signal(signal.SIGTERM)
    assert manager.hear() == {"STOPPING": "1"}


def test_a_service_manager_that_is_gone_disturbs_nobody(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """NOTIFY_SOCKET leads nowhere: serving is what counts."""
    fleet = fleet_of(*serving("web"), env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    wait_until_ready(fleet)
    assert ask(fleet)
    reload(fleet)
    assert fleet.stop() == 0
