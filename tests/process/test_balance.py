"""Who gets a connection: the worker with the fewest, whoever has room, and nobody twice. Real workers, one listener.

Each client asks once and stays; the answer says which worker has it. Bounds in time are wide, for a machine that does
other things as well: what they tell apart is a delay of milliseconds and one of seconds.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.process import procfs
from tests.process.apps import reload
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.library import METHODS

WORKERS = 4
MORE = 32
"""Clients after which all must have as many. Where workers take what they get they never do: 34/14/10/6."""
BURST_SLACK = 8
"""What a worker may have more, or less, than 16 of a burst of 64: half as many again."""
FOR_EVER_S = 10.0
FOR_ALL_S = 0.25
"""A connection waits for a worker that does not move for 5 ms, and for 20 until nobody waits any more."""
PROGRAM = """
    import os, resource, sys
    from prefork import Prefork
    from prefork.http.limits import HttpLimits
    from prefork.http.server import HttpServer

    method, connections, descriptors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    eaten = []

    def eat():
        try:
            while True:
                eaten.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            raise NotImplementedError
        if scope["path"] == "/eat":
            eat()
        elif scope["path"] == "/give":
            while eaten:
                os.close(eaten.pop())
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    server = HttpServer(app, limits=HttpLimits(connections=connections))
    Prefork(server, workers=int(sys.argv[4]), start_method=method).listen_and_serve("127.0.0.1:0")
"""

Serve = Callable[..., Fleet]
Crowd = Callable[[Fleet, int], list["Client"]]


class Client:
    """A client that stays."""

    def __init__(self, fleet: Fleet) -> None:
        self.socket = fleet.connect()

    def ask(self, path: str = "/") -> int:
        """The pid of the worker that it is connected to."""
        self.say(path)
        return self.hear()

    def say(self, path: str = "/") -> None:
        self.socket.sendall(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode())

    def hear(self) -> int:
        answer = b""
        while (found := re.search(rb"pid (\d+)$", answer)) is None:
            data = self.socket.recv(4096)
            assert data, f"closed after {answer!r}"
            answer += data
        return int(found[1])

    def is_waiting(self, within_s: float) -> bool:
        """Nothing comes within that time, no reset either."""
        self.socket.settimeout(within_s)
        try:
            data = self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(WAIT_S)
        assert data, "it was closed"
        return False

    def leave(self) -> None:
        self.socket.close()


@pytest.fixture
def serve(python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet]) -> Serve:
    """A fleet of our own server, all of its workers ready."""

    def start(
        method: str = "fork", *, connections: int = 1000, descriptors: int = 0, workers: int = WORKERS
    ) -> Fleet:
        arguments = (method, str(connections), str(descriptors), str(workers))
        fleet = fleet_of_script(python_script(PROGRAM), *arguments)
        fleet.wait_for_workers(workers)
        return fleet

    return start


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """So many clients that come one after the other, each when the one before has been answered."""
    with contextlib.ExitStack() as leaving:

        def come(fleet: Fleet, count: int) -> list[Client]:
            clients = []
            for _ in range(count):
                client = Client(fleet)
                leaving.callback(client.leave)
                clients.append(client)
            return clients

        yield come


def shares(clients: list[Client]) -> dict[int, int]:
    """How many of them each worker has."""
    return dict(Counter(client.ask() for client in clients))


def come_slowly(crowd: Crowd, fleet: Fleet, count: int) -> dict[int, int]:
    """Clients come one by one and stay: how many each worker has."""
    pids = Counter[int]()
    for _ in range(count):
        (client,) = crowd(fleet, 1)
        pids[client.ask()] += 1
    return dict(pids)


def is_even(found: dict[int, int], workers: int = WORKERS, slack: float = 1) -> bool:
    """Every worker has its share of them, one more or less."""
    share = sum(found.values()) / workers
    return len(found) == workers and all(abs(count - share) <= slack for count in found.values())


def come_until_even(
    crowd: Crowd, fleet: Fleet, count: int, there: dict[int, int] | None = None
) -> dict[int, int]:
    """Clients come one by one and stay, `count` of them and some more: how many each worker has when all have as many.

    At once on a machine that has time. Where a worker waited for its CPU for longer than others wait for it, they went before
    it; it gets the next ones then, or this fails.
    """
    found = Counter(there or {}) + Counter(come_slowly(crowd, fleet, count))
    for _ in range(MORE):
        if is_even(found):
            break
        found += Counter(come_slowly(crowd, fleet, 1))
    assert is_even(found), found
    return dict(found)


@pytest.mark.parametrize("method", METHODS)
def test_slow_clients_are_shared_out_evenly(serve: Serve, crowd: Crowd, method: str) -> None:
    """64 keep-alive clients come one by one to 4 workers: 16 for each."""
    come_until_even(crowd, serve(method), 64)


def test_a_burst_is_shared_out_evenly(serve: Serve, crowd: Crowd) -> None:
    """64 clients come at once: all are in the queue before the first is answered."""
    fleet = serve()
    clients = crowd(fleet, 64)
    found = shares(clients)
    assert is_even(found, slack=BURST_SLACK), found
    come_until_even(crowd, fleet, 0, found)


def test_the_dead_are_not_counted(serve: Serve, crowd: Crowd) -> None:
    """A killed worker's clients are lost; its replacement has none, so it gets the next ones, till all have as many."""
    fleet = serve()
    before = come_until_even(crowd, fleet, 4 * WORKERS)
    killed = next(iter(before))
    since = fleet.mark()
    fleet.kill(killed)
    (replacement,) = fleet.wait_for_workers(1, since=since)
    del before[killed]
    assert replacement in come_until_even(crowd, fleet, 4 * WORKERS, before)


def test_after_a_reload_the_new_share_alone(serve: Serve, crowd: Crowd) -> None:
    """Those that drain mark themselves: nobody waits for them, nor are they given anything."""
    fleet = serve()
    come_slowly(crowd, fleet, WORKERS)
    reload(fleet)
    assert set(come_until_even(crowd, fleet, 4 * WORKERS)) == set(fleet.workers())


def test_a_stopped_worker_delays_nobody(serve: Serve, crowd: Crowd) -> None:
    """It has the fewest, and all wait for it, for a moment; when it goes on, it gets its share again."""
    fleet = serve()
    before = come_until_even(crowd, fleet, 4 * WORKERS)
    stopped = next(iter(before))
    fleet.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: procfs.state(stopped) == "T", "it has stopped")
    delays_s = []
    found = Counter[int]()
    for _ in range(30):
        begun_s = time.monotonic()
        found.update([crowd(fleet, 1)[0].ask()])
        delays_s.append(time.monotonic() - begun_s)
    assert stopped not in found
    assert max(delays_s) < FOR_EVER_S, delays_s
    assert median(delays_s) < FOR_ALL_S, "every client pays for it"
    fleet.kill(stopped, signal.SIGCONT)
    come_until_even(crowd, fleet, 20, Counter(before) + found)  # it lacks ten


def test_full_workers_take_the_next_when_one_leaves(serve: Serve, crowd: Crowd) -> None:
    """Room for twice three; ten come. Six are served, four wait unharmed, and each has its turn as others leave."""
    fleet = serve(connections=3, workers=2)
    clients = crowd(fleet, 10)
    for client in clients:
        client.say()

    def answered() -> list[Client]:
        return [client for client in clients if not client.is_waiting(0.001)]

    wait_until(lambda: len(answered()) >= 6, "six are served", show=lambda: fleet.output)
    served = answered()
    waiting = [client for client in clients if client not in served]
    assert all(client.is_waiting(0.1) for client in waiting)
    assert len(served) == 6
    for client in served:
        client.hear()
    for leaving, next_one in zip(served, waiting, strict=False):
        assert all(client.is_waiting(0.01) for client in waiting[waiting.index(next_one) :])
        leaving.leave()
        next_one.hear()


def test_want_of_descriptors_is_survived(serve: Serve, crowd: Crowd) -> None:
    """The application has taken every descriptor: clients wait, unharmed, and without a busy loop."""
    fleet = serve(descriptors=128, workers=1)
    (first,) = crowd(fleet, 1)
    pid = first.ask("/eat")
    clients = crowd(fleet, 5)
    for client in clients:
        client.say()
    fleet.wait_for("no connection can be accepted for the moment: Too many open files")
    before = procfs.context_switches(pid)
    assert all(client.is_waiting(0.1) for client in clients)
    assert procfs.context_switches(pid).voluntary - before.voluntary < 50
    first.ask("/give")
    assert [client.hear() for client in clients] == [pid] * 5
    assert len(fleet.find_all("no connection can be accepted")) <= 2
