"""Whom a foreign server's drain still accepts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from prefork.servers.base import last_call


class Listening(socket.socket):
    """A listener that has been told what to say."""

    is_last_call = False
    undecided = 0
    """How often it is still to say that the master has not decided."""

    @property
    def is_undecided(self) -> bool:
        self.undecided -= 1
        return self.undecided >= 0


@pytest.fixture
def listener() -> Iterator[Listening]:
    with Listening() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(8)
        yield made


def test_siblings_take_who_waits(listener: Listening) -> None:
    with socket.create_connection(listener.getsockname()):
        assert not last_call([listener])()


def test_at_a_last_call_who_waits_is_ours(listener: Listening) -> None:
    listener.is_last_call = True
    is_anyone_waiting = last_call([listener])
    with socket.create_connection(listener.getsockname()):
        assert is_anyone_waiting()
        listener.accept()[0].close()
        assert not is_anyone_waiting()


def test_until_the_master_has_decided_somebody_may_come(listener: Listening) -> None:
    listener.is_last_call, listener.undecided = True, 2
    is_anyone_waiting = last_call([listener])
    assert [is_anyone_waiting() for _ in range(3)] == [True, True, False]


def test_it_has_an_end(listener: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a queue that never empties, and with a master that never decides."""
    monkeypatch.setattr("prefork.servers.base.LAST_CALL_S", 0.0)
    listener.is_last_call, listener.undecided = True, 1000
    with socket.create_connection(listener.getsockname()):
        assert not last_call([listener])()
