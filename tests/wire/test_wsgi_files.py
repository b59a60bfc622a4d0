"""`wsgi.file_wrapper`: files that a WSGI application returns."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from prefork.http.wsgi_file import FileWrapper
from tests.wire.rig import answers, run
from tests.wire.test_wsgi_rig import GET, HEAD, PLAIN, WsgiWire, ask, both_ways, talk, validated

SMALL = b"small file\n"
BIG = bytes(range(256)) * 4_000

pytestmark = both_ways


class Returning:
    """An application that returns what `opens` gives, wrapped; counts closes."""

    def __init__(self, opens: Any, *headers: tuple[str, str], block_bytes: int = 8192) -> None:
        self.opens = opens
        self.headers = [PLAIN, *headers]
        self.block_bytes = block_bytes
        self.file: Any = None
        self.sent_as_file: list[Any] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        start_response("200 OK", self.headers)
        self.file = self.opens()
        wrapper = environ["wsgi.file_wrapper"](self.file, self.block_bytes)
        self.sent_as_file.append(wrapper.extent())
        return wrapper


@pytest.fixture(params=[SMALL, BIG, b""], ids=["small", "big", "empty"])
def content(request: pytest.FixtureRequest) -> bytes:
    found: bytes = request.param
    return found


@pytest.fixture
def path(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def test_a_file(loop: str, way: str, content: bytes, path: Path) -> None:
    """Its length is known; it is closed behind."""
    app = Returning(lambda: path.open("rb"))
    for raw, method in ((GET, "GET"), (HEAD, "HEAD")):
        answer, is_closing = ask(loop, way, app, raw, method)
        assert answer.body == (content if method == "GET" else b"")
        assert (answer["content-length"], is_closing) == (str(len(content)).encode(), False)
        assert app.file.closed
    assert all(app.sent_as_file)


def test_a_file_with_its_length(loop: str, way: str, content: bytes, path: Path) -> None:
    app = Returning(lambda: path.open("rb"), ("Content-Length", str(len(content))))
    answer, is_closing = ask(loop, way, app)
    assert (answer.body, answer["content-length"], is_closing) == (content, b"%d" % len(content), False)


def test_the_validator_agrees(loop: str, way: str, content: bytes, path: Path) -> None:
    """It wraps what is returned: then the file is read by blocks."""
    answer, _ = ask(loop, way, validated(Returning(lambda: path.open("rb"))))
    assert answer.body == content


@pytest.mark.parametrize("length", [None, 5])
def test_a_part_of_a_file(loop: str, way: str, content: bytes, path: Path, length: int | None) -> None:
    """From where it stands (and not from where its buffer has read to), as far as Content-Length goes."""

    def opened() -> Any:
        file = path.open("rb")
        assert file.read(2) == content[:2]
        return file

    if not content:
        pytest.skip("nothing to take a part of")
    app = Returning(opened, *([("Content-Length", str(length))] if length else []))
    answer, is_closing = ask(loop, way, app)
    assert (answer.body, is_closing) == (content[2 : 2 + length] if length else content[2:], False)


def test_a_file_that_is_too_short(loop: str, way: str, content: bytes, path: Path) -> None:
    app = Returning(lambda: path.open("rb"), ("Content-Length", str(len(content) + 1)))
    answer, is_closing = ask(loop, way, app)
    assert (answer.status, is_closing) == (500, True)
    assert app.file.closed


def held_by_tempfile(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (the server's to close)
    file.write(path.read_bytes())
    file.seek(0)
    return file


def spooled(path: Path) -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115  (the server's to close)
    file.write(path.read_bytes())
    file.seek(0)
    return file


def compressed(path: Path) -> Any:
    """Its `fileno` is that of the compressed bytes."""
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return gzip.open(packed)


class Reader:
    """What PEP 3333 asks of a file-like object, and no more."""

    def __init__(self, path: Path) -> None:
        self._file = io.BytesIO(path.read_bytes())

    def read(self, size: int) -> bytes:
        return self._file.read(size)


@pytest.mark.parametrize(
    ("opens", "is_sent_as_file"),
    [
        (lambda path: path.open("rb"), True),
        (lambda path: path.open("r+b"), True),
        (lambda path: path.open("rb", buffering=0), True),
        (held_by_tempfile, True),
        (spooled, False),
        (compressed, False),
        (lambda path: io.BufferedReader(compressed(path)), False),
        (lambda path: io.BytesIO(path.read_bytes()), False),
        (Reader, False),
    ],
)
def test_what_is_no_plain_file_is_read(
    loop: str, way: str, content: bytes, path: Path, opens: Any, *, is_sent_as_file: bool
) -> None:
    app = Returning(lambda: opens(path))
    answer, is_closing = ask(loop, way, app)
    assert (answer.body, is_closing) == (content, False)
    assert [bool(extent) for extent in app.sent_as_file] == [is_sent_as_file]
    assert getattr(app.file, "closed", True)


def test_what_is_not_regular_is_read(loop: str, way: str) -> None:
    """A device has no length."""
    app = Returning(lambda: Path("/dev/null").open("rb"))  # noqa: SIM115  (the server's to close)
    answer, is_closing = ask(loop, way, app)
    assert (answer.status, answer.body, is_closing) == (200, b"", False)
    assert app.sent_as_file == [None]


def test_a_file_of_text_is_a_mistake(loop: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("\u20ac")
    app = Returning(path.open)
    answer, is_closing = ask(loop, way, app)
    assert (answer.status, is_closing) == (500, True)
    assert app.file.closed


def test_a_file_without_start_response(loop: str, way: str, content: bytes, path: Path) -> None:
    file = path.open("rb")
    answer, is_closing = ask(loop, way, lambda environ, _start: environ["wsgi.file_wrapper"](file))
    assert (answer.status, is_closing) == (500, True)
    assert file.closed


def test_what_was_written_comes_first(loop: str, way: str, content: bytes, path: Path) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", str(4 + len(content)))])
        write(b"head")
        return environ["wsgi.file_wrapper"](path.open("rb"))

    answer, is_closing = ask(loop, way, app)
    assert (answer.body, is_closing) == (b"head" + content, False)


def test_the_connection_goes_on_behind_a_file(loop: str, way: str, content: bytes, path: Path) -> None:
    raw, _ = run(loop, lambda: talk([GET * 3], Returning(lambda: path.open("rb")), way))
    assert [answer.body for answer in answers(raw)] == [content] * 3


def test_slow_downloads_hold_up_nobody(loop: str, way: str, tmp_path: Path) -> None:
    """More of them than there are threads, and none is read: others are served. All are closed when they leave."""
    path = tmp_path / "big"
    path.write_bytes(BIG)
    files: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        if environ["PATH_INFO"] == "/quick":
            return [b"quick"]
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[-1])

    async def story() -> None:
        async with WsgiWire(app, way) as first:
            slow = [first]
            for _ in range(3):
                wire = WsgiWire(app, "inline")
                wire.engine = first.engine
                slow.append(await wire.__aenter__())
            for number, wire in enumerate(slow, 1):
                wire.feed(GET)
                await first.until(lambda number=number: len(files) == number)
                await wire.read(b"\r\n\r\n")
            async with WsgiWire(app, "inline") as quick:
                quick.protocol.engine = first.engine
                quick.feed(GET.replace(b"/ ", b"/quick "))
                await quick.read(b"quick")
            for wire in slow:
                wire.client.close()
            await first.rest()
            assert all(file.closed for file in files)
            for wire in slow[1:]:
                await wire.until(lambda wire=wire: not wire.connections)
                wire.clock.stop()

    run(loop, story)


def test_a_wrapper_is_an_iterable(loop: str, way: str) -> None:
    """For middleware that looks into it."""
    wrapper = FileWrapper(io.BytesIO(b"abcde"), 2)
    assert list(wrapper) == [b"ab", b"cd", b"e"]
    wrapper.close()
    assert wrapper.filelike.closed
    assert not hasattr(FileWrapper(Reader(Path("/dev/null"))), "close")
