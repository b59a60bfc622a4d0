from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from prefork.net import steering
from prefork.net.sockets import queue_depth

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can steer")

CONNECTIONS = 90


@pytest.fixture
def group() -> Iterator[list[socket.socket]]:
    """Three sockets that share a port on loopback, listening in order."""
    members: list[socket.socket] = []
    port = 0
    for _ in range(3):
        member = socket.socket()
        members.append(member)
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        member.bind(("127.0.0.1", port))
        member.listen(1024)
        port = member.getsockname()[1]
    yield members
    for member in members:
        member.close()


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for client in opened:
        client.close()


def connect(group: list[socket.socket], clients: list[socket.socket], count: int = CONNECTIONS) -> None:
    clients.extend(socket.create_connection(group[0].getsockname(), timeout=45) for _ in range(count))


def depths(group: list[socket.socket]) -> list[int]:
    return [queue_depth(member) for member in group]


def answer_all(listener: socket.socket, count: int) -> None:
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"served")


def test_the_kernels_hash_uses_every_socket(group: list[socket.socket], clients: list[socket.socket]) -> None:
    """Without a program, all members get connections: the ground the other tests stand on."""
    connect(group, clients)
    assert all(depths(group))
    assert sum(depths(group)) == CONNECTIONS


@pytest.mark.parametrize("through", [0, 1, 2])
def test_steering_leaves_the_last_sockets_out(
    group: list[socket.socket], clients: list[socket.socket], through: int
) -> None:
    """After steer_below(2), through any member, nothing new lands on the third, and both others work."""
    steering.steer_below(group[through], 2)
    connect(group, clients)
    first, second, third = depths(group)
    assert third == 0
    assert first + second == CONNECTIONS
    assert min(first, second) > CONNECTIONS // 10


def test_steering_can_be_changed_and_taken_off(
    group: list[socket.socket], clients: list[socket.socket]
) -> None:
    """A new program replaces the old one; taken off, all members get connections again."""
    steering.steer_below(group[0], 2)
    steering.steer_below(group[0], 1)
    connect(group, clients)
    assert depths(group) == [CONNECTIONS, 0, 0]
    steering.steer_off(group[2])
    connect(group, clients)
    assert all(depths(group))


def test_taking_off_what_is_not_there_is_no_error(group: list[socket.socket]) -> None:
    """steer_off may be called at any time."""
    steering.steer_off(group[0])
    steering.steer_off(group[0])


def test_nobody_is_reset_when_the_last_socket_is_drained_and_closed(
    group: list[socket.socket], clients: list[socket.socket]
) -> None:
    """Steer away, serve what waits, close the last: everyone who ever connected is answered."""
    connect(group, clients)
    steering.steer_below(group[0], 2)
    waiting = queue_depth(group[2])
    assert waiting > 0
    connect(group, clients)
    assert queue_depth(group[2]) == waiting
    answer_all(group[2], waiting)
    assert queue_depth(group[2]) == 0
    group.pop().close()
    connect(group, clients)
    steering.steer_off(group[0])
    connect(group, clients)
    for member in group:
        answer_all(member, queue_depth(member))
    assert [client.recv(16) for client in clients] == [b"served"] * (4 * CONNECTIONS)


def test_a_count_below_one_is_refused(group: list[socket.socket]) -> None:
    """Connections must go somewhere."""
    with pytest.raises(ValueError, match="1 or more"):
        steering.steer_below(group[0], 0)


def test_a_socket_that_cannot_be_steered_is_an_oserror() -> None:
    """What the kernel refuses is passed on, not hidden."""
    with socket.socket(socket.AF_UNIX) as unrelated, pytest.raises(OSError, match="Errno"):
        steering.steer_below(unrelated, 2)
    with socket.socket(socket.AF_UNIX) as unrelated, pytest.raises(OSError, match="Errno"):
        steering.steer_off(unrelated)
