"""Fixtures of the unit tests: no descriptor is lost, and listening sockets that close themselves."""

from __future__ import annotations

import contextlib
import gc
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from prefork.net.address import parse_address
from prefork.net.listeners import ListenerSet, UnixOptions
from tests.unit.listening import Open, descriptors


@pytest.fixture
def no_descriptor_leaks() -> Iterator[None]:
    """Whatever a test does, and whatever is refused in it, no descriptor is left open."""
    # What an earlier test left to the garbage collector must not go in between.
    gc.disable()
    before = descriptors()
    try:
        yield
    finally:
        gc.enable()
    assert descriptors() == before


@pytest.fixture
def stack(no_descriptor_leaks: None) -> Iterator[contextlib.ExitStack]:
    """What is put on it is closed before the descriptors are counted."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def opened(stack: contextlib.ExitStack) -> Open:
    """`opened("127.0.0.1:0", …, reuseport=True)`: a set of these addresses, closed after the test."""

    def open_set(
        *texts: str,
        reuseport: bool = False,
        slots: int = 3,
        backlog: int = 1024,
        network: str | None = None,
        unix: UnixOptions = UnixOptions(),  # noqa: B008 - frozen
        inherited: Mapping[str, Sequence[int]] | None = None,
    ) -> ListenerSet:
        addresses = [parse_address(text, network) for text in texts]
        made = ListenerSet.open(
            addresses, reuseport=reuseport, slots=slots, backlog=backlog, unix=unix, inherited=inherited or {}
        )
        stack.callback(made.close)
        return made

    return open_set


@pytest.fixture
def connect(stack: contextlib.ExitStack) -> Callable[..., list[socket.socket]]:
    """`connect(listener, 60)`: that many clients of the address that `listener` is bound to."""

    def connect_clients(listener: socket.socket, count: int = 1) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(listener.family))
            client.settimeout(45)
            client.connect(listener.getsockname())
            clients.append(client)
        return clients

    return connect_clients


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that an unprivileged user may write to; `tmp_path` is below a private one."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)
