"""Promise 1, the sockets themselves: Unix paths, descriptors from outside, socket activation."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import Site, ask, pid_of, serving, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, free_port, run_to_end, wait_until
from tests.process.load import Load
from tests.process.test_promises_upgrade import upgrade

CLIENTS = 8

ACTIVATOR = """
    # As systemd does it: open the sockets, put them at 3 and up, say so, and become the service.
    import os, socket, sys
    how, places, arguments = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
    opened = []
    for place in places:
        one = socket.socket(socket.AF_UNIX if place.startswith("/") else socket.AF_INET)
        one.bind(place if place.startswith("/") else ("127.0.0.1", int(place)))
        one.listen(64)
        # Out of the way first: a socket may have the very number that another is to get.
        opened.append(os.dup2(one.detach(), 100 + len(opened), inheritable=False))
    for nth, fd in enumerate(opened):
        os.dup2(fd, 3 + nth, inheritable=True)
    if how != "plain":
        os.environ["LISTEN_FDS"] = str(len(places))
        os.environ["LISTEN_PID"] = str(os.getpid() if how == "ours" else os.getppid())
    os.execv(sys.executable, [sys.executable, "-m", "prefork", *arguments])
    """


@pytest.fixture
def activated(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet]
) -> Callable[..., Fleet]:
    """`activated("ours", ["8080"], *arguments)`: prefork with listening sockets that somebody else has opened."""

    def start(how: str, places: list[str], *arguments: str) -> Fleet:
        return fleet_of_script(python_script(ACTIVATOR, "activator.py"), how, ",".join(places), *arguments)

    return start


def without_bind(app: str = "web", *extra: str) -> list[str]:
    """`serving`, with no --bind: what is served is what was opened for us."""
    words = serving(app, *extra)
    where = words.index("--bind")
    return words[:where] + words[where + 2 :]


# -- Unix ---------------------------------------------------------------------------------------------


def test_a_unix_socket_has_the_mode_and_owner_that_were_asked_for(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """As a reverse proxy in another group needs it."""
    path = tmp_path / "socket"
    group = os.getgid() if os.getuid() else 12345
    words = ("--unix-mode", "620", "--unix-user", str(os.getuid()), "--unix-group", str(group))
    fleet = fleet_of(*serving("web", *words, bind=f"unix:{path}"))
    workers = wait_until_ready(fleet)
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o620
    assert (found.st_uid, found.st_gid) == (os.getuid(), group)
    assert pid_of(ask(fleet)) in workers
    assert fleet.stop() == 0
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Left by a master that was killed: nobody answers there, so it is in nobody's way."""
    path = tmp_path / "socket"
    first = fleet_of(*serving("web", bind=f"unix:{path}"))
    wait_until_ready(first)
    first.stop(signal.SIGKILL)
    first.assert_nothing_left()
    assert path.exists()
    second = fleet_of(*serving("web", bind=f"unix:{path}"))
    workers = wait_until_ready(second)
    assert pid_of(ask(second)) in workers
    assert second.stop() == 0
    assert not path.exists()


def test_a_unix_socket_that_is_served_is_refused(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """The one who is there keeps it, and notices nothing; also while all of its workers are busy or stopped."""
    path = tmp_path / "socket"
    fleet = fleet_of(*serving("web", bind=f"unix:{path}"))
    workers = wait_until_ready(fleet)
    for pid in workers:
        fleet.kill(pid, signal.SIGSTOP)
    status, output = run_to_end(*serving("web", bind=f"unix:{path}"))
    assert status == 2
    assert "in use by a running program" in output
    for pid in workers:
        fleet.kill(pid, signal.SIGCONT)
    assert pid_of(ask(fleet)) in workers


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, what: str) -> None:
    """A typing mistake must not cost anybody a file."""
    path, target = tmp_path / "precious", tmp_path / "target"
    target.write_text("precious")
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    status, output = run_to_end(*serving("web", bind=f"unix:{path}"))
    assert status == 2
    assert "is not a socket" in output
    assert path.exists()
    assert target.read_text() == "precious"


def test_a_path_that_became_somebody_elses_is_left_alone(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """At the end a master removes its own file only."""
    path = tmp_path / "socket"
    fleet = fleet_of(*serving("web", bind=f"unix:{path}"))
    wait_until_ready(fleet)
    path.rename(tmp_path / "aside")
    path.write_text("precious")
    assert fleet.stop() == 0
    assert path.read_text() == "precious"


def test_an_abstract_socket(fleet_of: Callable[..., Fleet]) -> None:
    """A name without a file."""
    name = f"prefork-test-{os.getpid()}"
    fleet = fleet_of(*serving("web", bind=f"unix:@{name}"))
    workers = wait_until_ready(fleet)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert pid_of(answer.decode()) in workers
    assert fleet.stop() == 0


def test_a_unix_socket_survives_kills_and_reloads(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], tmp_path: Path
) -> None:
    """What holds for a port holds for a path."""
    path = tmp_path / "socket"
    fleet = fleet_of(*serving("web", "--reuseport", bind=f"unix:{path}"))
    workers = wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    report = load.finish()
    assert not report.failed, report
    mark = fleet.mark()
    fleet.kill(next(pid for pid in fleet.workers() if pid not in workers))
    fleet.wait_for_workers(1, since=mark)
    assert ask(fleet)


# -- descriptors from outside -------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_a_descriptor_that_was_given(activated: Callable[..., Fleet], sharing: tuple[str, ...]) -> None:
    """fd://3: served where it is bound, which the log names."""
    port = free_port()
    fleet = activated("plain", [str(port)], *serving("web", *sharing, bind="fd://3"))
    workers = wait_until_ready(fleet)
    assert fleet.port == port
    assert pid_of(ask(fleet)) in workers
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    assert ask(fleet)
    assert fleet.stop() == 0


@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_socket_activation(activated: Callable[..., Fleet], tmp_path: Path, app: str) -> None:
    """Without --bind, all that the service manager has opened is served, and its path is its own to remove."""
    port, path = free_port(), tmp_path / "socket"
    fleet = activated("ours", [str(port), str(path)], *without_bind(app))
    workers = wait_until_ready(fleet)
    assert fleet.port == port
    assert f"unix:{path}" in fleet.output
    assert pid_of(ask(fleet)) in workers
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert pid_of(b"".join(iter(lambda: client.recv(4096), b"")).decode()) in workers
    assert fleet.stop() == 0
    assert path.exists()


def test_sockets_for_somebody_else_are_not_ours(activated: Callable[..., Fleet]) -> None:
    """LISTEN_PID names another process: the variables were only inherited."""
    port, own = free_port(), free_port()
    fleet = activated("theirs", [str(port)], *serving("web", bind=f"127.0.0.1:{own}"))
    wait_until_ready(fleet)
    assert fleet.port == own


def test_an_address_that_was_asked_for_goes_before_what_was_opened(activated: Callable[..., Fleet]) -> None:
    """Both --bind and activation: the words on the command line count."""
    port, own = free_port(), free_port()
    fleet = activated("ours", [str(port)], *serving("web", bind=f"127.0.0.1:{own}"))
    wait_until_ready(fleet)
    assert fleet.port == own


def test_socket_activation_survives_an_upgrade(
    activated: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """The new master has no LISTEN_PID of its own; it gets the sockets from the old one all the same. Twice."""
    port = free_port()
    fleet = activated("ours", [str(port)], *without_bind())
    wait_until_ready(fleet)
    load = load_on(fleet.url, clients=CLIENTS)
    second = upgrade(fleet, fleet.pid)
    third = upgrade(fleet, second)
    report = load.finish()
    assert not report.failed, report
    assert ask(fleet)
    fleet.kill(third, signal.SIGTERM)
    fleet.assert_nothing_left(WAIT_S)


def test_workers_and_their_programs_know_nothing_of_the_activation(
    activated: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Neither the variables nor a stray copy of the sockets reach what a worker starts."""
    site = Site(tmp_path)
    site.write("""
        import os, subprocess
        async def app(scope, receive, send):
            if scope["type"] == "http":
                said = subprocess.run(["sh", "-c", "env; ls -l /proc/self/fd"], capture_output=True).stdout
                body = b"LISTEN" if b"LISTEN_" in said or b"socket:" in said else b"clean"
                head = [(b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": 200, "headers": head})
                await send({"type": "http.response.body", "body": body})
        """)
    words = site.serving()
    where = words.index("--bind")
    fleet = activated("ours", [str(free_port())], *words[:where], *words[where + 2 :])
    wait_until_ready(fleet)
    assert ask(fleet) == "clean"


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")
def test_systemds_own_activator() -> None:
    """The real thing: it waits for the first connection, then becomes us; that connection is answered."""
    port = free_port()
    words = ["systemd-socket-activate", "--listen", f"127.0.0.1:{port}", "--setenv", "PYTHONPATH"]
    command = [sys.executable, "-m", "prefork", *without_bind()]
    with Fleet([*words, *command]) as fleet:
        fleet.wait_for("Listening on")
        client = socket.create_connection(("127.0.0.1", port), 20)
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert b" 200 " in answer
        assert fleet.stop() == 0
        wait_until(lambda: not fleet.leftovers(), "nobody is left")
