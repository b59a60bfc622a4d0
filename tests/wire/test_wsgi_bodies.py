"""Bodies of requests: all there before a WSGI application is called."""

from __future__ import annotations

import errno
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from prefork.http.limits import HttpLimits
from prefork.http.wsgi_input import MEMORY_BYTES, BodyBuffer
from tests.wire.rig import answers, run
from tests.wire.test_wsgi_rig import GET, PLAIN, WsgiWire, ask, both_ways, posting, talk, validated

LINES = b"one\ntwo\n\nfour"
BIG = bytes(range(256)) * 8192
"""2 MiB: more than is kept in memory."""

pytestmark = both_ways


def echo(environ: Any, start_response: Any) -> Any:
    """Answer with the body's length as told, and the body."""
    start_response("200 OK", [PLAIN])
    return [environ.get("CONTENT_LENGTH", "-").encode() + b" ", environ["wsgi.input"].read()]


def chunked(*chunks: bytes) -> bytes:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


def split(raw: bytes, size: int) -> list[bytes]:
    return [raw[start : start + size] for start in range(0, len(raw), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("raw", [posting(LINES), chunked(LINES[:5], LINES[5:])])
def test_a_body_comes_whole(loop: str, way: str, raw: bytes, size: int) -> None:
    """However it comes; and its length is told, even if the client has not told it."""
    found, is_closing = run(loop, lambda: talk(split(raw, size), echo, way))
    [answer] = answers(found)
    assert (answer.body, is_closing) == (b"13 " + LINES, False)


@pytest.mark.parametrize("body", [BIG, BIG[:MEMORY_BYTES], BIG[: MEMORY_BYTES + 1]])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_big_body(loop: str, way: str, body: bytes, *, is_chunked: bool) -> None:
    """Beyond a megabyte it goes to a file, which nobody can tell."""
    raw = chunked(*split(body, 100_000)) if is_chunked else posting(body)
    found, _ = run(loop, lambda: talk([*split(raw, 200_000), GET], echo, way))
    first, second = answers(found)
    assert first.body == b"%d " % len(body) + body
    assert second.body == b"- "


def test_the_coding_is_undone(loop: str, way: str) -> None:
    """Nobody who passes the request on must say `chunked` of a body with a length (RFC 9112 §7.1.3)."""
    seen = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(environ)
        return echo(environ, start_response)

    found, _ = run(loop, lambda: talk([chunked()], app, way))
    assert answers(found)[0].body == b"0 "
    assert "HTTP_TRANSFER_ENCODING" not in seen[0]


@pytest.mark.parametrize("size", [10, 2000])
def test_every_way_to_read(loop: str, way: str, size: int) -> None:
    """In memory and from a file alike."""
    body = LINES * size * (64 if size > 1000 else 1)

    def app(environ: Any, start_response: Any) -> Any:
        file = environ["wsgi.input"]
        expected = io.BytesIO(body)
        for name, *arguments in (
            ("read", 2), ("readline",), ("readline", 2), ("readline", -1), ("readlines", 20), ("read", 0), ("__next__",)
        ):  # fmt: skip
            assert getattr(file, name)(*arguments) == getattr(expected, name)(*arguments), name
        assert list(file) == list(expected)
        assert (file.read(), file.read(5), file.readline(), file.readlines()) == (b"", b"", b"", [])
        start_response("200 OK", [PLAIN])
        return [b"fine"]

    assert ask(loop, way, app, posting(body))[0].body == b"fine"


def test_the_validator_agrees(loop: str, way: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        file = environ["wsgi.input"]
        text = [file.read(2), file.readline(), *file.readlines(3), *file]
        start_response("200 OK", [PLAIN])
        return text

    answer, _ = ask(loop, way, validated(app), posting(LINES, b"Content-Type: text/plain"))
    assert answer.body == LINES


def test_the_application_waits_for_the_last_byte(loop: str, way: str) -> None:
    """And only then occupies a thread; until then the body's own deadline holds."""
    called = []

    def app(environ: Any, start_response: Any) -> Any:
        called.append(environ)
        return echo(environ, start_response)

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            raw = posting(LINES)
            wire.feed(raw[:-1])
            exchange = wire.protocol._exchange
            assert exchange.is_waiting_for_body
            assert not wire.engine.running
            assert wire.protocol.deadline_s == pytest.approx(wire.loop.time() + wire.limits.body_s, abs=3)
            assert not called
            wire.feed(raw[-1:])
            assert not exchange.is_waiting_for_body
            await wire.settle()
            await wire.rest()
            assert len(called) == 1

    run(loop, story)


def test_a_body_is_asked_for_at_once(loop: str, way: str) -> None:
    async def story() -> None:
        async with WsgiWire(echo, way) as wire:
            wire.feed(posting(b"abc", b"Expect: 100-continue")[:-3])
            assert await wire.read(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            wire.feed(b"abc")
            assert (await wire.read(b"3 abc")).count(b"HTTP/1.1") == 2
            await wire.rest()
            assert not wire.is_closing

    run(loop, story)


def test_a_client_that_does_not_wait_to_be_asked(loop: str, way: str) -> None:
    answer, is_closing = ask(loop, way, echo, posting(b"abc", b"Expect: 100-continue"))
    assert (answer.status, answer.body, is_closing) == (200, b"3 abc", False)


@pytest.mark.parametrize("raw", [posting(b"a" * 11), chunked(b"a" * 5, b"a" * 6)])
def test_a_body_that_is_too_long(loop: str, way: str, raw: bytes) -> None:
    found, is_closing = run(loop, lambda: talk([raw], echo, way, limits=HttpLimits(body_bytes=10)))
    assert ([answer.status for answer in answers(found)], is_closing) == ([413], True)


def test_a_body_that_does_not_come(loop: str, way: str) -> None:
    """The deadline has passed: 408, and what has come is let go of."""

    async def story() -> None:
        async with WsgiWire(echo, way) as wire:
            wire.feed(posting(BIG)[: MEMORY_BYTES + 100_000])
            file = wire.protocol._exchange._buffer._file
            assert not isinstance(file, io.BytesIO)
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            assert b" 408 " in await wire.read(b"\r\n\r\n")
            assert file.closed
            assert not wire.engine.running

    run(loop, story)


def test_a_client_that_leaves_while_it_sends(loop: str, way: str) -> None:
    """The application never hears of it."""
    called = []

    async def story() -> None:
        async with WsgiWire(lambda *given: called.append(given), way) as wire:
            wire.feed(posting(BIG)[: MEMORY_BYTES + 100_000])
            file = wire.protocol._exchange._buffer._file
            wire.client.close()
            await wire.until(lambda: not wire.connections)
            assert file.closed

    run(loop, story)
    assert not called


@pytest.mark.parametrize("shape", [list, iter])
def test_the_file_is_closed_behind_the_application(loop: str, way: str, shape: Any) -> None:
    files = []

    def app(environ: Any, start_response: Any) -> Any:
        files.append(environ["wsgi.input"])
        start_response("200 OK", [PLAIN, ("Content-Length", "1")])
        return shape([environ["wsgi.input"].read(1)])

    found, _ = run(loop, lambda: talk(split(posting(BIG), 100_000), app, way))
    assert answers(found)[0].body == BIG[:1]
    assert files[0].closed


@pytest.mark.parametrize("where", ["create", "write", "end"])
def test_a_disk_that_is_full(
    loop: str, way: str, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """507 and a closed connection; said once in the log; the application is not called."""
    full = OSError(errno.ENOSPC, "No space left on device")
    files: list[Any] = []

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if where == "write":
                raise full
            return super().write(data)

        def seek(self, *_given: Any) -> int:
            raise full

    def temporary(**_options: Any) -> Any:
        if where == "create":
            raise full
        files.append(Full())
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    called: list[Any] = []
    raw = posting(BIG)
    found, is_closing = run(loop, lambda: talk(split(raw, 100_000), lambda *given: called.append(given), way))
    assert ([answer.status for answer in answers(found)], is_closing) == ([507], True)
    assert [record.message for record in caplog.records] == [
        "a request's body could not be kept, and is answered with 507: POST '/': [Errno 28] No space left on device"
    ]
    assert all(file.closed for file in files)
    assert not called


def test_a_buffer_that_cannot_be_closed(loop: str, way: str) -> None:
    """What a file has buffered may find no room when it is closed; that must not end a worker."""
    buffer = BodyBuffer()
    file = buffer._file = Path("/dev/full").open("w+b")  # noqa: SIM115  (the buffer's to close)
    file.write(b"a")
    buffer.close()
    assert file.closed
