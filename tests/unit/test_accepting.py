"""Who accepts, who waits, and what happens where nothing can be accepted; on both loops, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import pytest
import trustme
import uvloop

from prefork.http import accepting, admission
from prefork.http.accepting import Acceptor
from prefork.http.admission import Acceptors, connection_limit
from prefork.http.connections import Connections
from prefork.http.siblings import HUNG_AFTER_S, HUNG_S, Siblings
from prefork.scoreboard import NOT_ACCEPTING, Entry, Scoreboard

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
on_both_loops = pytest.mark.parametrize("loop", LOOPS)
LIMIT_S = 45.0


def run(loop: str, story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await story()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here clients share the worker's loop, and their work is not its own."""
    monkeypatch.setattr(accepting, "LONG_TURN_S", math.inf)


class Greeter(asyncio.Protocol):
    """Greets whoever is connected."""

    def __init__(self, connections: Connections[Any]) -> None:
        self.connections = connections
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connections.add(self)
        transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


class House:
    """A worker's accepting side, its listener, and clients."""

    def __init__(self, listener: socket.socket | None = None, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.connections: Connections[Any] = Connections(loop.time, is_told_of_failures=True)
        self.acceptors = Acceptors(
            self.connections, lambda _preface: Greeter(self.connections), **{"limit": 1000, **options}
        )
        self.listener = listener or socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1000)
        self.clients: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        self.acceptors.start([self.listener])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.acceptors.stop()
        for client in self.clients:
            client.close()
        while self.connections.count:  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.listener.close()

    @property
    def acceptor(self) -> Acceptor:
        return self.acceptors._acceptors[0]

    def connect(self) -> socket.socket:
        """A client that is in the kernel's queue when this returns."""
        client = socket.create_connection(self.listener.getsockname())
        client.setblocking(False)
        self.clients.append(client)
        return client

    async def greeted(self, client: socket.socket) -> bool:
        return await self.loop.sock_recv(client, 5) == b"hello"

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110  (the loop's next turn, not a time)
            await asyncio.sleep(0)


@pytest.fixture
def board() -> Iterator[tuple[Entry, Entry]]:
    """The record of the worker under test, and that of its sibling."""
    board = Scoreboard.create(2)
    ours, theirs = (Entry(board.fileno(), board.take() or 0) for _ in range(2))
    yield ours, theirs
    ours.close()
    theirs.close()
    board.close()


@pytest.fixture
def three() -> Iterator[list[Entry]]:
    """Three workers on one page."""
    board = Scoreboard.create(3)
    entries = [Entry(board.fileno(), board.take() or 0) for _ in range(3)]
    yield entries
    for entry in entries:
        entry.close()
    board.close()


def is_waiting(client: socket.socket) -> bool:
    """Nobody has greeted it, and it has not been reset."""
    with contextlib.suppress(BlockingIOError):
        assert client.recv(1, socket.MSG_PEEK), "it was closed"
        return False
    return True


# -- the limit ------------------------------------------------------------------------------------


@on_both_loops
def test_a_full_worker_takes_the_next_when_one_leaves(loop: str) -> None:
    """Two may come in; the others wait in the kernel's queue, none is reset, and each has its turn."""

    async def story() -> None:
        async with House(limit=2) as house:
            clients = [house.connect() for _ in range(5)]
            assert await house.greeted(clients[0])
            assert await house.greeted(clients[1])
            for leaving, next_one in zip(clients, clients[2:], strict=False):
                await asyncio.sleep(0)
                assert house.connections.count == 2
                assert not house.acceptor.is_reading
                assert is_waiting(next_one)
                leaving.close()
                assert await house.greeted(next_one)

    run(loop, story)


@on_both_loops
def test_a_full_worker_lets_nobody_wait_for_it(loop: str, board: tuple[Entry, Entry]) -> None:
    ours, theirs = board

    async def story() -> None:
        async with House(limit=1, entry=ours) as house:
            assert theirs.loads()[ours.index] == 0
            client = house.connect()
            assert await house.greeted(client)
            assert theirs.loads()[ours.index] == NOT_ACCEPTING
            client.close()
            await house.until(lambda: theirs.loads()[ours.index] == 0)
        assert theirs.loads()[ours.index] == NOT_ACCEPTING

    run(loop, story)


@on_both_loops
def test_a_failed_handshake_gives_its_place_back(loop: str) -> None:
    """A full worker whose only client speaks no TLS serves the next one."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def story() -> None:
        async with House(limit=1, context=context) as house:
            stranger = house.connect()
            await house.until(lambda: house.connections.count == 1)
            waiting = house.connect()
            await asyncio.sleep(0)
            assert not house.acceptor.is_reading
            stranger.send(b"GET / HTTP/1.1\r\n\r\n")
            reader, writer = await asyncio.open_connection(
                sock=waiting, ssl=trusting, server_hostname="localhost"
            )
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    run(loop, story)


def test_descriptors_bound_the_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert connection_limit(100) == 100
        assert connection_limit(10_000) == 512 - admission.SPARE_DESCRIPTORS
        resource.setrlimit(resource.RLIMIT_NOFILE, (96, before[1]))
        assert connection_limit(10_000) == 48
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- who goes first -------------------------------------------------------------------------------


@on_both_loops
def test_who_has_no_more_than_the_others_does_not_wait(loop: str, board: tuple[Entry, Entry]) -> None:
    ours, theirs = board
    theirs.set_load(3)

    async def story() -> None:
        async with House(entry=ours) as house:
            for _ in range(4):
                assert await house.greeted(house.connect())
                assert house.acceptor._timer is None
            assert theirs.loads()[ours.index] == 4

    run(loop, story)


@on_both_loops
def test_a_freer_sibling_goes_first(
    loop: str, board: tuple[Entry, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """We have one more, so the client waits; when the sibling has as many, it is ours."""
    monkeypatch.setattr(accepting, "PATIENCE_S", 60.0)
    ours, theirs = board
    theirs.set_load(0)

    async def story() -> None:
        async with House(entry=ours) as house:
            assert await house.greeted(house.connect())
            client = house.connect()
            await house.until(lambda: not house.acceptor.is_reading)
            assert is_waiting(client)
            theirs.set_load(1)
            assert await house.greeted(client)
            assert not house.acceptors.siblings._still, "it was our turn, not the end of our patience"

    run(loop, story)


@on_both_loops
def test_a_connection_that_leaves_ends_the_wait(
    loop: str, board: tuple[Entry, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """We wait for a sibling, and are as free as it is all of a sudden: that is heard of at once."""
    monkeypatch.setattr(accepting, "LOOK_S", 1000.0)
    ours, theirs = board
    theirs.set_load(0)

    async def story() -> None:
        async with House(entry=ours) as house:
            first = house.connect()
            assert await house.greeted(first)
            client = house.connect()
            await house.until(lambda: not house.acceptor.is_reading)
            first.close()
            assert await house.greeted(client)

    run(loop, story)


@on_both_loops
def test_who_replaces_waits_for_nobody(
    loop: str, board: tuple[Entry, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three have left, so two are taken though a sibling has fewer; the third has to wait, as ever."""
    monkeypatch.setattr(admission, "VACATED_S", 1000.0)
    monkeypatch.setattr(accepting, "LOOK_S", 1000.0)
    ours, theirs = board
    theirs.set_load(3)

    async def story() -> None:
        async with House(entry=ours) as house:
            clients = [house.connect() for _ in range(3)]
            for client in clients:
                assert await house.greeted(client)
            for client in clients[:2]:
                client.close()
            await house.until(lambda: house.connections.count == 1)
            theirs.set_load(0)
            assert await house.greeted(house.connect())
            assert await house.greeted(house.connect())
            client = house.connect()
            await house.until(lambda: not house.acceptor.is_reading)
            assert is_waiting(client)

    run(loop, story)


@on_both_loops
def test_a_place_is_vacant_for_a_moment_only(
    loop: str, board: tuple[Entry, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "VACATED_S", 0.0)
    ours, theirs = board
    theirs.set_load(2)

    async def story() -> None:
        async with House(entry=ours) as house:
            clients = [house.connect() for _ in range(3)]
            for client in clients:
                assert await house.greeted(client)
            clients[0].close()
            await house.until(lambda: house.connections.count == 2)
            assert not house.acceptors.has_vacancy()

    run(loop, story)


@on_both_loops
def test_patience_has_an_end(loop: str, board: tuple[Entry, Entry]) -> None:
    """A sibling that is stopped delays a client by no more than the bound, and then delays nobody for a while."""
    ours, theirs = board
    theirs.set_load(0)

    async def story() -> None:
        async with House(entry=ours) as house:
            assert await house.greeted(house.connect())
            while house.acceptors.freer_siblings():
                begun_s = house.loop.time()
                assert await house.greeted(house.connect())
                assert house.loop.time() - begun_s >= accepting.PATIENCE_S - 0.001
                assert house.connections.count < 8
            assert await house.greeted(house.connect())
            assert house.acceptor._timer is None, "nobody waits for the hung"
            theirs.set_load(1)
            assert house.acceptors.freer_siblings() == {theirs.index: 1}, "it has moved, so it lives"

    run(loop, story)


@on_both_loops
def test_a_busy_worker_takes_several_ahead_of_the_others(
    loop: str, board: tuple[Entry, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a turn that is long anyway; by an eighth, and no further."""
    ours, theirs = board
    few = accepting.FEW
    theirs.set_load(few)
    monkeypatch.setattr(accepting, "LONG_TURN_S", 0.0)
    monkeypatch.setattr(accepting, "RECENT_S", math.inf)
    monkeypatch.setattr(accepting, "PATIENCE_S", 60.0)

    async def story() -> None:
        async with House(entry=ours) as house:
            clients = [house.connect() for _ in range(few + few // accepting.AHEAD_SHARE + 4)]
            await house.until(lambda: house.acceptor._timer is not None)
            ahead = house.connections.count - few
            assert ahead == few // accepting.AHEAD_SHARE, "then it lets the other go first"
            theirs.set_load(few + 4)
            for client in clients:
                assert await house.greeted(client)

    run(loop, story)


def hung_in(siblings: Siblings, mine: int, clock: list[float]) -> list[int]:
    """Wait for whom they say, again and again, until it is our turn: whom we have waited for, in order."""
    waited_for: list[int] = []
    begun_s = clock[0]
    while freer := siblings.freer(mine):
        waited_for += [index for index in freer if index not in waited_for]
        since_s = clock[0]
        clock[0] += accepting.PATIENCE_S
        siblings.waited(freer, since_s)
        assert clock[0] - begun_s < 1.0, "for ever"
    return waited_for


def test_only_the_least_loaded_are_waited_for(three: list[Entry]) -> None:
    """A sibling that waits for a third one itself is not held to be hung; once that is, it is waited for."""
    ours, middle, least = three
    ours.set_load(9)
    middle.set_load(5)
    least.set_load(1)
    clock = [0.0]
    siblings = Siblings(ours, lambda: clock[0])
    assert siblings.freer(9) == {least.index: 1}
    assert siblings.freer(1) == {}
    assert hung_in(siblings, 9, clock) == [least.index, middle.index]
    middle.set_load(6)
    assert siblings.freer(9) == {middle.index: 6}


def test_hung_is_not_for_ever(three: list[Entry]) -> None:
    """After a while it is waited for once more, and one wait is enough."""
    ours, hung, other = three
    ours.set_load(9)
    hung.set_load(1)
    other.set_load(9)
    clock = [0.0]
    siblings = Siblings(ours, lambda: clock[0])
    assert hung_in(siblings, 9, clock) == [hung.index]
    assert clock[0] >= HUNG_AFTER_S
    clock[0] += HUNG_S
    begun_s = clock[0]
    assert hung_in(siblings, 9, clock) == [hung.index]
    assert clock[0] - begun_s == pytest.approx(accepting.PATIENCE_S)


def test_who_takes_something_now_and_then_is_not_hung(three: list[Entry]) -> None:
    ours, slow, other = three
    ours.set_load(900)
    other.set_load(900)
    clock = [0.0]
    siblings = Siblings(ours, lambda: clock[0])
    for load in range(1, 100):
        slow.set_load(load)
        assert siblings.freer(900) == {slow.index: load}
        clock[0] += 0.015
        siblings.waited({slow.index: load}, clock[0] - 0.015)
        assert siblings.freer(900) == {slow.index: load}


@on_both_loops
def test_the_overworked_are_helped(loop: str, board: tuple[Entry, Entry]) -> None:
    """Siblings that move and never catch up are waited for with one client at first, and with many in the end."""
    ours, theirs = board

    async def story() -> None:
        async with House(entry=ours) as house:
            taken: list[int] = []
            for _ in range(accepting.PATIENT_WAITS + 5):
                for _ in range(accepting.MAX_HELP):
                    house.connect()
                before = house.connections.count
                house.acceptor._help()
                taken.append(house.connections.count - before)
                house.acceptor.pause()
            assert taken[: accepting.PATIENT_WAITS] == [1] * accepting.PATIENT_WAITS
            assert taken[accepting.PATIENT_WAITS :] == [2, 4, 8, accepting.MAX_HELP, accepting.MAX_HELP]

    theirs.set_load(0)
    run(loop, story)


@on_both_loops
def test_nobody_is_waited_for_at_a_queue_of_our_own(loop: str, board: tuple[Entry, Entry]) -> None:
    """With SO_REUSEPORT nobody else can take from it, however many connections they have."""
    ours, theirs = board
    theirs.set_load(0)

    async def story() -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        async with House(listener, entry=ours) as house:
            for _ in range(3):
                assert await house.greeted(house.connect())
                assert house.acceptor._timer is None

    run(loop, story)


# -- trouble --------------------------------------------------------------------------------------


class PoorListener(socket.socket):
    """A listener whose accept fails for as long as `trouble` is set."""

    trouble: int | None = errno.EMFILE
    tries = 0

    def _accept(self) -> tuple[int, Any]:
        self.tries += 1
        if self.trouble is not None:
            raise OSError(self.trouble, os.strerror(self.trouble))
        return super()._accept()  # type: ignore[misc,no-any-return]


@on_both_loops
@pytest.mark.parametrize("trouble", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EINVAL])
def test_want_of_descriptors_is_waited_out(
    loop: str,
    trouble: int,
    board: tuple[Entry, Entry],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No busy loop, one line in the log, siblings do not wait for us, and the client is served in the end."""
    monkeypatch.setattr(accepting, "BACK_OFF_S", 0.01)
    ours, theirs = board

    async def story() -> None:
        listener = PoorListener()
        listener.trouble = trouble
        async with House(listener, entry=ours) as house:
            begun_s = house.loop.time()
            client = house.connect()
            await house.until(lambda: listener.tries >= 4)
            assert house.loop.time() - begun_s >= 0.03 - 0.003
            assert theirs.loads()[ours.index] == NOT_ACCEPTING
            listener.trouble = None
            assert await house.greeted(client)
            assert theirs.loads()[ours.index] == 1

    with caplog.at_level(logging.WARNING, "prefork.http"):
        run(loop, story)
    assert [record.message for record in caplog.records] == [
        f"no connection can be accepted for the moment: {os.strerror(trouble)}"
    ]


@on_both_loops
def test_a_connection_that_leaves_ends_the_want(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "BACK_OFF_S", 1000.0)

    async def story() -> None:
        listener = PoorListener()
        listener.trouble = None
        async with House(listener) as house:
            first = house.connect()
            assert await house.greeted(first)
            listener.trouble = errno.EMFILE
            client = house.connect()
            await house.until(lambda: not house.acceptor.is_reading)
            listener.trouble = None
            first.close()
            assert await house.greeted(client)

    run(loop, story)


@on_both_loops
def test_a_client_that_was_gone_again_is_no_trouble(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        listener = PoorListener()
        listener.trouble = errno.ECONNABORTED
        async with House(listener) as house:
            client = house.connect()
            await house.until(lambda: listener.tries >= 2)
            listener.trouble = None
            assert await house.greeted(client)

    run(loop, story)
    assert not caplog.records


@on_both_loops
def test_a_factory_that_fails_harms_only_its_client(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with House() as house:
            good = house.acceptors._factory

            def bad(_preface: object) -> asyncio.BaseProtocol:
                raise RuntimeError("no memory")

            house.acceptors._factory = bad
            assert await house.loop.sock_recv(house.connect(), 1) == b""
            assert house.connections.count == 0
            house.acceptors._factory = good
            assert await house.greeted(house.connect())

    run(loop, story)
    assert [record.message for record in caplog.records] == ["a connection could not be taken up"]


# -- the end --------------------------------------------------------------------------------------


@on_both_loops
def test_who_was_accepted_is_served_after_the_stop(loop: str) -> None:
    """Accepted in the very turn of the stop: greeted all the same. Who is still in the queue stays there."""

    async def story() -> None:
        async with House() as house:
            accepted, queued = house.connect(), house.connect()
            assert house.acceptor._take_one()
            house.acceptors.stop()
            assert await house.greeted(accepted)
            assert is_waiting(queued)
            assert house.connections.count == 1

    run(loop, story)


@on_both_loops
def test_no_descriptor_is_left(loop: str) -> None:
    async def story() -> None:
        async with House() as house:
            assert await house.greeted(house.connect())
            before = len(os.listdir("/dev/fd"))
            for _ in range(20):
                client = house.connect()
                assert await house.greeted(client)
                client.close()
                await house.until(lambda: house.connections.count == 1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(os.listdir("/dev/fd")) == before

    run(loop, story)
