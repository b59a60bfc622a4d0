from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import pytest

from prefork.errors import AddressError
from prefork.net import sockets
from prefork.net.address import Address
from prefork.net.listeners import ListenerSet
from tests.unit.listening import (
    LOOPBACK,
    Open,
    ipv6_only,
    linux_only,
    refusal,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


class TestShared:
    def test_every_slot_gets_the_same_socket(self, opened: Open) -> None:
        """Without reuseport there is one socket for each address, in the order of the addresses."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex(), slots=2)
        assert listeners.for_slot(0) == listeners.for_slot(1)
        assert [sock.family for sock in listeners.for_slot(0)] == [socket.AF_INET, socket.AF_UNIX]
        assert listeners.slots_open == 2
        assert listeners.for_slot(2) == listeners.for_slot(0)
        assert listeners.slots_open == 3

    def test_a_socket_is_private_and_quick(self, opened: Open, connect: Callable[..., object]) -> None:
        """Not inherited by programs, SO_REUSEADDR, and accepted connections have TCP_NODELAY already."""
        (listener,) = opened(LOOPBACK).for_slot(0)
        assert not listener.get_inheritable()
        assert listener.getblocking()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        connect(listener)
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def test_the_real_port_is_told(self, opened: Open) -> None:
        """Port 0 is replaced by what the kernel chose; the text as configured stays the key."""
        listeners = opened(LOOPBACK)
        (address,) = listeners.addresses
        assert address == Address("tcp4", host="127.0.0.1", port=listeners.for_slot(0)[0].getsockname()[1])
        assert list(listeners.handover()) == [LOOPBACK]

    def test_a_name_is_resolved_and_shown_as_a_name(self, opened: Open) -> None:
        """The name localhost is bound on loopback, IPv4 first, and people see the name they wrote."""
        listeners = opened("localhost:0")
        assert listeners.for_slot(0)[0].getsockname()[0] == "127.0.0.1"
        assert listeners.addresses[0].host == "localhost"

    @linux_only
    def test_a_shared_queue_counts_for_every_slot(self, opened: Open, connect: Callable[..., object]) -> None:
        """The depth is that of the one queue there is; waiting Unix connections are not seen."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex())
        for listener in listeners.for_slot(0):
            connect(listener, 4)
        assert [listeners.queue_depth(slot) for slot in range(3)] == [4, 4, 4]

    def test_slots_are_counted_alike_without_sockets_of_their_own(self, opened: Open) -> None:
        """Steering is a no-op, and a slot is closed as under reuseport, but no socket goes."""
        listeners = opened(LOOPBACK, slots=2)
        listeners.steer_below(1)
        listeners.close_slot(1)
        assert listeners.slots_open == 1
        assert listeners.for_slot(0)[0].fileno() >= 0

    def test_closing_twice_is_fine(self, opened: Open) -> None:
        """After close nobody listens there, and a second close does nothing."""
        listeners = opened(LOOPBACK)
        (listener,) = listeners.for_slot(0)
        place = listener.getsockname()
        listeners.close()
        listeners.close()
        assert listener.fileno() == -1
        assert repr(listeners) == "<ListenerSet closed: 0 slots>"
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(place)

    def test_slots_and_backlog_must_be_positive(self) -> None:
        """A number that cannot be meant is the caller's defect."""
        for slots, backlog in ((0, 1), (1, 0)):
            with pytest.raises(ValueError, match="1 or more"):
                ListenerSet.open([Address("fd", fd=0)], reuseport=False, slots=slots, backlog=backlog)

    @linux_only
    def test_a_backlog_above_the_kernels_limit_is_told(self, opened: Open) -> None:
        """The kernel cuts it silently; the master can log that."""
        assert opened(LOOPBACK, backlog=1).warnings == ()
        limit = sockets.backlog_limit()
        assert limit is not None
        (warning,) = opened(LOOPBACK, backlog=limit + 1).warnings
        assert f"backlog {limit + 1} is cut to {limit}" in warning


@ipv6_only
class TestFamilies:
    def test_tcp_takes_both_families(self, opened: Open) -> None:
        """Under network tcp, ":0" is one socket that IPv4 and IPv6 clients both reach."""
        port = opened(":0", network="tcp").addresses[0].port
        socket.create_connection(("127.0.0.1", port), timeout=45).close()
        socket.create_connection(("::1", port), timeout=45).close()

    @pytest.mark.parametrize("reuseport", [False, True])
    def test_tcp6_takes_ipv6_alone(self, opened: Open, reuseport: bool) -> None:  # noqa: FBT001
        """Under network tcp6, ":0" refuses IPv4, and leaves the port free for a tcp4 listener."""

        def leaves_ipv4_free() -> bool:
            port = opened(":0", network="tcp6", reuseport=reuseport).addresses[0].port
            socket.create_connection(("::1", port), timeout=45).close()
            if not _is_refused("127.0.0.1", port):
                return False
            try:
                opened(f":{port}", network="tcp4", reuseport=reuseport)
            except AddressError:
                return False
            return True

        assert _any_time(leaves_ipv4_free)

    def test_tcp4_does_not_take_ipv6(self, opened: Open) -> None:
        """The default network is IPv4 only."""
        assert _any_time(lambda: _is_refused("::1", opened(":0").addresses[0].port))


def _any_time(holds: Callable[[], bool]) -> bool:
    """Whether it holds for one of several ports: of the other family each may be somebody else's at the moment."""
    return any(holds() for _ in range(10))


def _is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=45).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("trouble", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_tcp_falls_back_where_ipv6_is_off(
    opened: Open, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    """Without IPv6, network tcp is IPv4 on every interface, in every slot, and says so."""
    bind = sockets._bind

    def bind_ipv4_only(place: sockets.Place, *, join: bool) -> socket.socket:
        if place.family == socket.AF_INET6:
            raise OSError(trouble, os.strerror(trouble))
        return bind(place, join=join)

    monkeypatch.setattr(sockets, "_bind", bind_ipv4_only)
    listeners = opened(":0", network="tcp", reuseport=True)
    assert listeners.addresses[0].url(tls=False).startswith("http://0.0.0.0:")
    if trouble == errno.EAFNOSUPPORT:
        message = str(refusal(lambda: opened("[::1]:0")))
        assert "IPv6 is off" in message
