from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from prefork import system
from prefork.channel import BootFailed, Channel, Ready
from prefork.errors import ForkWithThreadsError
from prefork.worker.nursery import BeWorker, Parked, park
from tests.unit.listening import descriptors

pytestmark = [
    pytest.mark.usefixtures("no_descriptor_leaks"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper"),
]

PATIENCE_MS = 10_000
STATUS = 42


def nothing() -> None:
    """A zygote that holds nothing of its own."""


def work(channel: Channel) -> NoReturn:
    """Say that it works, and leave."""
    channel.send(Ready())
    os._exit(STATUS)


def open_now() -> list[int]:
    """As `descriptors`, without the one that they are read through."""
    found = []
    for fd in map(int, descriptors()):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found.append(fd)
    return found


def tell_descriptors(channel: Channel) -> NoReturn:
    """Say which descriptors there are, and which is the channel."""
    channel.send(BootFailed(json.dumps([channel.fileno(), *open_now()]), "", is_final=False))
    os._exit(0)


class Nursery:
    """This process as a zygote, and as the master: it is the nearest subreaper."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def park(
        self, be_worker: BeWorker = work, let_go: Callable[[], object] = nothing
    ) -> tuple[Parked, system.Process]:
        """One parked process, and a hold on it."""
        parked = park(let_go, lambda: be_worker)
        process = system.Process(parked.pid)
        self._stack.callback(process.close)
        self._stack.callback(process.end, PATIENCE_MS)
        self._stack.callback(parked.line.close)
        return parked, process

    def give(self, parked: Parked) -> Channel:
        """Make it a worker; returns the master's end of its channel."""
        ours, theirs = Channel.pair()
        self._stack.callback(ours.close)
        with theirs:
            parked.give(theirs.fileno())
        return ours

    def status_of(self, process: system.Process) -> tuple[int | None, int | None]:
        """How it ended: (exit code, signal)."""
        process_ended(process)
        status = process.poll()
        assert status is not None
        return status


def process_ended(process: system.Process) -> None:
    poll = select.poll()
    poll.register(process.fd, select.POLLIN)
    assert poll.poll(PATIENCE_MS), "it does not end"


def heard(channel: Channel) -> object:
    """The first message that comes."""
    while True:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        assert poll.poll(PATIENCE_MS), "it says nothing"
        messages = channel.receive()
        if messages or channel.is_closed:
            return messages[0][0] if messages else None


@pytest.fixture
def nursery(no_descriptor_leaks: None) -> Iterator[Nursery]:
    with system.subreaper(), contextlib.ExitStack() as stack:
        yield Nursery(stack)


class TestAParkedProcess:
    def test_with_a_channel_it_is_a_worker(self, nursery: Nursery) -> None:
        """It runs at once, speaks to the master, and its status is its own."""
        parked, process = nursery.park()
        assert heard(nursery.give(parked)) == Ready()
        assert nursery.status_of(process) == (STATUS, None)

    def test_it_is_the_masters_child_when_its_pid_is_told(self, nursery: Nursery) -> None:
        """The process between is gone and reaped by then: nobody else is left to be waited for."""
        parked, process = nursery.park()
        assert process.poll() is None, "waitid(2) knows it as our child"
        assert system.zombie_children() == []
        assert parked.pid not in (os.getpid(), os.getppid())

    def test_it_leaves_when_the_zygote_does(self, nursery: Nursery) -> None:
        """End-of-file on its line: nobody will ever make a worker of it."""
        parked, process = nursery.park()
        parked.line.close()
        assert nursery.status_of(process) == (0, None)

    def test_one_that_somebody_killed_cannot_be_given_anything(self, nursery: Nursery) -> None:
        """BrokenPipeError: the zygote forks another then."""
        parked, process = nursery.park()
        process.send(signal.SIGKILL)
        process_ended(process)
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(BrokenPipeError):
            parked.give(theirs.fileno())
        assert parked.line.fileno() == -1
        assert nursery.status_of(process) == (None, signal.SIGKILL)

    def test_several_wait_side_by_side(self, nursery: Nursery) -> None:
        """Each leaves and works by itself, if it has let go of the others' lines."""
        first, one = nursery.park()
        second, two = nursery.park(let_go=first.line.close)
        first.line.close()
        assert nursery.status_of(one) == (0, None)
        assert heard(nursery.give(second)) == Ready()
        assert nursery.status_of(two) == (STATUS, None)

    def test_without_a_free_descriptor_for_its_channel_it_fails(self, nursery: Nursery) -> None:
        """The master sees end-of-file, and an exit status that is a crash."""

        def have_none_left() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

        parked, process = nursery.park(let_go=have_none_left)
        assert heard(nursery.give(parked)) is None
        assert nursery.status_of(process) == (1, None)

    def test_it_grows_up_before_it_is_wanted(self, nursery: Nursery) -> None:
        """While nobody waits for it, and after it has let go of what is the zygote's."""
        reader, writer = os.pipe()
        done: list[bytes] = []

        def let_go() -> None:
            done.append(b"let go")

        def grow_up() -> BeWorker:
            os.write(writer, b", ".join([*done, b"grown up"]))
            return work

        parked = park(let_go, grow_up)
        os.close(writer)
        assert os.read(reader, 64) == b"let go, grown up"
        os.close(reader)
        assert heard(nursery.give(parked)) == Ready()
        os.waitpid(parked.pid, 0)

    def test_what_a_worker_raises_never_reaches_the_zygotes_code(self, nursery: Nursery) -> None:
        """The stack below it is a copy of this test's."""

        def break_down(channel: Channel) -> NoReturn:
            raise SystemExit(0)

        parked, process = nursery.park(break_down)
        nursery.give(parked)
        assert nursery.status_of(process) == (1, None)


class TestDescriptors:
    def test_the_worker_has_its_channel_and_nothing_of_ours(self, nursery: Nursery) -> None:
        """Neither pipes nor lines that we opened for it, nor what `let_go` closes."""
        before = descriptors()
        held = os.open(os.devnull, os.O_RDONLY)
        try:
            parked, _ = nursery.park(tell_descriptors, lambda: os.close(held))
        finally:
            os.close(held)
        told = heard(nursery.give(parked))
        assert isinstance(told, BootFailed)
        channel, *found = json.loads(told.summary)
        assert set(found) - {int(fd) for fd in before} <= {channel}, found
        assert channel in found

    def test_the_zygote_keeps_one_line(self, nursery: Nursery) -> None:
        """And that is closed with the gift."""
        before = len(descriptors())
        parked = park(nothing, lambda: work)
        assert len(descriptors()) == before + 1
        ours, theirs = socket.socketpair()
        with ours, theirs:
            parked.give(theirs.fileno())
        assert len(descriptors()) == before
        os.waitpid(parked.pid, 0)

    def test_neither_end_is_inherited_by_programs(self, nursery: Nursery) -> None:
        """A worker that starts a program keeps its channel to itself."""

        def tell_inheritable(channel: Channel) -> NoReturn:
            channel.send(BootFailed(str(os.get_inheritable(channel.fileno())), "", is_final=False))
            os._exit(0)

        parked, _ = nursery.park(tell_inheritable)
        assert not parked.line.get_inheritable()
        told = heard(nursery.give(parked))
        assert isinstance(told, BootFailed)
        assert told.summary == "False"


class TestNoProcessIsLeft:
    @pytest.mark.parametrize("allowed", [0, 1])
    @pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
    def test_either_fork_may_fail(
        self, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, allowed: int, number: int
    ) -> None:
        """The second fails in the process between, whose status is its errno; nothing stays open, nobody is left."""
        forks, real = [], os.fork

        def fork() -> int:
            forks.append(1)
            if len(forks) > allowed:
                raise OSError(number, os.strerror(number))
            return real()

        monkeypatch.setattr(os, "fork", fork)
        before = descriptors()
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            park(nothing, lambda: work)
        assert caught.value.errno == number
        assert descriptors() == before
        assert system.zombie_children() == []

    def test_no_descriptor_may_be_left(self, nursery: Nursery) -> None:
        """EMFILE before anything was forked: what was opened is closed."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = descriptors()
        taken = max(map(int, before))
        for free in range(4):
            filler = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 8, hard))
            try:
                with contextlib.suppress(OSError):  # until none is left
                    while True:
                        filler.append(os.dup(0))
                for _ in range(free):
                    os.close(filler.pop())
                with pytest.raises(OSError, match="Too many open files"):
                    park(nothing, lambda: work)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in filler:
                    os.close(fd)
            assert descriptors() == before

    def test_threads_are_refused_by_name(self, nursery: Nursery) -> None:
        """Their locks would be copied locked."""
        done = threading.Event()
        thread = threading.Thread(target=done.wait, name="metrics-exporter")
        thread.start()
        before = descriptors()
        try:
            with pytest.raises(ForkWithThreadsError, match="metrics-exporter"):
                park(nothing, lambda: work)
        finally:
            done.set()
            thread.join()
        assert descriptors() == before
