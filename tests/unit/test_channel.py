from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import typing
from collections.abc import Callable

import pytest

from prefork import channel as channels
from prefork.channel import (
    MOST_FDS,
    Awake,
    BeAdmin,
    BeZygote,
    BootFailed,
    Channel,
    Fork,
    Forked,
    ForkFailed,
    LogLevel,
    Message,
    Parked,
    Ready,
    Renumber,
    Reopen,
    ShowStacks,
    Stacks,
    Start,
    Worn,
)
from prefork.errors import ApplicationError
from prefork.worker.reporting import failed_load, failed_serve

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

EVERY_MESSAGE: list[Message] = [
    BeAdmin("www", None, ("admin.example",)),
    BeZygote(2),
    Start(7, 3, 2),
    Start(7, 3, 2, inherited=(11, 12)),
    Start(7, 3, 2, entry=1, requests=200, log_level="debug"),
    Fork(7),
    Forked(7, 4711),
    Parked(4711),
    ForkFailed(7, "Resource temporarily unavailable"),
    Ready(),
    BootFailed("it raises ValueError: \u2603", "Traceback:\n\tline \udce9\n", is_final=True),
    BootFailed("", "", is_final=False),
    Reopen(),
    LogLevel("debug"),
    ShowStacks(5),
    Stacks(5, "thread MainThread:\n"),
    Worn("it has served 200 requests"),
    Awake(),
    Renumber(3),
]

Ends = tuple[Channel, socket.socket]


@pytest.fixture
def ends(stack: contextlib.ExitStack) -> Ends:
    """The master's end, and the bare socket of the other side."""
    ours, theirs = Channel.pair()
    stack.enter_context(theirs)
    stack.callback(ours.close)
    return ours, theirs


@pytest.fixture
def pipe(stack: contextlib.ExitStack) -> Callable[[], int]:
    """The writing end of a new pipe; both are closed after the test."""

    def make() -> int:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        return writer

    return make


def is_same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def wire(*messages: Message) -> bytes:
    """What these messages are, byte by byte."""
    near, far = socket.socketpair()
    with near, far:
        sender = Channel(near)
        for message in messages:
            sender.send(message)
        return far.recv(1 << 20)


class TestMessages:
    @pytest.mark.parametrize("message", EVERY_MESSAGE, ids=repr)
    def test_each_arrives_as_it_was_sent(self, ends: Ends, message: Message) -> None:
        """Text of any kind, tuples as tuples."""
        ours, theirs = ends
        Channel(theirs).send(message)
        assert ours.receive() == [(message, ())]

    def test_every_kind_is_known_to_the_receiver(self) -> None:
        """A message that is declared can be decoded, and this list knows them all."""
        kinds = {kind.__name__: kind for kind in typing.get_args(Message)}
        assert kinds == channels._TYPES
        assert {type(message) for message in EVERY_MESSAGE} == set(kinds.values())

    def test_several_come_in_one_read(self, ends: Ends) -> None:
        """In order."""
        ours, theirs = ends
        theirs.sendall(wire(*EVERY_MESSAGE))
        assert [message for message, _ in ours.receive()] == EVERY_MESSAGE
        assert ours.receive() == []

    def test_one_comes_byte_by_byte(self, ends: Ends) -> None:
        """Nothing until the last byte, then the whole, once."""
        ours, theirs = ends
        *first, last = wire(Forked(7, 4711))
        for byte in first:
            theirs.sendall(bytes([byte]))
            assert ours.receive() == []
        theirs.sendall(bytes([last]))
        assert ours.receive() == [(Forked(7, 4711), ())]

    @pytest.mark.parametrize("cut", range(1, 60, 7))
    def test_two_are_cut_anywhere(self, ends: Ends, cut: int) -> None:
        """The end of one and the beginning of the next in one read."""
        ours, theirs = ends
        data = wire(Forked(1, 501), Forked(2, 502))
        found = []
        for piece in (data[:cut], data[cut:]):
            theirs.sendall(piece)
            found += ours.receive()
        assert [message for message, _ in found] == [Forked(1, 501), Forked(2, 502)]

    def test_a_long_one_takes_several_reads(self, ends: Ends) -> None:
        """Longer than one read takes in."""
        ours, theirs = ends
        message = BootFailed("long", "x" * 100_000, is_final=True)
        Channel(theirs).send(message)
        assert ours.receive() == []
        assert ours.receive() == [(message, ())]

    @pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"])
    def test_every_failure_fits_the_buffer(self, letter: str) -> None:
        """A worker's end does not block: what does not fit is lost, and a failed start is taken for a crash."""
        book = letter * 1_000_000
        for failed in (
            failed_load(ApplicationError("why", book)),
            failed_load(ApplicationError(book, "details")),
            failed_load(ValueError(book)),
            failed_serve(ValueError(book)),
        ):
            ours, theirs = Channel.pair()
            theirs.setblocking(False)
            with theirs, contextlib.closing(ours):
                Channel(theirs).send(failed)

    def test_the_wire_is_a_length_and_json(self) -> None:
        """Length: 4 bytes, big-endian; then kind, fields, and how many descriptors come with it."""
        data = wire(Forked(7, 4711))
        assert struct.unpack(">I", data[:4])[0] == len(data) - 4
        assert json.loads(data[4:]) == ["Forked", {"serial": 7, "pid": 4711}, 0]


class TestDescriptors:
    def test_they_come_with_their_message(self, ends: Ends, pipe: Callable[[], int]) -> None:
        """Several messages in several reads or one: each has its own."""
        ours, theirs = ends
        first, second, third = pipe(), pipe(), pipe()
        sender = Channel(theirs)
        sender.send(Ready())
        sender.send(Start(1, 0, 1), [first, second])
        sender.send(Ready())
        sender.send(Fork(2), [third])
        found: list[tuple[Message, tuple[int, ...]]] = []
        while len(found) < 4:
            found += ours.receive()
        assert [len(fds) for _, fds in found] == [0, 2, 0, 1]
        assert [type(message) for message, _ in found] == [Ready, Start, Ready, Fork]
        got = [*found[1][1], *found[3][1]]
        assert all(is_same_file(fd, own) for fd, own in zip(got, (first, second, third), strict=True))
        for fd in got:
            os.close(fd)

    def test_as_many_as_the_kernel_carries_come_at_once(self, ends: Ends, pipe: Callable[[], int]) -> None:
        """A fleet may serve that many addresses."""
        ours, theirs = ends
        Channel(theirs).send(Start(1, 0, 1), [pipe()] * MOST_FDS)
        [(_, fds)] = ours.receive()
        for fd in fds:
            os.close(fd)
        assert len(fds) == MOST_FDS

    def test_they_wait_for_the_rest_of_their_message(self, ends: Ends, pipe: Callable[[], int]) -> None:
        """They travel with its first byte, and are given out with its last."""
        ours, theirs = ends
        writer = pipe()
        body = json.dumps(["Fork", {"serial": 2}, 1]).encode()
        data = struct.pack(">I", len(body)) + body
        socket.send_fds(theirs, [data[:1]], [writer])
        assert ours.receive() == []
        theirs.sendall(data[1:])
        ((message, fds),) = ours.receive()
        assert message == Fork(2)
        assert is_same_file(fds[0], writer)
        os.close(fds[0])

    def test_they_are_not_inherited_by_programs(self, ends: Ends, pipe: Callable[[], int]) -> None:
        """A worker that starts a program does not hand its channel and its listeners on."""
        ours, theirs = ends
        writer = pipe()
        os.set_inheritable(writer, True)
        Channel(theirs).send(Fork(1), [writer])
        ((_, fds),) = ours.receive()
        assert not os.get_inheritable(fds[0])
        os.close(fds[0])


OUT_OF_DESCRIPTORS = """
import os, resource, socket
from prefork.channel import Channel, Fork, Ready, Start

near, far = socket.socketpair()
sender, receiver = Channel(near), Channel(far)
pipes = [os.pipe()[1] for _ in range({given})]
sender.send(Start(1, 0, 1), pipes)
sender.send(Ready())
free = [os.dup(0) for _ in range({free})]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), 4096))
for fd in free:
    os.close(fd)
before = sorted(os.listdir("/dev/fd")) if {free} else None
found = []
while len(found) < 2:
    found += receiver.receive()
assert found == [(Start(1, 0, 1), ()), (Ready(), ())], found
if before:
    assert sorted(os.listdir("/dev/fd")) == before, "what did arrive is closed"
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
sender.send(Fork(2), pipes[:1])
((message, fds),) = receiver.receive()
assert message == Fork(2) and len(fds) == 1
print("fine")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tells lost descriptors as Linux does")
@pytest.mark.parametrize(("given", "free"), [(1, 0), (3, 0), (3, 1), (3, 2)])
def test_without_free_descriptors_the_message_comes_without_any(given: int, free: int) -> None:
    """EMFILE at the receiver: all or nothing; the stream goes on, and the next message has its own again."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("the limit of this machine is too low to be lowered")
    code = OUT_OF_DESCRIPTORS.format(given=given, free=free)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=90
    )
    assert ran.stdout.strip() == "fine", ran.stderr


class TestTheEnd:
    def test_the_other_side_is_gone(self, ends: Ends) -> None:
        """End-of-file: closed, and nothing more comes."""
        ours, theirs = ends
        theirs.close()
        assert ours.has_waiting(0)
        assert ours.receive() == []
        assert ours.is_closed
        assert ours.receive() == []

    def test_last_words_are_heard_first(self, ends: Ends) -> None:
        """What was said before the end is not lost with it."""
        ours, theirs = ends
        Channel(theirs).send(Ready())
        theirs.close()
        assert ours.receive() == [(Ready(), ())]
        assert not ours.is_closed
        assert ours.receive() == []
        assert ours.is_closed

    def test_a_reset_is_an_end_too(self, ends: Ends) -> None:
        """It left with our message unread (ECONNRESET)."""
        ours, theirs = ends
        ours.send(Reopen())
        theirs.close()
        assert ours.receive() == []
        assert ours.is_closed

    def test_half_a_message_is_none(self, ends: Ends) -> None:
        """It died while it spoke."""
        ours, theirs = ends
        theirs.sendall(wire(Ready())[:-1])
        theirs.close()
        assert ours.receive() == []
        assert ours.receive() == []
        assert ours.is_closed

    @pytest.mark.parametrize("text", [b"Hello, world!\n", b"\0\0\0\5hello", b"\0\0\0\2{}"])
    def test_what_is_no_message_of_ours_is_heard_no_more(self, ends: Ends, text: bytes) -> None:
        """A program writes on a descriptor that it knows nothing of: its letters are no length to wait for."""
        ours, theirs = ends
        theirs.sendall(text)
        assert ours.receive() == []
        assert ours.is_closed

    def test_descriptors_of_half_a_message_are_not_kept(self, ends: Ends, pipe: Callable[[], int]) -> None:
        """They came with its first bytes; the channel is closed, and they with it."""
        ours, theirs = ends
        socket.send_fds(theirs, [wire(Fork(2))[:-1]], [pipe()])
        assert ours.receive() == []
        ours.close()  # the fixture sees what is left open

    def test_nobody_is_there_to_hear(self, ends: Ends) -> None:
        """BrokenPipeError: an OSError, which every sender expects."""
        ours, theirs = ends
        theirs.close()
        with pytest.raises(BrokenPipeError):
            ours.send(Reopen())

    def test_a_process_that_does_not_read_delays_nobody(self, ends: Ends) -> None:
        """The master's end does not block: full is an error."""
        ours, _ = ends

        def send_for_ever() -> None:
            while True:
                ours.send(Reopen())

        with pytest.raises(BlockingIOError):
            send_for_ever()

    def test_to_finish_is_to_go_on_listening(self, ends: Ends) -> None:
        """The other side reads end-of-file, and its answer is still heard."""
        ours, theirs = ends
        other = Channel(theirs)
        ours.finish()
        assert other.receive() == []
        assert other.is_closed
        other.send(Forked(1, 501))
        assert ours.receive() == [(Forked(1, 501), ())]
        theirs.close()
        ours.finish()

    def test_it_is_cut_when_the_other_side_is_gone(self, ends: Ends) -> None:
        """Not when that one says no more; and what it has said before is still there."""
        ours, theirs = ends
        other = Channel(theirs)
        other.send(Ready())
        other.finish()
        assert not ours.is_cut()
        other.close()
        assert ours.is_cut()
        assert ours.receive() == [(Ready(), ())]

    def test_a_closed_end_says_and_hears_nothing(self, ends: Ends) -> None:
        """Nor is it an error to ask."""
        ours, _ = ends
        ours.close()
        assert ours.is_closed
        assert ours.receive() == []
        ours.close()

    def test_nothing_waits_in_a_quiet_channel(self, ends: Ends) -> None:
        """Asking does not block."""
        ours, theirs = ends
        assert not ours.has_waiting(0)
        assert ours.receive() == []
        assert not ours.is_closed
        Channel(theirs).send(Ready())
        assert ours.has_waiting(0)
