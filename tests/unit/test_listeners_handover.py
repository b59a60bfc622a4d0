from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.listening import (
    CONNECTIONS,
    LOOPBACK,
    Open,
    answer_all,
    linux_only,
    passed_on,
    refusal,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


class TestDescriptors:
    def test_a_listening_socket_is_adopted(self, opened: Open, connect: Callable[..., object]) -> None:
        """fd://N is served as it is, shared under reuseport too, and shown by where it is bound."""
        donor = socket.create_server(("127.0.0.1", 0))
        port = donor.getsockname()[1]
        os.set_inheritable(donor.fileno(), True)
        listeners = opened(f"fd://{donor.fileno()}", reuseport=True)
        fd = donor.detach()
        (listener,) = listeners.for_slot(0)
        assert listener is listeners.for_slot(2)[0]
        assert not listener.get_inheritable()
        connect(listener)
        assert str(listeners.addresses[0]) == f"fd://{fd}"
        assert listeners.addresses[0].url(tls=False) == f"http://127.0.0.1:{port}"
        assert listeners.handover() == {f"fd://{fd}": [fd]}

    def test_a_unix_socket_is_adopted_and_its_path_left(self, opened: Open, tmp_path: Path) -> None:
        """Who bound the path removes it: systemd, not we."""
        path = tmp_path / "app.sock"
        donor = socket.socket(socket.AF_UNIX)
        donor.bind(str(path))
        donor.listen()
        listeners = opened(f"fd://{donor.detach()}")
        assert listeners.addresses[0].url(tls=True) == f"unix:{path}"
        listeners.close()
        assert path.is_socket()

    def test_the_blocking_flag_is_not_touched(self, opened: Open) -> None:
        """The description is shared with processes whose event loops a blocking accept would hang."""
        donor = socket.create_server(("127.0.0.1", 0))
        donor.setblocking(False)
        listeners = opened(f"fd://{donor.detach()}")
        assert not os.get_blocking(listeners.for_slot(0)[0].fileno())

    def test_what_does_not_listen_is_refused(self, opened: Open) -> None:
        """Bound but not listening, a datagram socket, a file, nothing at all: each says what is wrong."""
        with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for sock in (idle, datagrams):
                error = refusal(lambda sock=sock: opened(f"fd://{sock.fileno()}"))  # type: ignore[misc]
                assert "is not a listening stream socket" in str(error)
                assert sock.fileno() >= 0
        reader, writer = os.pipe()
        assert "is not a socket" in str(refusal(lambda: opened(f"fd://{reader}")))
        os.close(reader)
        os.close(writer)
        assert "is not open" in str(refusal(lambda: opened(f"fd://{reader}")))


class TestHandover:
    @pytest.mark.parametrize("reuseport", [False, True])
    def test_a_successor_takes_over_without_losing_a_connection(
        self,
        opened: Open,
        connect: Callable[..., list[socket.socket]],
        tmp_path: Path,
        reuseport: bool,  # noqa: FBT001
    ) -> None:
        """Connections that wait at the moment of the change are answered by the new program."""
        texts = (LOOPBACK, f"unix:{tmp_path}/app.sock")
        old = opened(*texts, reuseport=reuseport)
        clients = [client for listener in old.for_slot(0) for client in connect(listener, 10)]
        new = opened(*texts, reuseport=reuseport, inherited=passed_on(old))
        assert new.addresses == old.addresses
        old.leave_paths()
        new.take_over()
        old.close()
        for slot in range(new.slots_open if reuseport else 1):
            answer_all(new.for_slot(slot)[0], new.queue_depth(slot))
        answer_all(new.for_slot(0)[1], 10)
        assert [client.recv(16) for client in clients] == [b"served"] * 20
        assert (tmp_path / "app.sock").is_socket()
        new.close()
        assert not (tmp_path / "app.sock").exists()

    def test_a_successor_that_fails_leaves_everything(
        self, opened: Open, connect: Callable[..., object], tmp_path: Path
    ) -> None:
        """Before take_over the new program may go without harm: the path and the listeners stay."""
        texts = (LOOPBACK, f"unix:{tmp_path}/app.sock")
        old = opened(*texts, reuseport=True)
        opened(*texts, reuseport=True, inherited=passed_on(old)).close()
        error = refusal(lambda: opened(*texts, "192.0.2.1:1", reuseport=True, inherited=passed_on(old)))
        assert "192.0.2.1" in str(error)
        for listener in old.for_slot(2):
            connect(listener)

    @linux_only
    def test_a_successor_may_want_more_slots(self, opened: Open, connect: Callable[..., object]) -> None:
        """Slots beyond the inherited ones are opened beside them, on the same port."""
        old = opened(LOOPBACK, reuseport=True, slots=1)
        new = opened(LOOPBACK, reuseport=True, slots=3, inherited=passed_on(old))
        old.close()
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0

    def test_a_successor_keeps_slots_it_does_not_want(self, opened: Open) -> None:
        """Their queues may hold connections: the master drains them and closes them by and by."""
        old = opened(LOOPBACK, reuseport=True, slots=3)
        new = opened(LOOPBACK, reuseport=True, slots=1, inherited=passed_on(old))
        assert new.slots_open == 3

    @linux_only
    def test_steering_of_the_predecessor_ends(self, opened: Open, connect: Callable[..., object]) -> None:
        """A scale-down that was under way does not starve a slot of the new program."""
        old = opened(LOOPBACK, reuseport=True)
        old.steer_below(1)
        new = opened(LOOPBACK, reuseport=True, inherited=passed_on(old))
        new.take_over()
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0

    @linux_only
    def test_reuseport_can_be_turned_on(self, opened: Open, connect: Callable[..., object]) -> None:
        """A socket that was shared becomes the first of a group."""
        old = opened(LOOPBACK)
        new = opened(LOOPBACK, reuseport=True, inherited=passed_on(old))
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0
        new.steer_below(1)
        before = new.queue_depth(0)
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert new.queue_depth(0) == before + CONNECTIONS

    def test_reuseport_cannot_be_turned_off(self, opened: Open) -> None:
        """Several queues cannot become one: the upgrade is refused, and the old program goes on."""
        old = opened(LOOPBACK, reuseport=True)
        assert "reuseport is off now" in str(refusal(lambda: opened(LOOPBACK, inherited=passed_on(old))))

    def test_an_address_that_is_no_longer_wanted_is_closed(self, opened: Open) -> None:
        """Its descriptors do not linger in the new program."""
        old = opened(LOOPBACK, "127.0.0.2:0")
        passed = passed_on(old)
        new = opened(LOOPBACK, inherited=passed)
        assert list(new.handover()) == [LOOPBACK]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(passed["127.0.0.2:0"][0])

    def test_an_inherited_descriptor_that_is_none_is_refused(self, opened: Open) -> None:
        """What was passed is looked at, and all of it is closed on refusal."""
        reader, writer = os.pipe()
        inherited = {LOOPBACK: [reader, writer], "127.0.0.2:0": [os.dup(reader)]}
        error = refusal(lambda: opened(LOOPBACK, reuseport=True, inherited=inherited))
        assert f"descriptor {reader} for 127.0.0.1:0 is not a socket" in str(error)

    def test_a_number_other_than_the_configured_one_is_found(self, opened: Open) -> None:
        """fd://N was passed on under another number: its text is the key all the same."""
        donor = socket.create_server(("127.0.0.1", 0))
        text = f"fd://{donor.fileno()}"
        old = opened(text)
        donor.detach()
        new = opened(text, inherited=passed_on(old))
        assert new.addresses[0].port == old.addresses[0].port

    def test_a_path_that_is_gone_at_the_take_over(self, opened: Open, tmp_path: Path) -> None:
        """Nothing to own, nothing to fail."""
        text = f"unix:{tmp_path}/app.sock"
        old = opened(text)
        new = opened(text, inherited=passed_on(old))
        old.close()
        new.take_over()
        new.close()
