from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.ecosystem.apps.http_rig import client_of, heard, serving
from tests.process.harness import Fleet, wait_until

APP = "http_fastapi:app"


@pytest.fixture(scope="module")
def ours() -> Iterator[Fleet]:
    with serving(APP) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def peer() -> Iterator[Fleet]:
    with serving(APP, "--server", "uvicorn") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def clients(ours: Fleet, peer: Fleet) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with client_of(ours) as one, client_of(peer) as other:
        yield one, other


@pytest.fixture
def client(clients: tuple[httpx.Client, httpx.Client]) -> httpx.Client:
    return clients[0]


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note"
    path.touch()
    return path


def upload() -> dict[str, Any]:
    return {
        "files": [("files", ("a", b"a" * 10)), ("files", ("b.bin", bytes(range(256)) * 8192))],
        "data": {"word": "ü"},
    }


SAME: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "json": ("GET", "/json?number=3", dict),
    "a query that is invalid": ("GET", "/json?number=x", dict),
    "a body that is valid": ("POST", "/items", lambda: {"json": {"name": "ü", "price": 1.5}}),
    "a body that is invalid": ("POST", "/items", lambda: {"json": {"name": "a", "price": -1}}),
    "a body that is no JSON": ("POST", "/items", lambda: {"content": b"{", "headers": {"a": "b"}}),
    "no body": ("POST", "/items", dict),
    "a function that blocks": ("GET", "/sync/a%2Fb%20c%C3%A9", dict),
    "a stream": ("GET", "/stream", dict),
    "a stream, compressed": ("GET", "/stream", lambda: {"headers": {"accept-encoding": "gzip"}}),
    "a form with files": ("POST", "/upload", upload),
    "a form that lacks a field": ("POST", "/upload", lambda: {"data": {"other": "x"}}),
    "a chunked body": ("POST", "/count", lambda: {"content": iter([b"x" * 70_000] * 3)}),
    "two cookies": ("GET", "/cookies", dict),
    "nothing": ("GET", "/empty", dict),
    "an exception": ("GET", "/raises", dict),
    "what is not there": ("GET", "/none", dict),
    "a method that is not allowed": ("DELETE", "/json", dict),
    "HEAD": ("HEAD", "/json", dict),
    "OPTIONS": ("OPTIONS", "/json", dict),
    "its documentation": ("GET", "/docs", dict),
    "its schema": ("GET", "/openapi.json", dict),
    "a redirection of slashes": ("GET", "/json/", dict),
    "a mounted application": ("GET", "/sub/where?a=b", dict),
}


@pytest.mark.parametrize("name", SAME)
def test_an_answer_is_the_same_as_under_uvicorn(
    name: str, clients: tuple[httpx.Client, httpx.Client]
) -> None:
    """Status, headers and body, of whatever FastAPI answers; twice on one connection."""
    method, path, options = SAME[name]
    if "redirection" in name:  # it names the port
        headers = {"host": "example"}
        first, second = (heard(each.request(method, path, headers=headers, **options())) for each in clients)
    else:
        first, second = (heard(each.request(method, path, **options())) for each in clients)
        assert heard(clients[0].request(method, path, **options())) == first
    assert first == second


def test_an_upload_arrives(client: httpx.Client) -> None:
    """Two files of a multipart form, one of 2 MiB, and a field."""
    assert client.post("/upload", **upload()).json() == {"word": "ü", "sizes": {"a": 10, "b.bin": 2**21}}


@pytest.mark.parametrize(
    "asked", ["", "bytes=0-9", "bytes=100-", "bytes=-5", "bytes=0-1,5-6", "bytes=999999999-"]
)
@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_a_file_is_sent_whole_and_in_parts(
    size: int, asked: str, clients: tuple[httpx.Client, httpx.Client], tmp_path: Path
) -> None:
    """FileResponse (which uses pathsend where the server has it): the same as under uvicorn, but for the boundary."""
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    headers = {"accept-encoding": "identity"} | ({"range": asked} if asked else {})
    params = {"path": str(tmp_path / "file")}
    first, second = (each.get("/file", params=params, headers=headers) for each in clients)
    assert first.status_code == second.status_code
    assert len(first.content) == len(second.content)
    if "," not in asked:
        assert heard(first, but="vary") == heard(second, but="vary")  # pathsend passes the gzip middleware by
    if not asked:
        assert first.content == content


def test_a_background_task_runs_after_the_answer(client: httpx.Client, note: Path) -> None:
    assert client.get("/later", params={"note": str(note)}).json() == "now"
    wait_until(lambda: note.read_text() == "background ", "the background task")


def test_a_dependency_is_closed(client: httpx.Client, note: Path) -> None:
    assert client.get("/depends", params={"note": str(note)}).json() == "session"
    wait_until(lambda: note.read_text() == "opened closed ", "the end of the dependency")


def test_a_client_that_leaves_ends_the_stream(client: httpx.Client, note: Path) -> None:
    """The generator's `finally` is run, in a worker that serves on."""
    with client.stream("GET", "/endless", params={"note": str(note)}) as response:
        assert next(response.iter_bytes())
    wait_until(lambda: note.read_text() == "ended ", "the end of the stream")
    assert client.get("/json").status_code == 200


def test_the_lifespan_state_is_there(client: httpx.Client) -> None:
    assert client.get("/json").json()["greeting"] == "hello"


def test_a_root_path_is_known_to_the_application() -> None:
    """Behind a proxy that takes a prefix away, an application makes links that have it."""
    with serving(APP, "--root-path", "/api") as fleet, client_of(fleet) as client:
        assert client.get("/where").json() == {
            "root_path": "/api",
            "path": "/api/where",
            "url": "/api/where",
            "named": "/api/where",
            "query": "",
        }
        found = client.get("/sub/where?x=y").json()
        assert (found["root_path"], found["path"], found["named"]) == (
            "/api/sub",
            "/api/sub/where",
            "/api/sub/where",
        )


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_websocket_endpoint(ours: Fleet, compression: str | None) -> None:
    """JSON, text, a subprotocol, the state of the lifespan, and a close with code and reason."""
    url = ours.url.replace("http:", "ws:") + "/ws?name=ü"
    with connect(url, subprotocols=["chat"], compression=compression, proxy=None) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "chat"
        assert json.loads(socket.recv()) == {"hello": "ü", "state": "hello"}
        for text in ("", "a", "é" * 100, "x" * 100_000):
            socket.send(text)
            assert socket.recv() == text.upper()
        assert socket.ping().wait(20)
        socket.send("bye")
        with pytest.raises(ConnectionClosedError):
            socket.recv()
        assert (socket.close_code, socket.close_reason) == (3001, "as you say")


def test_a_websocket_endpoint_may_refuse(ours: Fleet) -> None:
    url = ours.url.replace("http:", "ws:") + "/never"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, proxy=None)
    assert refused.value.response.status_code == 403
