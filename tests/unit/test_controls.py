"""The control socket as the master sees it, with real clients: nobody is waited for, and everything is bounded."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from prefork import control
from prefork.control import Done, Failed, Progress
from prefork.errors import AddressError
from prefork.master import events as e
from prefork.master.controls import MOST_CLIENTS, UNREAD_BYTES, Controls, _is_allowed

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")
STATUS = control.encode(control.Status())
PATIENCE_S = 45.0


@pytest.fixture
def controls(tmp_path: Path) -> Iterator[Controls]:
    made = Controls(str(tmp_path / "control"))
    made.open()
    yield made
    made.close()


class Caller:
    """A client, as raw as can be."""

    def __init__(self, controls: Controls) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(controls.path)

    def say(self, data: bytes) -> Caller:
        self.sock.sendall(data)
        return self

    def hear(self) -> list[dict[str, Any]]:
        """All until the end of the connection."""
        data = b""
        while chunk := self.sock.recv(65536):
            data += chunk
        return [json.loads(line) for line in data.splitlines()]

    def line(self) -> dict[str, Any]:
        """The next line."""
        data = b""
        while not data.endswith(b"\n"):
            data += self.sock.recv(1)
        found: dict[str, Any] = json.loads(data)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def is_quiet(controls: Controls) -> bool:
    """Whether there is nothing that would wake the master up."""
    poll = select.poll()
    poll.register(controls.fileno(), select.POLLIN)
    return not poll.poll(0)


def take(controls: Controls) -> list[e.Event]:
    """All that there is to take."""
    events: list[e.Event] = []
    while not is_quiet(controls):
        events += controls.take()
    return events


def answer(controls: Controls, client: int, said: control.Answer) -> list[e.Event]:
    return list(controls.answer(client, said))


class TestThePath:
    def test_only_its_owner_may_connect(self, controls: Controls) -> None:
        """Mode 0600."""
        assert stat.S_IMODE(Path(controls.path).stat().st_mode) == 0o600

    def test_it_is_gone_at_the_end(self, controls: Controls) -> None:
        """And a second close is none."""
        controls.close()
        controls.close()
        assert not Path(controls.path).exists()

    def test_one_that_is_in_use_is_refused(self, controls: Controls) -> None:
        """Two masters would answer in turns."""
        other = Controls(controls.path)
        with pytest.raises(AddressError, match="in use by a running program"):
            other.open()
        other.close()
        assert Path(controls.path).exists()

    def test_a_stale_one_is_replaced(self, tmp_path: Path) -> None:
        """Its master was killed."""
        path = tmp_path / "control"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        controls = Controls(str(path))
        controls.open()
        with Caller(controls).say(STATUS):
            assert take(controls)
        controls.close()

    def test_a_successor_takes_it_over(self, controls: Controls) -> None:
        """At every moment somebody answers; the old one's clients stay its own, and its end takes nothing away."""
        successor = Controls(controls.path)
        with Caller(controls).say(STATUS) as old:
            successor.open(takes_over=True)
            with Caller(successor).say(STATUS) as new:
                (asked,) = take(controls)
                assert isinstance(asked, e.Asked)
                answer(controls, asked.client, Done("old"))
                controls.close()
                (asked,) = take(successor)
                assert isinstance(asked, e.Asked)
                answer(successor, asked.client, Done("new"))
                assert (old.line()["text"], new.line()["text"]) == ("old", "new")
        assert Path(successor.path).exists()
        successor.close()
        assert list(Path(successor.path).parent.iterdir()) == []

    def test_a_forks_copy_does_not_remove_it(
        self, controls: Controls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The zygote closes its copy; the path is the master's."""
        monkeypatch.setattr(os, "getpid", lambda: 1)
        controls.close()
        assert Path(controls.path).exists()


class TestAClient:
    def test_asks_and_is_answered(self, controls: Controls) -> None:
        """Progress first, the last word last, then the next request."""
        with Caller(controls).say(control.encode(control.Reload())) as caller:
            assert take(controls) == [e.Asked(1, control.Reload())]
            answer(controls, 1, Progress("on its way"))
            assert caller.line() == {"answer": "progress", "text": "on its way"}
            answer(controls, 1, Done("there"))
            assert caller.line() == {"answer": "done", "text": "there"}
            caller.say(STATUS)
            assert take(controls) == [e.Asked(1, control.Status())]

    def test_says_a_request_byte_by_byte(self, controls: Controls) -> None:
        """Nothing is asked until the line is whole."""
        with Caller(controls) as caller:
            for byte in STATUS[:-1]:
                caller.say(bytes([byte]))
                assert take(controls) == []
            caller.say(b"\n")
            assert take(controls) == [e.Asked(1, control.Status())]

    def test_says_several_at_once(self, controls: Controls) -> None:
        """One after the other, each when the last has been answered."""
        with Caller(controls).say(STATUS + control.encode(control.Reload())) as caller:
            assert take(controls) == [e.Asked(1, control.Status())]
            assert answer(controls, 1, Done("one")) == [e.Asked(1, control.Reload())]
            assert answer(controls, 1, Done("two")) == []
            assert [caller.line()["text"], caller.line()["text"]] == ["one", "two"]

    def test_says_nonsense(self, controls: Controls) -> None:
        """It is told what was wrong, and may try again; the plan hears nothing of it."""
        with Caller(controls).say(b"hello\n\n" + STATUS) as caller:
            assert take(controls) == [e.Asked(1, control.Status())]
            assert [caller.line()["answer"] for _ in range(2)] == ["failed", "failed"]

    def test_says_too_much(self, controls: Controls) -> None:
        """Told, and let go of."""
        with Caller(controls).say(b"x" * (control.LINE_BYTES + 1)) as caller:
            assert take(controls) == [e.ClientLeft(1)]
            assert "bytes at most" in caller.line()["text"]
            assert caller.sock.recv(1) == b""

    def test_says_too_much_while_it_waits(self, controls: Controls) -> None:
        """What it sends meanwhile is bounded, too."""
        with Caller(controls).say(STATUS + b"x" * 2 * control.LINE_BYTES):
            assert take(controls) == [e.Asked(1, control.Status()), e.ClientLeft(1)]

    def test_says_nothing(self, controls: Controls) -> None:
        """It costs nothing."""
        with Caller(controls):
            assert take(controls) == []
            assert is_quiet(controls)

    def test_reads_nothing(self, controls: Controls) -> None:
        """No answer waits for it, and past a bound it is let go of."""
        with Caller(controls).say(STATUS):
            take(controls)
            told: list[e.Event] = []
            for _ in range(2 * UNREAD_BYTES // 1000):
                told += answer(controls, 1, Progress("x" * 1000))
            assert told == [e.ClientLeft(1)]
            assert is_quiet(controls)

    def test_reads_late(self, controls: Controls) -> None:
        """What did not fit at once comes when there is room."""
        with Caller(controls).say(STATUS) as caller:
            take(controls)
            caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            text = "x" * (UNREAD_BYTES - 1000)
            assert answer(controls, 1, Done(text)) == []
            caller.sock.setblocking(False)
            data = b""
            while not data.endswith(b"\n"):
                try:
                    data += caller.sock.recv(65536)
                except BlockingIOError:
                    assert take(controls) == []
            assert json.loads(data)["text"] == text
            assert is_quiet(controls)

    def test_leaves_while_it_waits(self, controls: Controls) -> None:
        """Known when it is to be told something; until then it is no wake-up."""
        with Caller(controls).say(STATUS):
            take(controls)
        assert take(controls) == []
        assert is_quiet(controls)
        assert answer(controls, 1, Progress("still there?")) == [e.ClientLeft(1)]
        assert answer(controls, 1, Done("anybody?")) == []

    def test_leaves_without_a_word(self, controls: Controls) -> None:
        """Nothing is left of it."""
        with Caller(controls):
            take(controls)
        assert take(controls) == [e.ClientLeft(1)]
        assert is_quiet(controls)

    def test_closes_its_sending_side_and_reads_its_answer(self, controls: Controls) -> None:
        """As `nc -N` does."""
        with Caller(controls).say(STATUS) as caller:
            caller.sock.shutdown(socket.SHUT_WR)
            assert take(controls) == [e.Asked(1, control.Status())]
            assert answer(controls, 1, Done("here")) == [e.ClientLeft(1)]
            assert [line["text"] for line in caller.hear()] == ["here"]
            assert is_quiet(controls)


class TestManyClients:
    def test_who_waits_for_nothing_makes_room(self, controls: Controls) -> None:
        """The first to come first; whoever has asked stays."""
        busy = Caller(controls).say(STATUS)
        assert len(take(controls)) == 1
        idle = [Caller(controls) for _ in range(MOST_CLIENTS - 1)]
        take(controls)
        with Caller(controls).say(STATUS) as late:
            asked = [event for event in take(controls) if isinstance(event, e.Asked)]
            assert len(asked) == 1
            answer(controls, asked[0].client, Done("late"))
            assert late.line()["text"] == "late"
        assert idle[0].sock.recv(1) == b""
        answer(controls, 1, Done("busy"))
        assert busy.line()["text"] == "busy"
        for caller in (busy, *idle):
            caller.sock.close()

    def test_where_all_wait_the_next_is_turned_away(self, controls: Controls) -> None:
        """With a word."""
        callers = [Caller(controls).say(STATUS) for _ in range(MOST_CLIENTS)]
        take(controls)
        with Caller(controls) as late:
            assert take(controls) == []
            assert "not now" in late.line()["text"]
            assert late.sock.recv(1) == b""
        for caller in callers:
            caller.sock.close()

    @pytest.mark.parametrize(("uid", "is_allowed"), [(0, True), (500, True), (1000, False)])
    def test_a_stranger_is_not_heard(
        self, monkeypatch: pytest.MonkeyPatch, uid: int, *, is_allowed: bool
    ) -> None:
        """Whatever the mode of the path is by now: the kernel says who has connected."""
        monkeypatch.setattr(os, "geteuid", lambda: 500)
        ucred = struct.pack("=iII", 4711, uid, uid)
        peer: Any = SimpleNamespace(getsockopt=lambda *_: ucred)
        assert _is_allowed(peer) == is_allowed

    def test_without_a_descriptor_the_connection_does_not_wait(self, controls: Controls) -> None:
        """It is closed, or it would wake the master up again and again."""
        with Caller(controls) as caller:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
            try:
                with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                    os.dup(0)
                assert take(controls) == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert caller.sock.recv(1) == b""
            with Caller(controls).say(STATUS):
                assert len(take(controls)) == 1


def test_failed_is_a_last_word() -> None:
    """As all but progress are."""
    assert Failed in control.FINAL


class TestTheAdminProcess:
    """At the other end of a pair of sockets; strangers may reach it, so it may only look."""

    def test_asks_how_the_fleet_is(self, controls: Controls) -> None:
        """As anybody."""
        near, far = socket.socketpair()
        controls.adopt(near)
        with far:
            far.sendall(STATUS)
            (asked,) = take(controls)
            assert isinstance(asked, e.Asked)
            assert asked.request == control.Status()

    @pytest.mark.parametrize(
        "request_", [control.Stop(), control.Reload(), control.LogLevel("debug")], ids=repr
    )
    def test_may_ask_for_nothing_else(self, controls: Controls, request_: control.Request) -> None:
        """It is told so, and nothing of it reaches the fleet."""
        near, far = socket.socketpair()
        controls.adopt(near)
        with far:
            far.sendall(control.encode(request_))
            assert take(controls) == []
            assert json.loads(far.recv(65536)) == {
                "answer": "failed",
                "text": "the admin process may only look",
            }

    def test_keeps_its_place(self, controls: Controls) -> None:
        """However many come, and although it waits for nothing."""
        near, far = socket.socketpair()
        controls.adopt(near)
        callers = [Caller(controls) for _ in range(MOST_CLIENTS + 1)]
        take(controls)
        with far:
            far.sendall(STATUS)
            assert [type(event) for event in take(controls)] == [e.Asked]
        for caller in callers:
            caller.sock.close()


def test_without_a_path_only_the_admin_process_is_heard(tmp_path: Path) -> None:
    """A program with an admin process and no control socket: there is no file, now or after an upgrade."""
    controls = Controls("")
    controls.open()
    controls.open(takes_over=True)
    near, far = socket.socketpair()
    controls.adopt(near)
    with far:
        far.sendall(STATUS)
        assert len(take(controls)) == 1
    controls.close()
