from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable

import pytest

from tests.unit.listening import (
    CONNECTIONS,
    LOOPBACK,
    Open,
    answer_all,
    descriptors,
    linux_only,
    refusal,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


@linux_only
class TestPerSlot:
    def test_each_slot_has_its_own_socket_on_one_port(self, opened: Open) -> None:
        """Under reuseport TCP addresses have a socket for each slot, Unix ones share theirs."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex(), "127.0.0.2:0", reuseport=True)
        slots = [listeners.for_slot(slot) for slot in range(3)]
        for nth, distinct in ((0, 3), (1, 1), (2, 3)):
            assert len({sock[nth].fileno() for sock in slots}) == distinct
            assert len({sock[nth].getsockname() for sock in slots}) == 1

    def test_the_next_slot_opens_on_demand(self, opened: Open, connect: Callable[..., object]) -> None:
        """A slot past the last is opened when asked for, and gets connections once it is steered to."""
        listeners = opened(LOOPBACK, reuseport=True, slots=1)
        with pytest.raises(ValueError, match="slot 2 is not open"):
            listeners.for_slot(2)
        with pytest.raises(ValueError, match="slot -1 is not open"):
            listeners.for_slot(-1)
        listeners.for_slot(1)
        assert listeners.slots_open == 2
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert [listeners.queue_depth(slot) for slot in range(2)] == [CONNECTIONS, 0], (
            "nobody accepts there yet"
        )
        listeners.steer_below(2)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(2)) > 0

    def test_scaling_down_resets_nobody(
        self, opened: Open, connect: Callable[..., list[socket.socket]]
    ) -> None:
        """Steer away, drain, close the last slot: every client that ever connected is answered."""
        listeners = opened(LOOPBACK, reuseport=True)
        (first,), (last,) = listeners.for_slot(0), listeners.for_slot(2)
        clients = connect(first, CONNECTIONS)
        listeners.steer_below(2)
        assert repr(listeners).endswith("3 slots, steered below 2>")
        waiting = listeners.queue_depth(2)
        assert waiting > 0
        clients += connect(first, CONNECTIONS)
        assert listeners.queue_depth(2) == waiting
        answer_all(last, waiting)
        listeners.close_slot(2)
        assert repr(listeners).endswith("2 slots>")
        clients += connect(first, CONNECTIONS)
        for slot in range(2):
            answer_all(listeners.for_slot(slot)[0], listeners.queue_depth(slot))
        assert [client.recv(16) for client in clients] == [b"served"] * (3 * CONNECTIONS)

    def test_a_slot_that_comes_back_gets_connections(
        self, opened: Open, connect: Callable[..., object]
    ) -> None:
        """After scaling down and up again the kernel's hash reaches every slot, once it is steered to."""
        listeners = opened(LOOPBACK, reuseport=True)
        listeners.steer_below(2)
        listeners.close_slot(2)
        listeners.for_slot(2)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert listeners.queue_depth(2) == 0
        listeners.steer_below(3)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(3)) > 0

    def test_steering_can_be_called_off(self, opened: Open, connect: Callable[..., object]) -> None:
        """Steering below all slots is the hash again: the scale-down was taken back."""
        listeners = opened(LOOPBACK, reuseport=True)
        listeners.steer_below(1)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert [listeners.queue_depth(slot) for slot in range(3)] == [CONNECTIONS, 0, 0]
        listeners.steer_below(3)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(3)) > 0

    def test_steering_holds_while_several_slots_go(
        self, opened: Open, connect: Callable[..., object]
    ) -> None:
        """From four slots to two: the third gets nothing while the fourth is closed first."""
        listeners = opened(LOOPBACK, reuseport=True, slots=4)
        listeners.steer_below(2)
        listeners.close_slot(3)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert listeners.queue_depth(2) == 0

    def test_only_the_last_slot_may_be_closed(self, opened: Open) -> None:
        """The middle would break the steering, and the first must outlive every worker."""
        listeners = opened(LOOPBACK, reuseport=True)
        for slot in (0, 1, 3):
            with pytest.raises(ValueError, match="only the last may be"):
                listeners.close_slot(slot)
        with pytest.raises(ValueError, match="cannot be closed"):
            opened(LOOPBACK, slots=1).close_slot(0)

    @pytest.mark.parametrize("count", [0, 4, -1])
    def test_connections_are_steered_to_open_slots_only(self, opened: Open, count: int) -> None:
        """A count that leaves no slot, or means one that is not there, is a defect of the caller."""
        listeners = opened(LOOPBACK, reuseport=True)
        with pytest.raises(ValueError, match="from 1 to 3"):
            listeners.steer_below(count)
        with pytest.raises(ValueError, match="not open"):
            listeners.queue_depth(3)

    def test_a_strangers_port_is_not_shared(self, opened: Open) -> None:
        """SO_REUSEPORT would let a second master in silently; it is told that the port is in use."""
        port = opened(LOOPBACK, reuseport=True).addresses[0].port
        error = refusal(lambda: opened(f"127.0.0.1:{port}", reuseport=True))
        assert f"127.0.0.1:{port} is in use" in str(error)

    def test_a_slot_that_cannot_be_opened_changes_nothing(
        self, opened: Open, stack: contextlib.ExitStack
    ) -> None:
        """With one descriptor left and two addresses, the slot is refused whole, and can be had later."""
        listeners = opened(LOOPBACK, "127.0.0.2:0", reuseport=True, slots=1)
        before = listeners.handover()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        filler: list[int] = []
        highest = max(int(fd) for fd in descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        try:
            with contextlib.suppress(OSError):  # until none is left
                while True:
                    filler.append(os.dup(0))
            os.close(filler.pop())
            error = refusal(lambda: listeners.for_slot(1))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        assert "too many open files" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EMFILE
        assert listeners.handover() == before
        assert len(listeners.for_slot(1)) == 2
