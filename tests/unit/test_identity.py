from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.identity import MARKER, channel_fd, child_environment, is_child

WHO = (
    "from prefork.identity import channel_fd, is_child; import os; print(is_child(), channel_fd(os.getpid()))"
)


@pytest.fixture(autouse=True)
def forgotten_answer() -> Iterator[None]:
    """The answer is kept for the life of a process; tests are several lives."""
    channel_fd.cache_clear()
    yield
    channel_fd.cache_clear()


@pytest.fixture
def ask() -> Callable[..., str]:
    """`ask(fds, **environment)`: what a program that was started like that takes itself for."""

    def run(*fds: int, **environment: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", WHO],
            env={**os.environ, **environment},
            pass_fds=fds,
            capture_output=True,
            text=True,
            check=True,
            timeout=90,
        )
        return ran.stdout.strip()

    return run


def test_an_ordinary_program_is_no_child() -> None:
    """This one, for instance."""
    assert not is_child()


def test_the_marker_alone_is_not_believed(ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches every program that a worker starts."""
    monkeypatch.setenv(MARKER, "1")
    assert not is_child()
    assert ask() == "False None"


def test_with_marker_and_channel_it_is_one(ask: Callable[..., str]) -> None:
    """The master sets one and passes the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ask(theirs.fileno(), **child_environment()) == f"True {theirs.fileno()}"


@pytest.mark.parametrize("environment", [{}, {MARKER: "0"}, {MARKER: ""}, {MARKER: "yes"}])
def test_a_channel_alone_is_not_enough(ask: Callable[..., str], environment: dict[str, str]) -> None:
    """Another program's socketpair is no business of ours."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ask(theirs.fileno(), **environment).startswith("False")


def test_what_is_no_channel_is_told_apart(ask: Callable[..., str], tmp_path: Path) -> None:
    """Listeners, pipes, datagrams and named sockets are passed on too; none of them is one."""
    reader, writer = os.pipe()
    datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as named,
        datagrams[0],
        datagrams[1],
    ):
        named.bind(str(tmp_path / "named.sock"))
        named.listen()
        fds = (reader, writer, tcp.fileno(), named.fileno(), datagrams[0].fileno())
        assert ask(*fds, **child_environment()) == "False None"
    os.close(reader)
    os.close(writer)


def test_a_connection_to_somebodys_socket_is_no_channel(ask: Callable[..., str], tmp_path: Path) -> None:
    """A log daemon's, say: a nameless Unix stream too, but its other side has a name. Nor is one to nobody."""
    with (
        socket.socket(socket.AF_UNIX) as daemon,
        socket.socket(socket.AF_UNIX) as client,
        socket.socket(socket.AF_UNIX) as unconnected,
    ):
        daemon.bind(str(tmp_path / "daemon.sock"))
        daemon.listen()
        client.connect(str(tmp_path / "daemon.sock"))
        assert ask(client.fileno(), **child_environment()) == "False None"
        assert ask(unconnected.fileno(), **child_environment()) == "False None"


def test_it_is_found_among_others(ask: Callable[..., str]) -> None:
    """A command producer passes listeners and channel in any order."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as tcp:
        fds = (tcp.fileno(), theirs.fileno())
        assert ask(*fds, **child_environment()) == f"True {theirs.fileno()}"


def test_it_is_found_after_the_master_has_died(ask: Callable[..., str]) -> None:
    """Nobody holds the other end any more: it is a child all the same, and reads end-of-file."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        assert ask(theirs.fileno(), **child_environment()).startswith("True")


def test_a_pair_of_our_own_is_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child's own program may make socketpairs (every event loop does)."""
    monkeypatch.setenv(MARKER, "1")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not is_child()


def test_the_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is opened later changes nothing, and nothing is looked through twice."""
    looked = []
    monkeypatch.setattr("prefork.identity._open_fds", lambda: looked.append(1) or [])
    assert channel_fd(os.getpid()) is None
    assert channel_fd(os.getpid()) is None
    assert len(looked) == 1
    assert channel_fd(os.getpid() + 1) is None
    assert len(looked) == 2, "a forked process asks for itself"


def test_a_child_is_marked_with_one_variable() -> None:
    """PREFORK_CHILD=1, as the seed's FASTHTTP_PREFORK_CHILD=1."""
    assert child_environment() == {"PREFORK_CHILD": "1"}
