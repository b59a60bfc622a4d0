from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ecosystem.apps.http_rig import client_of, heard, serving
from tests.process.harness import Fleet, wait_until

APP = "http_flask:app"
WAYS = {"pool": (), "inline": ("--threads", "1")}


@pytest.fixture(scope="module")
def peer() -> Iterator[httpx.Client]:
    with serving(APP, "--server", "waitress") as fleet, client_of(fleet) as client:
        yield client


@pytest.fixture(scope="module", params=WAYS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with serving(APP, *WAYS[request.param]) as served:
        yield served


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    with client_of(fleet) as client:
        yield client


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note"
    path.touch()
    return path


def upload() -> dict[str, Any]:
    return {"files": {"one": ("ü.txt", b"small"), "two": ("b", b"x" * 2**21)}, "data": {"word": "ü"}}


SAME: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "json": ("GET", "/json?a=%20b", dict),
    "an upload": ("POST", "/upload", upload),
    "a raw body": ("POST", "/raw", lambda: {"content": b"x" * 1_000_000}),
    "a chunked body": ("POST", "/raw", lambda: {"content": iter([b"x" * 70_000] * 3)}),
    "an empty body": ("POST", "/raw", dict),
    "a body that is read while the answer goes out": (
        "POST",
        "/piecewise",
        lambda: {"content": b"abc" * 100_000},
    ),
    "a stream": ("GET", "/stream", dict),
    "a view that raises": ("GET", "/raises", dict),
    "nothing": ("GET", "/empty", dict),
    "a page that is not there": ("GET", "/none", dict),
    "a method that is not allowed": ("DELETE", "/json", dict),
    "OPTIONS": ("OPTIONS", "/json", dict),
}


@pytest.mark.parametrize("name", SAME)
def test_an_answer_is_the_same_as_under_waitress(name: str, client: httpx.Client, peer: httpx.Client) -> None:
    """Status, headers and body, of whatever Flask answers."""
    method, path, options = SAME[name]
    first, second = (heard(each.request(method, path, **options()), but="allow") for each in (client, peer))
    assert first == second  # Flask gives the methods of `allow` in any order


@pytest.mark.parametrize("asked", ["", "bytes=0-9", "bytes=100-", "bytes=-5", "bytes=999999999-"])
@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_a_file_is_sent_whole_and_in_parts(
    size: int, asked: str, client: httpx.Client, peer: httpx.Client, tmp_path: Path
) -> None:
    """send_file, which is `wsgi.file_wrapper`: as under waitress."""
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    headers = {"range": asked} if asked else {}
    params = {"path": str(tmp_path / "file")}
    first, second = (each.get("/file", params=params, headers=headers) for each in (client, peer))
    assert heard(first) == heard(second)
    if not asked:
        assert first.content == content
    again = client.get("/file", params=params, headers={"if-none-match": first.headers.get("etag", "")})
    if first.status_code == 200:
        assert again.status_code == 304


def test_teardown_is_called(client: httpx.Client, note: Path) -> None:
    """After an answer, and after an exception."""
    client.get("/json", params={"note": str(note)})
    wait_until(lambda: note.read_text() == "teardown NoneType ", "the teardown")
    client.get("/raises", params={"note": str(note)})
    wait_until(lambda: note.read_text().endswith("teardown RuntimeError "), "the teardown")


def test_a_stream_is_closed_once(client: httpx.Client, note: Path) -> None:
    """The generator's end, once; Flask tears its context down before and after a stream that keeps it."""
    assert client.get("/stream", params={"note": str(note)}).text == "".join(f"{n}," for n in range(20))
    whole = "teardown NoneType closed teardown NoneType "
    wait_until(lambda: note.read_text() == whole, "the teardown")


def test_a_stream_is_closed_when_its_client_leaves(client: httpx.Client, note: Path) -> None:
    """An iterable whose answer nobody reads is closed, and the worker serves on."""
    params = {"note": str(note), "count": str(10**9)}
    with client.stream("GET", "/stream", params=params) as response:
        assert next(response.iter_bytes())
    wait_until(lambda: "closed teardown GeneratorExit " in note.read_text(), "the end of the stream")
    assert client.get("/json").status_code == 200


def test_a_stream_that_breaks_is_no_whole_answer(client: httpx.Client) -> None:
    """The client can tell, and the worker serves on."""
    with pytest.raises(httpx.TransportError), client.stream("GET", "/breaks") as response:
        assert response.read()
    assert client.get("/json").status_code == 200


def test_a_session_is_kept_in_its_cookie(client: httpx.Client) -> None:
    assert [client.get("/session").text for _ in range(3)] == ["1", "2", "3"]


def test_threads_of_a_pool_wait_side_by_side() -> None:
    """Eight requests that wait for each other, in one worker of eight threads: each has a thread of its own."""
    with serving(APP, "--threads", "8", workers=1) as fleet, ThreadPoolExecutor(8) as pool:

        def ask(_number: int) -> tuple[int, int]:
            with client_of(fleet) as client:
                found = client.get("/slow").json()
                return found["pid"], found["thread"]

        assert len(set(pool.map(ask, range(8)))) == 8
