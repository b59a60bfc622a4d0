from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from prefork.errors import DrainedError
from prefork.scoreboard import LAST_CALL_S
from prefork.worker.listener import Gate, Listener
from prefork.worker.wear import Wear

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

PATIENCE_S = 45
"""How long a test waits for something that takes milliseconds."""


@pytest.fixture
def said(no_descriptor_leaks: None) -> list[str]:
    """What the worker has told its master."""
    return []


@pytest.fixture
def gate(said: list[str]) -> Iterator[Gate]:
    gate = Gate(lambda: said.append("ready"))
    yield gate
    _close(gate)


def _close(gate: Gate) -> None:
    for fd in (gate._wake_read, gate._wake_write, gate._signalled_read, gate._signalled_write):
        os.close(fd)


@pytest.fixture
def masters(stack: contextlib.ExitStack) -> socket.socket:
    """The socket as the master holds it."""
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


@pytest.fixture
def listener(masters: socket.socket, gate: Gate) -> Iterator[Listener]:
    """The same socket as a worker's server sees it."""
    listener = Listener(os.dup(masters.fileno()), gate)
    yield listener
    listener.close()


@pytest.fixture
def connect(masters: socket.socket, stack: contextlib.ExitStack) -> Callable[[], socket.socket]:
    """A client that has connected; nobody need have accepted."""

    def connect_client() -> socket.socket:
        return stack.enter_context(socket.create_connection(masters.getsockname(), timeout=PATIENCE_S))

    return connect_client


def bare_fd(listener: Listener) -> int:
    """Its descriptor, without a touch."""
    return socket.socket.fileno(listener)


class Accepting(threading.Thread):
    """A server with a blocking loop, in a thread of its own."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(daemon=True)
        self.ended_by: BaseException | None = None
        self._listener = listener
        self.start()

    def run(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.sendall(b"served")
        except BaseException as error:
            self.ended_by = error

    def end(self) -> None:
        self.join(PATIENCE_S)
        assert not self.is_alive(), "it waits for ever"
        assert isinstance(self.ended_by, DrainedError)


class TestReadiness:
    @pytest.mark.parametrize(
        "touch", [Listener.fileno, lambda x: os.close(x.detach()), lambda x: x.dup().close()]
    )
    def test_whoever_reaches_for_the_descriptor_is_about_to_accept(
        self, listener: Listener, said: list[str], gate: Gate, touch: Callable[[Listener], object]
    ) -> None:
        """Selectors, asyncio and uvloop all do."""
        assert not gate.is_ready
        touch(listener)
        assert said == ["ready"]
        assert gate.is_ready

    def test_accept_says_so_before_it_waits(
        self, listener: Listener, said: list[str], connect: Callable[[], socket.socket]
    ) -> None:
        """A blocking server needs no word of its own."""
        connect()
        connection, _ = listener.accept()
        connection.close()
        assert said == ["ready"]

    def test_it_is_said_once(
        self, listener: Listener, said: list[str], masters: socket.socket, gate: Gate
    ) -> None:
        """However many listeners there are, and however often they are touched."""
        with Listener(os.dup(masters.fileno()), gate) as other:
            listener.fileno()
            other.fileno()
            listener.fileno()
        assert said == ["ready"]

    def test_what_only_asks_is_no_touch(self, listener: Listener, said: list[str]) -> None:
        """Names, time-outs and options are looked at long before a server is up."""
        listener.getsockname()
        listener.gettimeout()
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        listener.settimeout(3)
        listener.setblocking(False)
        repr(listener)
        assert said == []

    def test_after_the_server_is_over_nothing_is_a_sign(
        self, listener: Listener, said: list[str], gate: Gate
    ) -> None:
        """The interpreter itself touches sockets when it cleans up."""
        gate.close()
        listener.fileno()
        assert said == []

    @pytest.mark.parametrize(
        "make", [selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector]
    )
    def test_selectors(
        self, listener: Listener, said: list[str], make: Callable[[], selectors.BaseSelector]
    ) -> None:
        """A registered listener is an accepting one."""
        with make() as selector:
            selector.register(listener, selectors.EVENT_READ)
            assert said == ["ready"]
            selector.unregister(listener)

    def test_asyncio(self, listener: Listener, said: list[str], connect: Callable[[], socket.socket]) -> None:
        """Streams on our listener serve, and are ready by themselves."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"served")
            writer.close()
            await writer.wait_closed()

        async def serve() -> bytes:
            server = await asyncio.start_server(answer, sock=listener)
            async with server:
                client = connect()
                return await asyncio.to_thread(client.recv, 16)

        assert asyncio.run(serve()) == b"served"
        assert said == ["ready"]


class TestDrain:
    def test_who_waits_in_accept_is_known_to_before_it_is_ready(
        self, masters: socket.socket, connect: Callable[[], socket.socket]
    ) -> None:
        """A drain that comes with the word "ready" finds a server that hears of it there, and does not break it off."""
        known: list[bool] = []
        gate = Gate(lambda: known.append(gate.is_cooperative))
        _client = connect()
        with Listener(os.dup(masters.fileno()), gate) as listener:
            listener.accept()[0].close()
        _close(gate)
        assert known == [True]

    def test_a_blocking_accept_ends(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """The server that waits there hears of the drain there, after what it was doing."""
        server = Accepting(listener)
        assert connect().recv(16) == b"served"
        assert gate.is_cooperative
        gate.drain()
        server.end()

    def test_no_connection_is_taken_and_dropped(
        self, listener: Listener, gate: Gate, masters: socket.socket, connect: Callable[[], socket.socket]
    ) -> None:
        """It ends between two connections: what waits in the queue stays there, for a sibling."""
        gate.touched()
        clients = [connect() for _ in range(3)]
        gate.drain()
        with pytest.raises(DrainedError):
            listener.accept()
        masters.settimeout(PATIENCE_S)
        for client in clients:
            connection, _ = masters.accept()
            with connection:
                connection.sendall(b"sibling")
            assert client.recv(16) == b"sibling"

    def test_at_a_last_call_whoever_waits_is_taken_in(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """There is no sibling to leave them to."""
        gate.touched()
        clients = [connect() for _ in range(3)]
        gate.is_last_call = lambda: True
        gate.drain()
        for client in clients:
            connection, peer = listener.accept()
            connection.close()
            assert peer == client.getsockname()
        with pytest.raises(DrainedError):
            listener.accept()

    def test_a_last_call_has_an_end(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """A queue that is filled as fast as it is emptied does not hold a stop up."""
        gate.touched()
        _waits = connect()
        gate.is_last_call = lambda: True
        gate.drain()
        gate._closing_s -= LAST_CALL_S
        with pytest.raises(DrainedError):
            listener.accept()

    def test_who_comes_before_the_master_has_decided_is_taken_in(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """Somebody else has told the worker to stop, and perhaps its siblings, too."""
        gate.touched()
        asked: list[socket.socket] = []

        def asks() -> bool:
            if len(asked) < 3:
                asked.append(connect())
                return True
            return False

        gate.is_last_call, gate.is_undecided = lambda: True, asks
        gate.drain()
        for number in range(3):
            connection, peer = listener.accept()
            connection.close()
            assert peer == asked[number].getsockname()
        with pytest.raises(DrainedError):
            listener.accept()

    def test_a_master_that_never_decides_is_not_waited_for(self, listener: Listener, gate: Gate) -> None:
        """It may hang. The worker leaves as it was told."""
        gate.touched()
        gate.is_last_call = gate.is_undecided = lambda: True
        gate.drain()
        with pytest.raises(DrainedError):
            listener.accept()

    def test_all_threads_end(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """Not only the one that a signal happens to wake; nor is a later accept let in."""
        servers = [Accepting(listener) for _ in range(4)]
        assert connect().recv(16) == b"served"
        gate.drain()
        for server in servers:
            server.end()
        Accepting(listener).end()

    def test_threads_share_the_connections(
        self, listener: Listener, connect: Callable[[], socket.socket], gate: Gate
    ) -> None:
        """Several wait for one: whoever is late waits on, nobody raises."""
        servers = [Accepting(listener) for _ in range(4)]
        clients = [connect() for _ in range(40)]
        assert [client.recv(16) for client in clients] == [b"served"] * 40
        gate.drain()
        for server in servers:
            server.end()

    def test_a_signal_handler_may_drain(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """As in a worker: the main thread accepts, the handler of TERM drains, at whatever moment it comes."""
        before = signal.signal(signal.SIGUSR2, lambda *_: gate.drain())

        def ask_and_stop() -> None:
            assert connect().recv(16) == b"served"
            os.kill(os.getpid(), signal.SIGUSR2)

        asker = threading.Thread(target=ask_and_stop)
        asker.start()
        try:
            with pytest.raises(DrainedError):
                serve_here(listener)
        finally:
            asker.join()
            signal.signal(signal.SIGUSR2, before)

    def test_a_signal_that_is_no_drain_goes_unnoticed(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """The accept is woken up, finds nobody, and waits on."""
        heard = []
        before = signal.signal(signal.SIGUSR2, lambda *_: heard.append(1) or connect())
        kicker = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR2))
        try:
            kicker.start()
            connection, _ = listener.accept()
            connection.close()
        finally:
            kicker.join()
            signal.signal(signal.SIGUSR2, before)
        assert heard == [1]

    def test_twice_is_once(self, gate: Gate) -> None:
        """A second TERM writes nothing more."""
        gate.drain()
        gate.drain()
        assert os.read(gate._wake_read, 16) == b"d"

    @pytest.mark.parametrize("touch", [Listener.fileno, Listener.detach, Listener.dup, Listener.accept])
    def test_one_that_was_told_to_leave_in_its_boot_does_not_become_ready(
        self, listener: Listener, gate: Gate, said: list[str], touch: Callable[[Listener], object]
    ) -> None:
        """The code that ran when TERM came has swallowed what was raised: it is raised again, here."""
        gate.drain()
        with pytest.raises(DrainedError):
            touch(listener)
        assert said == []

    def test_a_server_that_is_ready_may_touch_while_it_drains(self, listener: Listener, gate: Gate) -> None:
        """It takes its listener out of its selector, for instance."""
        fd = listener.fileno()
        gate.drain()
        assert listener.fileno() == fd

    def test_it_is_the_quiet_end_of_a_program(self) -> None:
        """Past `except Exception`, and with status 0."""
        assert issubclass(DrainedError, SystemExit)
        assert not issubclass(DrainedError, Exception)
        assert DrainedError().code == 0


class TestTheDescriptor:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.setblocking(True),
            lambda x: x.setblocking(False),
            lambda x: x.settimeout(None),
            lambda x: x.settimeout(5),
            lambda x: x.settimeout(0),
        ],
    )
    def test_it_stays_non_blocking_for_all_who_share_it(
        self, listener: Listener, masters: socket.socket, change: Callable[[Listener], None]
    ) -> None:
        """O_NONBLOCK belongs to the open description: a sibling that polls must not be hung by one that blocks."""
        change(listener)
        assert not os.get_blocking(bare_fd(listener))
        assert not os.get_blocking(masters.fileno())

    def test_blocking_is_the_default_and_can_be_had_back(self, listener: Listener) -> None:
        """To the server it looks as every socket does."""
        assert listener.gettimeout() is None
        assert listener.getblocking()
        listener.setblocking(False)
        assert listener.gettimeout() == 0.0
        listener.setblocking(True)
        assert listener.gettimeout() is None
        listener.settimeout(2.5)
        assert listener.gettimeout() == 2.5

    def test_a_non_blocking_accept_does_not_wait(self, listener: Listener, gate: Gate) -> None:
        """Nor does it make the server a cooperative one."""
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert not gate.is_cooperative

    def test_a_time_out_is_kept(self, listener: Listener, connect: Callable[[], socket.socket]) -> None:
        """Nobody comes: TimeoutError. Somebody comes: a connection."""
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.settimeout(PATIENCE_S)
        connect()
        connection, _ = listener.accept()
        connection.close()

    def test_connections_block(self, listener: Listener, connect: Callable[[], socket.socket]) -> None:
        """What is accepted is an ordinary socket."""
        connect()
        connection, _ = listener.accept()
        with connection:
            assert type(connection) is socket.socket
            assert connection.gettimeout() is None
            assert os.get_blocking(connection.fileno())

    def test_a_copy_knows_what_the_original_knows(
        self, listener: Listener, gate: Gate, connect: Callable[[], socket.socket]
    ) -> None:
        """`dup` gives a listener that drains, stays non-blocking, and knows of the worker's wear."""
        listener.wear = Wear(5, str)
        with listener.dup() as copy:
            assert type(copy) is Listener
            assert not os.get_blocking(bare_fd(copy))
            assert copy.wear is listener.wear
            server = Accepting(copy)
            assert connect().recv(16) == b"served"
            gate.drain()
            server.end()

    def test_a_closed_one_can_be_shown(self, listener: Listener) -> None:
        """In a log, say."""
        assert "127.0.0.1" in repr(listener)
        listener.close()
        assert repr(listener) == "<Listener fd=-1>"

    def test_a_unix_socket_serves_as_well(
        self, gate: Gate, tmp_path: object, stack: contextlib.ExitStack
    ) -> None:
        """The family is found out."""
        path = f"{tmp_path}/app.sock"
        master = stack.enter_context(socket.socket(socket.AF_UNIX))
        master.bind(path)
        master.listen()
        with Listener(os.dup(master.fileno()), gate) as listener:
            assert listener.family == socket.AF_UNIX
            server = Accepting(listener)
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE_S)
            client.connect(path)
            assert client.recv(16) == b"served"
            gate.drain()
            server.end()


def serve_here(listener: Listener) -> None:
    """A blocking server, in this thread."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"served")
