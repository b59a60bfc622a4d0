"""What the tests of listening sockets share: who may run them, what a refusal looks like, and small steps."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.errors import AddressError
from prefork.net.listeners import ListenerSet

LOOPBACK = "127.0.0.1:0"
CONNECTIONS = 60
NOBODY = 65534

Open = Callable[..., ListenerSet]

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has it")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def has_ipv6() -> bool:
    """Whether the loopback has an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6_only = pytest.mark.skipif(not has_ipv6(), reason="IPv6 is off here")


def descriptors() -> list[str]:
    """The descriptors that this process has open (one more among them: the one they are read through)."""
    return sorted(os.listdir("/dev/fd"))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's privileges, where the suite runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def answer_all(listener: socket.socket, count: int) -> None:
    """Accept that many waiting connections, and answer each."""
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"served")


def refusal(open_it: Callable[[], object]) -> AddressError:
    """The one-line error that `open_it` is refused with."""
    with pytest.raises(AddressError) as caught:
        open_it()
    assert "\n" not in str(caught.value)
    return caught.value


def mode_of(path: Path) -> int:
    """The permissions of what is at `path` itself."""
    return stat.S_IMODE(path.lstat().st_mode)


def passed_on(listeners: ListenerSet) -> dict[str, list[int]]:
    """What a new program gets: the same sockets, under descriptors of its own."""
    return {key: [os.dup(fd) for fd in fds] for key, fds in listeners.handover().items()}
