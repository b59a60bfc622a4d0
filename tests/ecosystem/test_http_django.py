from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ecosystem.apps.http_rig import client_of, heard, serving
from tests.process.harness import wait_until

ASGI, WSGI = "django_site.asgi:application", "django_site.wsgi:application"

WAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "asgi": ((ASGI,), (ASGI, "--server", "uvicorn")),
    "wsgi": ((WSGI,), (WSGI, "--server", "waitress")),
    "wsgi-inline": ((WSGI, "--threads", "1"), (WSGI, "--server", "waitress")),
}
"""How our own server is told to serve the site, and how its peer is."""


@pytest.fixture(scope="module", params=WAYS)
def clients(request: pytest.FixtureRequest) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    ours, peer = WAYS[request.param]
    with (
        serving(*ours) as fleet,
        serving(*peer) as other,
        client_of(fleet) as client,
        client_of(other) as theirs,
    ):
        yield client, theirs


@pytest.fixture
def client(clients: tuple[httpx.Client, httpx.Client]) -> httpx.Client:
    return clients[0]


def upload() -> dict[str, Any]:
    return {
        "files": {"small": ("ü.txt", b"small"), "large": ("b", b"large" * 100_000)},
        "data": {"word": "ü"},
    }


SAME: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "a view": ("GET", "/?a=b&c=%C3%BC", lambda: {"headers": {"x-own": "1"}}),
    "an etag": (
        "GET",
        "/name/x",
        lambda: {"headers": {"if-none-match": '"9dd4e461268c8034f5c8564e155c67a6"'}},
    ),
    "an upload": ("POST", "/upload", upload),
    "a raw body": ("POST", "/raw", lambda: {"content": b"x" * 1_000_000}),
    "an empty body": ("POST", "/raw", dict),
    "a stream": ("GET", "/stream", dict),
    "an async stream": ("GET", "/astream", dict),
    "an async view": ("GET", "/async", dict),
    "a view that raises": ("GET", "/raises", dict),
    "nothing": ("GET", "/nothing", dict),
    "a page that is not there": ("GET", "/none", dict),
    "a slash that is missing": ("GET", "/slashed?a=b", dict),
    "an escaped path": ("GET", "/name/a%2Fb%20%C3%A9%25", dict),
    "a path that is not UTF-8": ("GET", "/name/%FF", dict),
    "OPTIONS": ("OPTIONS", "/", dict),
    "a post without its token": ("POST", "/form", lambda: {"data": {"word": "x"}}),
}


@pytest.mark.parametrize("name", SAME)
def test_an_answer_is_the_same_as_under_its_peer(
    name: str, clients: tuple[httpx.Client, httpx.Client]
) -> None:
    """Under uvicorn or waitress: status, headers and body."""
    method, path, options = SAME[name]
    for each in clients:
        each.cookies.clear()
    first, second = (heard(each.request(method, path, **options())) for each in clients)
    assert first == second


def test_head_is_get_without_its_body(client: httpx.Client) -> None:
    """Held against GET, since waitress sends the body."""
    got, asked = client.get("/stream"), client.head("/stream")
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert client.head("/name/four").headers["content-length"] == "4"


def test_a_header_that_comes_twice_is_one_with_a_comma(client: httpx.Client) -> None:
    answer = client.get("/", headers=[("x-twice", "1"), ("X-Twice", "2")])
    assert answer.json()["twice"].replace(" ", "") == "1,2"


def test_an_upload_arrives(client: httpx.Client) -> None:
    """One file that stays in memory, one that goes to the disk, and a field."""
    assert client.post("/upload", **upload()).json() == {
        "files": {"small": ["ü.txt", 5, "small"], "large": ["b", 500_000, "large"]},
        "fields": {"word": "ü"},
    }


def test_a_chunked_body_arrives(client: httpx.Client) -> None:
    """Django reads a body without a length, too."""
    answer = client.post("/raw", content=iter([b"x" * 70_000] * 3))
    assert answer.status_code == 200
    assert answer.text.split()[0] in ("210000", "0")  # as Django's WSGI handler bounds it by CONTENT_LENGTH


def test_a_form_is_guarded_by_its_token(client: httpx.Client) -> None:
    """GET gives cookie and token, POST with both is heard, without them refused."""
    token = client.get("/form").text
    answer = client.post("/form", data={"word": "ü", "csrfmiddlewaretoken": token})
    assert (answer.status_code, answer.text) == (200, "you said ü")
    assert client.post("/form", data={"word": "ü"}).status_code == 403


def test_a_session_is_kept_in_its_cookie(client: httpx.Client) -> None:
    """Whichever worker answers."""
    client.cookies.clear()
    assert [client.get("/session").text for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_a_file_is_sent_whole(size: int, clients: tuple[httpx.Client, httpx.Client], tmp_path: Path) -> None:
    """FileResponse, which is `wsgi.file_wrapper` over WSGI: as under the peer, GET and HEAD."""
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    params = {"path": str(tmp_path / "file")}
    for method in ("GET", "HEAD"):
        first = clients[0].request(method, "/file", params=params)
        assert first.content == (content if method == "GET" else b"")
        assert first.headers["content-length"] == str(size)
        theirs = heard(clients[1].get("/file", params=params), but="content-length")
        assert heard(first, but="content-length")[:2] == theirs[:2]


def test_the_end_of_a_request_is_told(client: httpx.Client, tmp_path: Path) -> None:
    """`request_finished`, for which Django needs its answer closed: connections to databases end there."""
    note = tmp_path / "note"
    assert client.get("/", params={"note": str(note)}).status_code == 200
    wait_until(note.exists, "request_finished")
