from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.errors import AddressError
from prefork.net.systemd import FIRST_FD, Notifier, inherited_listeners, successor_environ

PID = 4321


@contextlib.contextmanager
def descriptors_from_three(count: int) -> Iterator[None]:
    """Put `count` inheritable sockets at 3, 4, …, as systemd does, and what was there back afterwards."""
    wanted = range(FIRST_FD, FIRST_FD + count)
    saved: dict[int, int] = {}
    for fd in wanted:
        with contextlib.suppress(OSError):  # nothing was open at that number
            saved[fd] = os.dup(fd)
    try:
        with socket.socket() as source:
            for fd in wanted:
                if fd != source.fileno():
                    os.dup2(source.fileno(), fd, inheritable=True)
                else:
                    os.set_inheritable(fd, True)
            yield
    finally:
        for fd in wanted:
            if fd in saved:
                os.dup2(saved[fd], fd, inheritable=False)
                os.close(saved[fd])
            else:
                with contextlib.suppress(OSError):  # the source socket's own number, closed already
                    os.close(fd)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(45)
        yield receiver


@pytest.fixture
def notifier(mailbox: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": mailbox.getsockname()})
    yield notifier
    notifier.close()


def test_systemds_sockets_are_taken_once() -> None:
    """The process that systemd meant gets its descriptors, close-on-exec, and nobody after it."""
    environ = {
        "LISTEN_FDS": "2",
        "LISTEN_PID": str(PID),
        "LISTEN_FDNAMES": "a:b",
        "LISTEN_PORT": "1",
        "X": "y",
    }
    with descriptors_from_three(2):
        assert inherited_listeners(environ, PID) == (3, 4)
        assert not os.get_inheritable(3)
        assert not os.get_inheritable(4)
    assert environ == {"LISTEN_PORT": "1", "X": "y"}
    assert inherited_listeners(environ, PID) == ()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(PID)},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(PID)},
        {"LISTEN_FDS": "1", "LISTEN_PID": str(PID + 1)},
        {"LISTEN_FDS": "1", "LISTEN_PID": "nonsense"},
    ],
)
def test_sockets_for_somebody_else_are_left_alone(environ: dict[str, str]) -> None:
    """Variables that are missing, or for another process, give nothing, and go all the same."""
    assert inherited_listeners(environ, PID) == ()
    assert environ == {}


@pytest.mark.parametrize("count", ["two", "-1", "٢", "9" * 5000])
def test_a_count_that_is_no_number_is_refused(count: str) -> None:
    """A LISTEN_FDS that cannot be counted is a clear error, not a traceback."""
    with pytest.raises(AddressError, match="not a number"):
        inherited_listeners({"LISTEN_FDS": count, "LISTEN_PID": str(PID)}, PID)


def test_a_promised_descriptor_that_is_closed_is_refused() -> None:
    """More descriptors promised than open is a clear error with its cause."""
    limit = os.sysconf("SC_OPEN_MAX")
    count = min(limit + 1, 9_999_999)
    with pytest.raises(AddressError, match="is not open") as refusal:
        inherited_listeners({"LISTEN_FDS": str(count), "LISTEN_PID": str(PID)}, PID)
    assert isinstance(refusal.value.__cause__, OSError)


def test_the_service_tells_its_life(mailbox: socket.socket, notifier: Notifier) -> None:
    """Each step of a service's life arrives as one datagram of sd_notify(3)."""
    assert notifier.ready("2 workers\nserve")
    assert mailbox.recv(4096) == b"READY=1\nSTATUS=2 workers serve"
    assert notifier.ready()
    assert mailbox.recv(4096) == b"READY=1"
    assert notifier.status("draining")
    assert mailbox.recv(4096) == b"STATUS=draining"
    assert notifier.main_pid(77)
    assert mailbox.recv(4096) == b"MAINPID=77"
    assert notifier.watchdog()
    assert mailbox.recv(4096) == b"WATCHDOG=1"
    assert notifier.stopping()
    assert mailbox.recv(4096) == b"STOPPING=1"


def test_a_reload_carries_the_monotonic_time(mailbox: socket.socket, notifier: Notifier) -> None:
    """RELOADING comes with the microseconds of the monotonic clock, which Type=notify-reload needs."""
    before_us = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, second = mailbox.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_an_abstract_notify_socket_is_reached() -> None:
    """A NOTIFY_SOCKET that begins with "@" is in the abstract namespace."""
    name = f"prefork-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(45)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
        assert notifier.ready()
        assert receiver.recv(4096) == b"READY=1"
        notifier.close()


@pytest.mark.parametrize("address", ["", "@", "vsock:2:1234", "relative"])
def test_without_a_notify_socket_nothing_happens(address: str) -> None:
    """No NOTIFY_SOCKET, or one of an unknown kind: every call is a no-op without a descriptor."""
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    assert not notifier.ready()
    assert notifier._socket is None
    notifier.close()


def test_a_dead_notify_socket_hurts_nobody(
    mailbox: socket.socket, notifier: Notifier, tmp_path: Path
) -> None:
    """A receiver that went away makes the message fail, silently; one that comes back gets the next."""
    path = mailbox.getsockname()
    mailbox.close()
    assert not notifier.watchdog()
    Path(path).unlink()
    assert not notifier.watchdog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(45)
        assert notifier.watchdog()
        assert receiver.recv(4096) == b"WATCHDOG=1"
    too_long = Notifier({"NOTIFY_SOCKET": str(tmp_path / ("x" * 200))})
    assert not too_long.ready()
    too_long.close()


def test_a_slow_receiver_does_not_block(mailbox: socket.socket, notifier: Notifier) -> None:
    """Once the receiver's queue is full the message is dropped in place of waiting."""
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 100_000
    assert sent > 0


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ: dict[str, str], interval_s: float | None) -> None:
    """The interval is half of WATCHDOG_USEC, and only for the process that WATCHDOG_PID names."""
    assert Notifier(environ, PID).watchdog_interval_s == interval_s


def test_a_successor_is_still_watched() -> None:
    """The program that replaces the master inherits the watchdog, but not what names the old pid."""
    environ = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(PID),
        "LISTEN_FDS": "1",
        "LISTEN_PID": str(PID),
    }
    assert successor_environ(environ) == {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000"}
    assert Notifier(successor_environ(environ), PID + 1).watchdog_interval_s == 0.5
