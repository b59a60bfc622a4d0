from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from signal import SIGHUP

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.ecosystem.apps.http_rig import WORKERS, client_of, serving
from tests.process.harness import Fleet

APP = "http_starlette:app"


@pytest.fixture(scope="module")
def ours() -> Iterator[Fleet]:
    with serving(APP) as fleet:
        yield fleet


def dial(fleet: Fleet, path: str, **options: object) -> connect:
    return connect(fleet.url.replace("http:", "ws:") + path, proxy=None, **options)  # type: ignore[arg-type]


def test_a_stream_that_breaks_is_no_whole_answer(ours: Fleet) -> None:
    """The client can tell, the log says why, and the worker serves on."""
    mark = ours.mark()
    with client_of(ours) as client:
        with pytest.raises(httpx.TransportError), client.stream("GET", "/breaks") as response:
            assert response.read()
        assert client.get("/slow").text == "done"
    ours.wait_for("in the midst of a stream", since=mark)


def test_an_application_hears_that_its_client_has_left(ours: Fleet) -> None:
    """`request.is_disconnected()`, asked again and again with a `receive` that is cancelled."""
    mark = ours.mark()
    with ours.connect() as client:
        client.sendall(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n")
        ours.wait_for("starlette: waiting", since=mark)
    ours.wait_for("starlette: it has left", since=mark)


def test_half_a_body_is_a_disconnect(ours: Fleet) -> None:
    """A client that ends in the midst of its body: ClientDisconnect in the application."""
    mark = ours.mark()
    with ours.connect() as client:
        client.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    ours.wait_for("starlette: half a body", since=mark)


@pytest.mark.parametrize("end", ["close", "vanish"])
def test_a_websocket_hears_of_its_end(ours: Fleet, end: str) -> None:
    """Messages of all sizes come back, and then the application hears that the client is gone."""
    mark = ours.mark()
    with dial(ours, "/echo", max_size=None) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-own"] == "1"
        for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
            socket.send(b"x" * size)
            assert socket.recv() == b"x" * size
        if end == "close":
            socket.close()
        else:
            socket.socket.shutdown(2)
    ours.wait_for("starlette: closed", since=mark)


def test_an_exception_in_a_websocket_is_1011(ours: Fleet) -> None:
    mark = ours.mark()
    with dial(ours, "/raises") as socket, pytest.raises(ConnectionClosedError):
        socket.recv()
    assert socket.close_code == 1011
    ours.wait_for("RuntimeError: of the application", since=mark)


def test_a_stop_finishes_requests_and_restarts_websockets() -> None:
    """TERM: the request is answered, the WebSocket is closed with 1012, each worker's lifespan ends."""
    with (
        serving(APP) as fleet,
        client_of(fleet) as client,
        dial(fleet, "/echo") as socket,
        ThreadPoolExecutor() as pool,
    ):
        mark = fleet.mark()
        answer = pool.submit(client.get, "/slow")
        fleet.wait_for(
            "starlette: asked", since=mark
        )  # by the application: a client that has sent says nothing
        socket.send(b"x")
        assert socket.recv() == b"x"
        assert fleet.stop() == 0
        assert answer.result().text == "done"
        with pytest.raises(ConnectionClosedError):
            socket.recv()
        assert socket.close_code == 1012
        assert len(fleet.find_all("starlette: begun")) == WORKERS
        assert len(fleet.find_all("starlette: ended")) == WORKERS


def test_a_reload_leaves_a_websocket_for_a_client_to_dial_anew(ours: Fleet) -> None:
    """HUP: 1012 for those connected, and a new connection is served by a new worker."""
    with serving(APP) as fleet:
        before = set(fleet.workers())
        with dial(fleet, "/echo") as socket:
            mark = fleet.mark()
            fleet.signal(SIGHUP)
            with pytest.raises(ConnectionClosedError):
                socket.recv()
            assert socket.close_code == 1012
        after = set(fleet.wait_for_workers(WORKERS, since=mark))
        assert not before & after
        # Until it has heard that it is to leave, an old one may still accept.
        fleet.wait_for_all(r"generation 1\) stopped: exit status 0", WORKERS, since=mark)
        with dial(fleet, "/echo") as socket:
            socket.send(b"again")
            assert socket.recv() == b"again"
