"""What a WSGI application returns, and what comes of it on the wire; each shape behind the standard library's validator."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from prefork.errors import DrainedError
from tests.wire.rig import answers, run
from tests.wire.test_wsgi_rig import (
    GET,
    HEAD,
    PLAIN,
    WsgiWire,
    answering,
    ask,
    both_ways,
    talk,
    validated,
)

GET_1_0 = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

pytestmark = both_ways


class Closing:
    """An iterable that counts how often it was closed."""

    def __init__(self, pieces: Any) -> None:
        self.pieces = iter(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed += 1


def written(pieces: Any) -> Any:
    """An application that uses `write`."""

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [PLAIN])
        for piece in pieces:
            write(piece)
        return []

    return app


@pytest.mark.parametrize("shape", [list, tuple])
@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"", b"bc"), (b"abc", b"")])
def test_what_is_there_is_one_piece(loop: str, way: str, shape: Any, pieces: Any) -> None:
    """A list gets its length, and is not chunked."""
    assert ask(loop, way, validated(answering(*pieces, shape=shape)))[0].body == b"abc"
    answer, is_closing = ask(loop, way, answering(*pieces, shape=shape))
    assert (answer.body, answer["content-length"], is_closing) == (b"abc", b"3", False)
    assert answer["date"] == b"now"


def test_nothing_is_an_answer(loop: str, way: str) -> None:
    for shape in (list, iter):
        answer, is_closing = ask(loop, way, answering(shape=shape))
        assert (answer.status, answer.body, answer["content-length"], is_closing) == (200, b"", b"0", False)


@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"", b"bc"), (b"a" * 100_000, b"b" * 100_000)])
def test_an_iterable_is_chunked(loop: str, way: str, pieces: Any) -> None:
    """Its length is not known before its end."""
    answer, is_closing = ask(loop, way, validated(answering(*pieces, shape=iter)))
    assert (answer.body, answer["transfer-encoding"], is_closing) == (b"".join(pieces), b"chunked", False)


@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"bc"), (b"", b"abc", b"")])
@pytest.mark.parametrize("shape", [list, iter, Closing])
def test_a_length_given_is_sent(loop: str, way: str, pieces: Any, shape: Any) -> None:
    app = answering(*pieces, headers=[PLAIN, ("Content-Length", "3")], shape=shape)
    answer, is_closing = ask(loop, way, app)
    assert (answer.body, answer["content-length"], answer["transfer-encoding"]) == (b"abc", b"3", None)
    assert not is_closing


def test_an_application_may_be_a_generator(loop: str, way: str) -> None:
    """Then start_response is called when the first piece is asked for."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        yield b"abc"
        yield b"def"

    answer, _ = ask(loop, way, validated(app))
    assert answer.body == b"abcdef"


def test_an_application_may_write(loop: str, way: str) -> None:
    answer, is_closing = ask(loop, way, validated(written([b"a", b"bc", b"d" * 200_000])))
    assert (answer.body, is_closing) == (b"abc" + b"d" * 200_000, False)


def test_what_was_written_comes_first(loop: str, way: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"a")
        write(b"")
        write(b"b")
        return [b"c", b"d"]

    answer, is_closing = ask(loop, way, app)
    assert (answer.body, is_closing) == (b"abcd", False)


@pytest.mark.parametrize("shape", [list, iter])
@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"bc")])
def test_head_has_no_body(loop: str, way: str, shape: Any, pieces: Any) -> None:
    app = answering(*pieces, headers=[PLAIN, ("Content-Length", "3")], shape=shape)
    answer, is_closing = ask(loop, way, app, HEAD, "HEAD")
    assert (answer.status, answer["content-length"], is_closing) == (200, b"3", False)


@pytest.mark.parametrize("shape", [list, iter])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(loop: str, way: str, status: str, shape: Any) -> None:
    answer, is_closing = ask(loop, way, answering(b"abc", status=status, headers=[], shape=shape))
    assert (answer.body, answer["transfer-encoding"], is_closing) == (b"", None, False)


def test_http_1_0_ends_with_the_connection(loop: str, way: str) -> None:
    """A client of HTTP/1.0 knows no chunks."""
    answer, is_closing = ask(loop, way, answering(b"abc"), GET_1_0)
    assert (answer.body, answer["connection"], is_closing) == (b"abc", b"keep-alive", False)
    answer, is_closing = ask(loop, way, answering(b"a", b"bc", shape=iter), GET_1_0)
    assert (answer.body, answer["connection"], is_closing) == (b"abc", b"close", True)


def test_the_phrase_is_the_applications(loop: str, way: str) -> None:
    for status, line in (
        ("200 OK", b"HTTP/1.1 200 OK\r\n"),
        ("200 Fine", b"HTTP/1.1 200 Fine\r\n"),
        ("299 \xe9", b"HTTP/1.1 299 \xe9\r\n"),
        ("404", b"HTTP/1.1 404 \r\n"),
    ):
        raw, _ = run(loop, lambda status=status: talk([GET], answering(b"a", status=status), way))
        assert raw.startswith(line)


def test_names_are_lower_case_and_values_latin_1(loop: str, way: str) -> None:
    answer, _ = ask(
        loop, way, answering(b"", headers=[("X-A", "\xe9\t!"), ("Set-Cookie", "a"), ("Set-Cookie", "b")])
    )
    assert answer["x-a"] == b"\xe9\t!"
    assert [value for name, value in answer.headers if name == b"set-cookie"] == [b"a", b"b"]


@pytest.mark.parametrize(
    "headers",
    [
        [("a", "b\r\nc: d")],
        [("a", "b\nc")],
        [("a", "b\x00")],
        [("a", "b\x7f")],
        [("a b", "c")],
        [("", "c")],
        [("a", "\u20ac")],
        [("\u20ac", "a")],
        [(b"a", b"b")],
        [("a", 1)],
        [("a",)],
        ["abc"],
        [3],
        [["a", b"b"]],
        [("Connection", "close")],
        [("Transfer-Encoding", "chunked")],
        [("UPGRADE", "h2c")],
        [("Content-Length", "-1")],
        [("Content-Length", "1"), ("Content-Length", "1")],
    ],
)
def test_heads_that_must_not_be(loop: str, way: str, headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered with 500, and logged with its traceback."""
    answer, is_closing = ask(loop, way, answering(b"a", headers=headers))
    assert (answer.status, is_closing) == (500, True)
    assert "ResponseError" in caplog.text
    assert "start_response(status" in caplog.text


@pytest.mark.parametrize(
    "status",
    [
        "",
        "OK",
        "20 OK",
        "2000 OK",
        "100 Continue",
        "200OK",
        "200 a\r\nb: c",
        "\u0662\u0660\u0660 OK",
        b"200 OK",
        200,
        None,
    ],
)
def test_statuses_that_must_not_be(loop: str, way: str, status: Any) -> None:
    answer, is_closing = ask(loop, way, answering(b"a", status=status))
    assert (answer.status, is_closing) == (500, True)


def test_a_head_may_be_replaced_until_it_is_sent(loop: str, way: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        try:
            raise ValueError("early")  # noqa: TRY301
        except ValueError:
            start_response("503 Busy", [PLAIN], sys.exc_info())
        return [b"busy"]

    answer, is_closing = ask(loop, way, validated(app))
    assert (answer.status, answer.body, is_closing) == (503, b"busy", False)


def test_a_head_that_was_sent_stays(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """start_response raises what it was given, and the connection is closed in the midst of the body."""
    raised = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        yield b"abc"
        try:
            raise ValueError("late")  # noqa: TRY301
        except ValueError:
            try:
                start_response("500 Oops", [PLAIN], sys.exc_info())
            except ValueError as error:
                raised.append(error)
                raise

    raw, is_closing = run(loop, lambda: talk([GET], app, way))
    assert is_closing
    assert not raw.endswith(b"0\r\n\r\n")
    assert len(raised) == 1
    assert "ValueError: late" in caplog.text


def test_start_response_once_only(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        start_response("200 OK", [PLAIN])
        return [b"abc"]

    answer, is_closing = ask(loop, way, app)
    assert (answer.status, is_closing) == (500, True)
    assert "without exc_info" in caplog.text


@pytest.mark.parametrize("body", [[], [b"a"], [b"a", b"b"], (), {b"a": 1}, {}, None, 3, "a", ["a"]])
def test_without_start_response_there_is_no_answer(
    loop: str, way: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer, is_closing = ask(loop, way, lambda _environ, _start_response: body)
    assert (answer.status, is_closing) == (500, True)
    assert "the application raised: GET '/'" in caplog.text


@pytest.mark.parametrize("body", [None, 3, "a", ["a"], [b"a", "b"], [3, 4], {"a": 1}])
def test_bodies_that_must_not_be(loop: str, way: str, body: Any) -> None:
    answer, is_closing = ask(loop, way, answering(shape=lambda _pieces: body))
    assert (answer.status, is_closing) == (500, True)


@pytest.mark.parametrize("shape", [list, iter])
@pytest.mark.parametrize("length", ["2", "4"])
def test_a_length_that_is_wrong_of_what_is_whole(loop: str, way: str, length: str, shape: Any) -> None:
    """Nothing was sent, so that it can be told; or the connection is closed."""
    app = answering(b"abc", headers=[("Content-Length", length)], shape=shape)
    raw, is_closing = run(loop, lambda: talk([GET + GET], app, way))
    assert is_closing
    assert raw.count(b"HTTP/1.1 ") == 1
    assert raw.startswith(b"HTTP/1.1 500 ") or (
        shape is iter and length == "4" and raw.endswith(b"\r\n\r\nabc")
    )


def test_what_is_too_long_is_not_sent(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer was whole with its first piece: the client has no harm from what follows, and the log tells it."""
    app = answering(b"abc", b"def", headers=[("Content-Length", "3")], shape=iter)
    raw, is_closing = run(loop, lambda: talk([GET, GET], app, way))
    assert [answer.body for answer in answers(raw)] == [b"abc", b"abc"]
    assert not is_closing
    assert "ResponseError" in caplog.text


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), SystemExit()])
def test_an_application_that_raises(
    loop: str, way: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        raise error

    answer, is_closing = ask(loop, way, app)
    assert (answer.status, is_closing) == (500, True)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"bc")])
def test_an_iterable_is_closed_once(loop: str, way: str, pieces: Any) -> None:
    """And in the context that the application has had."""
    seen: list[Any] = []
    variable = contextvars.ContextVar[str]("variable")

    class Noting(Closing):
        def close(self) -> None:
            super().close()
            seen.append((self.closed, variable.get(None)))

    def app(environ: Any, start_response: Any) -> Any:
        variable.set("mine")
        start_response("200 OK", [PLAIN])
        return Noting(pieces)

    answer, _ = ask(loop, way, validated(app))
    assert answer.body == b"".join(pieces)
    assert seen == [(1, "mine")]


@pytest.mark.parametrize("pieces_before", [0, 1, 2])
def test_an_iterable_that_raises_is_closed_once(
    loop: str, way: str, pieces_before: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def pieces() -> Iterator[bytes]:
        yield from [b"abc"] * pieces_before
        raise ValueError("broken")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [PLAIN])
        made.append(Closing(pieces()))
        return made[0]

    raw, is_closing = run(loop, lambda: talk([GET], app, way))
    assert made[0].closed == 1
    assert is_closing
    assert raw.startswith(b"HTTP/1.1 200 " if pieces_before else b"HTTP/1.1 500 ")
    assert not raw.endswith(b"0\r\n\r\n")
    assert "ValueError: broken" in caplog.text


@pytest.mark.parametrize("error", [ValueError("stuck"), SystemExit(3)])
def test_a_close_that_raises_is_logged(
    loop: str, way: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is complete; the connection stays."""

    class Failing(Closing):
        def close(self) -> None:
            raise error

    answer, is_closing = ask(loop, way, answering(b"abc", headers=[("Content-Length", "3")], shape=Failing))
    assert (answer.body, is_closing) == (b"abc", False)
    assert "Traceback" in caplog.text


def test_each_request_has_its_own_context(loop: str, way: str) -> None:
    variable = contextvars.ContextVar[str]("variable")
    seen = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(variable.get(None))
        variable.set("left over")
        start_response("200 OK", [PLAIN])
        yield b"a"
        seen.append(variable.get(None))
        yield b"b"

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            wire.feed(GET + GET)
            await wire.settle()
            await wire.rest()

    run(loop, story)
    assert seen == [None, "left over"] * 2


def test_pipelined_requests_are_answered_in_order(loop: str, way: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        text = environ["PATH_INFO"].encode()
        start_response("200 OK", [PLAIN])
        return [text] if len(text) % 2 else iter([text])

    paths = [b"/" + b"x" * number for number in range(40)]
    raw, _ = run(
        loop,
        lambda: talk([b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths)], app, way),
    )
    assert [answer.body for answer in answers(raw)] == paths


@pytest.mark.parametrize("error", [DrainedError(), KeyboardInterrupt()])
@pytest.mark.parametrize("shape", ["call", "piece"])
def test_what_is_not_the_applications_goes_on(
    loop: str, way: str, error: BaseException, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The process is told to leave: on its main thread that must not be taken for a mistake of the application."""
    if way == "threads":
        pytest.skip("the process is told on its main thread")

    def pieces() -> Iterator[bytes]:
        raise error
        yield b""

    def app(environ: Any, start_response: Any) -> Any:
        if shape == "call":
            raise error
        start_response("200 OK", [PLAIN])
        return Closing(pieces())

    async def story() -> None:
        async with WsgiWire(app, way) as wire:
            with pytest.raises(type(error)):
                wire.feed(GET)
            assert asyncio.get_running_loop() is wire.loop
            assert b" 500 " in await wire.read(b"\r\n\r\n")
            assert not wire.engine.running

    run(loop, story)
    assert ("Traceback" in caplog.text) == isinstance(error, KeyboardInterrupt)
