"""As process 1 of a container, without a disk to write to, on a port that only root may open; and under systemd."""

from __future__ import annotations

import configparser
import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import Request, Site, ask, pid_of, serving, wait_until_ready
from tests.process.harness import Fleet, free_port, run_to_end, wait_until
from tests.process.test_command_options import NOBODY, needs_root

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"


def may(*command: str) -> bool:
    """Whether this machine lets us do that."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_pid_namespaces = pytest.mark.skipif(
    not may("unshare", "--pid", "--fork", "--mount-proc", "true"),
    reason="no namespace of processes may be made here",
)
needs_mount_namespaces = pytest.mark.skipif(
    not may("unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -o remount,bind,ro /"),
    reason="no namespace of mounts may be made here",
)

# ---------------------------------------------------------------------------------------- process 1


class Container:
    """A fleet whose master is process 1 of a namespace of its own. `fleet.pid` is that of unshare(1), outside."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        (self.master,) = procfs.children(fleet.pid)

    def signal(self, number: signal.Signals, pid_inside: int = 1) -> None:
        """Send a signal to a process by its number inside."""
        process = procfs.identify(self.outside(pid_inside))
        assert process is not None
        procfs.send(process, number)

    def outside(self, pid_inside: int) -> int:
        """proc(5), NSpid: the number here, and behind it the one inside."""
        for pid in (self.master, *procfs.descendants(self.master)):
            with contextlib.suppress(FileNotFoundError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                if next(x for x in lines if x.startswith("NSpid:")).split()[-1] == str(pid_inside):
                    return pid
        raise AssertionError(f"no process {pid_inside}\n{self.fleet.output}")

    def zombies(self) -> list[int]:
        return [
            x for x in procfs.all_pids() if procfs.state(x) == "Z" and procfs.parent_pid(x) == self.master
        ]


@pytest.fixture
def contained(fleet_of_words: Callable[..., Fleet]) -> Callable[..., Container]:
    def start(*arguments: str, workers: int = 2) -> Container:
        words = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
        fleet = fleet_of_words(*words, sys.executable, "-m", "prefork", *arguments)
        wait_until_ready_inside(fleet, workers)
        return Container(fleet)

    return start


@pytest.fixture
def fleet_of_words() -> Iterator[Callable[..., Fleet]]:
    """A fleet that something else starts."""
    with contextlib.ExitStack() as stack:
        yield lambda *words, **how: stack.enter_context(Fleet(list(words), **how))


def wait_until_ready_inside(fleet: Fleet, workers: int) -> None:
    fleet.wait_for(rf"ready: {workers} workers?", since=0)


LEAVES_ORPHANS = """
    import os

    async def app(scope, receive, send):
        if scope["path"] == "/orphan" and os.fork() == 0:
            # It leaves a child of its own to process 1, and that one ends.
            os._exit(0 if os.fork() else 0)
        if scope["path"] == "/orphan":
            os.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"pid %d" % os.getpid()})
    """


@needs_pid_namespaces
def test_process_1_reaps_strangers(contained: Callable[..., Container], tmp_path: Path) -> None:
    """Orphans of the application's: not one stays a zombie, and no worker's end is lost to that."""
    site = Site(tmp_path)
    site.write(LEAVES_ORPHANS)
    container = contained(*site.serving("--lifespan", "off"))
    for _ in range(20):
        assert ask(container.fleet, "/orphan")
    wait_until(lambda: not container.zombies(), "all are reaped", show=lambda: container.fleet.output)
    worker = pid_of(ask(container.fleet))
    container.signal(signal.SIGKILL, worker)
    container.fleet.wait_for(rf"worker \d \(pid {worker}, generation 1\) crashed: killed by signal 9")
    container.fleet.wait_for(r"worker \d \(pid \d+, generation 1\) ready")
    wait_until(lambda: not container.zombies(), "all are reaped", show=lambda: container.fleet.output)


@needs_pid_namespaces
def test_process_1_hears_signals(contained: Callable[..., Container], tmp_path: Path) -> None:
    """The kernel gives process 1 no defaults: what it does not handle is not heard. HUP reloads, TERM stops, status 0."""
    container = contained(*Site(tmp_path).serving())
    fleet = container.fleet
    container.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    container.signal(signal.SIGUSR2)
    fleet.wait_for("process 1 cannot be replaced, its container would end: use HUP")
    assert ask(fleet)
    container.signal(signal.SIGTERM)
    assert fleet.wait() == 0
    fleet.assert_nothing_left()


@needs_pid_namespaces
def test_all_ends_with_process_1(contained: Callable[..., Container], tmp_path: Path) -> None:
    """`docker kill`: the kernel ends the rest."""
    container = contained(*Site(tmp_path).serving())
    container.signal(signal.SIGKILL)
    container.fleet.wait()
    container.fleet.assert_nothing_left()


# ---------------------------------------------------------------------------------------- nothing to write to

READ_ONLY = """
mount --make-rprivate /
cut -d' ' -f5 /proc/self/mountinfo | sort -u | while read -r place; do
    mount -o remount,bind,ro "$place" 2>/dev/null
done
for folder in /tmp /dev/shm /var/tmp /run "$PWD"; do
    if touch "$folder/is-writable" 2>/dev/null; then echo "$folder is writable"; exit 9; fi
done
exec "$@"
"""


@needs_mount_namespaces
@pytest.mark.parametrize("method", ["fork", "exec"])
@pytest.mark.parametrize("words", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_a_root_that_is_read_only(
    fleet_of_words: Callable[..., Fleet], tmp_path: Path, method: str, words: tuple[str, ...]
) -> None:
    """Not even /dev/shm and /tmp can be written to: it serves, replaces, reloads, and stops, and warns of what it misses."""
    site = Site(tmp_path)
    command = [sys.executable, "-m", "prefork", *site.serving(*words, "--start-method", method)]
    fleet = fleet_of_words("unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *command, cwd=tmp_path)
    first, _ = wait_until_ready(fleet)
    assert fleet.find_all("no control socket, preforkctl cannot be answered")
    assert fleet.find_all("workers will have no shared state")
    assert ask(fleet)
    fleet.kill(first)
    fleet.wait_for_workers(3)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    assert ask(fleet)
    assert fleet.stop() == 0
    assert "Traceback" not in fleet.output
    fleet.assert_nothing_left()


# ---------------------------------------------------------------------------------------- root, and no root


def low_port() -> int:
    """A free port of the loopback that only root may open."""
    # In an order that is each process's own: this test may run twice at the same time.
    for port in random.SystemRandom().sample(range(600, 1024), 424):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@needs_root
@pytest.mark.parametrize("words", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_a_low_port_and_workers_without_rights(
    fleet_of: Callable[..., Fleet], public_site: Site, words: tuple[str, ...]
) -> None:
    """Opened by root, served by nobody; also by a worker that is added later, with a socket of its own."""
    port = low_port()
    arguments = public_site.serving(*words, "--user", NOBODY, bind=f"127.0.0.1:{port}")
    fleet = fleet_of(*arguments)
    wait_until_ready(fleet)
    assert ask(fleet) == f"uid {65534}"
    assert Path(f"/proc/{fleet.pid}").stat().st_uid == 0
    fleet.signal(signal.SIGTTIN)
    fleet.wait_for(r"worker 2 \(pid \d+, generation 1\) ready")
    assert ask(fleet) == f"uid {65534}"
    assert fleet.stop() == 0


@pytest.fixture
def public_site() -> Iterator[Site]:
    """A site that another user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        site = Site(folder)
        site.write(
            """
            import os

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"uid %d" % os.getuid()})
            """
        )
        yield site


# ---------------------------------------------------------------------------------------- systemd


def unit(name: str) -> configparser.ConfigParser:
    """A unit file, parsed; systemd's keys may come twice, ours do not."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_unit_does_what_its_comments_say() -> None:
    """Notify, watchdog, the whole group at the end, more time to stop than workers have."""
    service = unit("prefork.service")["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > 30
    assert unit("prefork.service")["Unit"]["Requires"] == "prefork.socket"
    assert unit("prefork.socket")["Socket"]["ListenStream"] == "80"


def test_the_commands_of_the_unit_are_commands(tmp_path: Path) -> None:
    """Each word of them is known."""
    service = unit("prefork.service")["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "prefork"
    status, output = run_to_end(*words, "--print-config", cwd=tmp_path)
    assert status == 0, output
    assert 'control = "/run/prefork/control.sock"' in output
    program, *words = shlex.split(service["ExecReload"])
    assert Path(program).name == "preforkctl"
    asked = [sys.executable, "-c", "from prefork.cli.ctl import main; main()", *words]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert "Usage" not in ended.stderr
    assert "/run/prefork/control.sock" in ended.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_units_are_verified_by_systemd(tmp_path: Path) -> None:
    """With programs that are there in place of those of /srv/app."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in UNITS.iterdir():
        text = path.read_text().replace("/srv/app/.venv/bin/preforkctl", str(program))
        (tmp_path / path.name).write_text(text.replace("/srv/app/.venv/bin/prefork", str(program)))
    units = [str(tmp_path / path.name) for path in UNITS.iterdir()]
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in (ended.stdout + ended.stderr).splitlines() if "prefork." in line]
    assert not ours, "\n".join(ours)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")
def test_a_socket_that_systemd_has_opened(fleet_of_words: Callable[..., Fleet]) -> None:
    """Nothing is bound but what came: the first connection, which started it, is answered."""
    port = free_port()
    words = [word for word in serving("web") if word not in {"--bind", "127.0.0.1:0"}]
    command = [sys.executable, "-m", "prefork", *words]
    environ = [f"--setenv={name}" for name in ("PYTHONPATH", "XDG_RUNTIME_DIR", "PATH") if name in os.environ]
    fleet = fleet_of_words("systemd-socket-activate", "-l", f"127.0.0.1:{port}", *environ, *command)
    fleet.wait_for("Listening on")
    first = Request(socket.create_connection(("127.0.0.1", port))).send()
    assert pid_of(first.answer()) in wait_until_ready(fleet)
    assert f"serving http://127.0.0.1:{port}" in fleet.output
    assert fleet.stop() == 0
