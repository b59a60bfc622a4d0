"""docs/security.md: what is said to be refused is refused, with that status."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_snippets import ROOT
from tests.process.apps import serving
from tests.process.harness import Fleet

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
WAIT_S = 10.0


def get(*headers: bytes, line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return get(b"Host: a", *headers, line=b"POST / HTTP/" + version, body=body)


CHUNKED = b"Transfer-Encoding: chunked"
SENT: dict[str, list[bytes]] = {
    "Content-Length and Transfer-Encoding": [post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n")],
    "two Content-Length, equal or not": [
        post(b"Content-Length: 5", b"Content-Length: %d" % other, body=b"hello") for other in (5, 6)
    ],
    "`Content-Length: +5`": [post(b"Content-Length: +5", body=b"hello")],
    "Transfer-Encoding: gzip, chunked": [post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")],
    "Transfer-Encoding twice": [post(CHUNKED, CHUNKED, body=b"0\r\n\r\n")],
    "Transfer-Encoding in HTTP/1.0": [post(CHUNKED, body=b"0\r\n\r\n", version=b"1.0")],
    "a chunk size that is no number": [post(CHUNKED, body=b"zz\r\nhello\r\n0\r\n\r\n")],
    "a space before the colon": [get(b"Host : a")],
    "a folded header": [get(b"Host: a", b"X: a", b" b")],
    "lines that end in a bare LF": [b"GET / HTTP/1.1\nHost: a\n\n"],
    "NUL in a header": [get(b"Host: a", b"X: a\x00b")],
    "no Host, or two, or one that is no host": [
        get(),
        get(b"Host: a", b"Host: b"),
        get(b"Host: a/b"),
    ],
    "CONNECT, or a method that nobody knows": [
        get(b"Host: a", line=b"CONNECT a:443 HTTP/1.1"),
        get(b"Host: a", line=b"SOURCE / HTTP/1.1"),
    ],
    "HTTP/2.0 without being asked": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "an expectation other than 100-continue": [post(b"Expect: tea", b"Content-Length: 1")],
    "a target of 9,000 bytes": [get(b"Host: a", line=b"GET /%b HTTP/1.1" % (b"a" * 8999))],
    "a head of 70,000 bytes": [get(b"Host: a", b"X: " + b"a" * 70_000)],
    "101 headers": [get(*[b"Host: a", *[b"X: a"] * 100])],
    "a body of more than 1 GiB": [post(b"Content-Length: %d" % (2**30 + 1))],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fleet that serves, at this path."""
    path = tmp_path_factory.mktemp("security") / "socket"
    with Fleet.command(*serving("web", bind=f"unix:{path}", workers=1)) as fleet:
        fleet.wait_for("ready: 1 worker")
        yield path
        assert fleet.stop() == 0


def rows() -> dict[str, int]:
    """The page's table: what is sent, and the status of the answer."""
    found = re.search(r"^\| sent \| answer \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found
    cells = [line.split("|") for line in found[1].splitlines()]
    return {row[1].strip(): int(row[2]) for row in cells}


def test_the_table_says_what_is_sent_here() -> None:
    """No row without its requests, and none beside."""
    assert set(rows()) == set(SENT)


def test_what_is_sent_is_refused_so(path: Path) -> None:
    """Each with the status that the page says, and then the end of the connection."""
    for name, status in rows().items():
        for request in SENT[name]:
            assert answer(path, request).startswith(b"HTTP/1.1 %d " % status), name


def test_a_request_that_is_none_of_these_is_answered(path: Path) -> None:
    """Or the table would prove nothing."""
    assert answer(path, get(b"Host: a", b"Connection: close")).startswith(b"HTTP/1.1 200 ")


def answer(path: Path, request: bytes) -> bytes:
    """All that comes back, to the end of the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(path))
        client.sendall(request)
        with client.makefile("rb") as file:
            return file.read()
