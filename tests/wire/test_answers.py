"""What an application sends, and what comes of it on the wire."""

from __future__ import annotations

import asyncio
import contextvars
import random
import socket
from array import array
from typing import Any

import pytest

from prefork.http.exchange import COMPLETE, LARGE_BYTES, ClientDisconnectedError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.http.response import ResponseError
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, Wire, answers, converse, run, served

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CL = b"content-length"

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def answering(*pieces: bytes, status: Any = 200, headers: Any = (), errors: list[Any] | None = None) -> Any:
    """An application that sends these pieces of a body; what `send` raises goes to `errors`, if given."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            for number, piece in enumerate(pieces, 1):
                more = number < len(pieces)
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        except Exception as error:
            if errors is None:
                raise
            errors.append(error)

    return app


def got(loop: str, app: Any, raw: bytes = GET, method: str = "GET") -> Any:
    found, is_closing = run(loop, lambda: converse([raw], app))
    answer, *rest = answers(found, [method] * 2)
    return answer, is_closing, rest


def test_one_message_gets_its_length(loop: str) -> None:
    """No length given, one message: it is counted, not chunked."""
    answer, is_closing, _ = got(loop, answering(b"abc", headers=[(b"X-A", b"b")]))
    assert (answer.body, answer["content-length"], answer["x-a"], is_closing) == (b"abc", b"3", b"b", False)
    assert answer["date"] is not None
    assert answer["connection"] is None


@pytest.mark.parametrize("of", [tuple, list, iter])
@pytest.mark.parametrize("pair", [tuple, list])
def test_headers_may_be_any_iterable_of_pairs(loop: str, of: Any, pair: Any) -> None:
    """ASGI says iterables, which can be gone through once. Asked for twice, as a head may be remembered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = of([pair((b"content-length", b"1")), pair((b"x-frame-options", b"DENY"))])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a"})

    raw, _ = run(loop, lambda: converse([GET, GET], app))
    assert [(each["x-frame-options"], each["content-length"]) for each in answers(raw)] == [
        (b"DENY", b"1")
    ] * 2


def test_several_messages_are_chunked(loop: str) -> None:
    """An empty piece is no end."""
    answer, is_closing, _ = got(loop, answering(b"ab", b"", b"c" * 100_000, b""))
    assert (answer.body, answer["transfer-encoding"], is_closing) == (
        b"ab" + b"c" * 100_000,
        b"chunked",
        False,
    )


def test_several_messages_with_a_length(loop: str) -> None:
    answer, is_closing, _ = got(loop, answering(b"ab", b"c", headers=[(b"Content-Length", b"3")]))
    assert (answer.body, answer["transfer-encoding"], is_closing) == (b"abc", None, False)


def test_http_1_0_is_kept_with_a_length_only(loop: str) -> None:
    """A client of HTTP/1.0 knows no chunks: the close is the end of the body."""
    answer, is_closing, _ = got(loop, answering(b"abc"), GET_1_0)
    assert (answer.body, answer["connection"], is_closing) == (b"abc", b"keep-alive", False)
    answer, is_closing, _ = got(loop, answering(b"ab", b"c"), GET_1_0)
    assert (answer.body, answer["connection"], is_closing) == (b"abc", b"close", True)
    assert answer["transfer-encoding"] is None


@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"bc")])
def test_head_has_no_body(loop: str, pieces: tuple[bytes, ...]) -> None:
    answer, is_closing, _ = got(loop, answering(*pieces, headers=[(CL, b"3")]), HEAD, "HEAD")
    assert (answer.status, answer["content-length"], is_closing) == (200, b"3", False)


@pytest.mark.parametrize(("status", "length"), [(204, None), (304, b"3")])
@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"bc")])
def test_statuses_without_a_body(loop: str, status: int, length: bytes | None, pieces: Any) -> None:
    """The body is dropped; 204 loses its length too, 304 keeps it."""
    answer, is_closing, _ = got(loop, answering(*pieces, status=status, headers=[(CL, b"3")]), GET + GET)
    assert (answer.status, answer["content-length"], answer["transfer-encoding"]) == (status, length, None)
    assert not is_closing


def test_the_application_may_close(loop: str) -> None:
    headers = [(b"Connection", b"x, Close"), (b"date", b"mine"), (b"transfer-encoding", b"chunked")]
    answer, is_closing, rest = got(loop, answering(b"abc", headers=headers), GET + GET)
    assert (answer["connection"], answer["date"], answer["transfer-encoding"]) == (b"close", b"mine", None)
    assert is_closing
    assert not rest


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b\r\nc: d")],
        [(b"a", b"b\nc")],
        [(b"a", b"b\rc")],
        [(b"a", b"b\0c")],
        [(b"a\r\nb", b"c")],
        [(b"a b", b"c")],
        [(b"a:", b"c")],
        [(b"", b"c")],
        [(b"\xe9", b"c")],
        [("a", "b")],
        [(b"a", "b")],
        [(b"a",)],
        [(CL, b"3"), (CL, b"3")],
        [(CL, b"+3")],
        [(CL, b"")],
        [[b"a", b"b\r\n"]],
        7,
    ],
)
def test_no_header_ends_a_line_of_its_own(loop: str, headers: Any) -> None:
    """What cannot be a header is the application's mistake: 500, and nothing of it gets out."""
    answer, is_closing, rest = got(loop, answering(b"abc", headers=headers))
    assert (answer.status, is_closing, rest) == (500, True, [])
    assert {name for name, _ in answer.headers} == {b"content-type", CL, b"date", b"connection"}


@pytest.mark.parametrize("status", [101, 99, 1000, "200", None])
def test_a_status_that_is_none(loop: str, status: Any) -> None:
    assert got(loop, answering(b"", status=status))[0].status == 500


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab",), (b"",)])
def test_a_body_that_is_not_its_length_is_not_sent(loop: str, pieces: Any) -> None:
    """Found out before anything was sent: 500, also if the application hides the error."""
    errors: list[Any] = []
    answer, is_closing, _ = got(loop, answering(*pieces, headers=[(CL, b"3")], errors=errors))
    assert (answer.status, is_closing) == (500, True)
    assert isinstance(errors[0], ResponseError)


@pytest.mark.parametrize("pieces", [(b"ab", b"cd"), (b"a", b"b"), (b"a", b"", b"")])
def test_a_body_that_turns_out_wrong_ends_the_connection(loop: str, pieces: Any) -> None:
    """Found out too late: not a byte beyond the length, and no further answer on this connection."""
    found, is_closing = run(loop, lambda: converse([GET + GET], answering(*pieces, headers=[(CL, b"3")])))
    assert is_closing
    assert found.count(b"HTTP/1.1") <= 1
    assert b"cd" not in found


def test_a_failed_piece_cannot_be_made_good(loop: str) -> None:
    """An application that goes on after the error has its connection closed all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(CL, b"3")]})
        for body, more in ((b"a", True), (b"b", False), (b"c", False), (b"", False)):
            try:
                await send({"type": "http.response.body", "body": body, "more_body": more})
            except ResponseError:
                continue

    found, is_closing = run(loop, lambda: converse([GET + GET], app))
    assert is_closing
    assert found.count(b"HTTP/1.1") <= 1


def _raising(error: BaseException, *, after: bool) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if after:
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise error

    return app


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), OSError("x")])
def test_an_exception_is_500_and_logged(
    loop: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first byte: 500, its traceback in the log, and the worker lives."""
    answer, is_closing, _ = got(loop, _raising(error, after=False))
    assert (answer.status, is_closing) == (500, True)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info


def test_an_exception_within_a_body_cuts_it(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """After the first byte: no end of the body, so nobody takes it for a whole answer."""
    found, is_closing = run(loop, lambda: converse([GET], _raising(ValueError("x"), after=True)))
    assert is_closing
    assert b"\r\n0\r\n" not in found
    assert len(caplog.records) == 1


def test_an_application_that_says_nothing(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Return without an answer."""

    assert got(loop, app)[0].status == 500
    assert "before its answer was complete" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b""}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
        [{"type": "websocket.accept"}],
    ],
)
def test_messages_out_of_order(loop: str, messages: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    assert got(loop, app)[0].status == 500


def test_continue_is_sent_when_the_body_is_asked_for(loop: str) -> None:
    """100 goes out when the application first waits for the body, and once."""

    async def story() -> None:
        async with Wire() as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
            assert await wire.read(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            wire.feed(b"abc")
            await wire.read(b"[abc]")
            assert [each.status for each in answers(wire.received)] == [100, 200]
            assert not wire.is_closing

    run(loop, story)


def test_no_continue_for_a_body_that_nobody_wants(loop: str) -> None:
    """The answer comes without 100; whether the body follows is unknown then, so the connection ends."""
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    answer, is_closing, rest = got(loop, answering(b"no"), raw + GET)
    assert (answer.status, answer["connection"], is_closing, rest) == (200, b"close", True, [])


def test_a_body_that_was_not_taken_is_read_away(loop: str) -> None:
    """The answer came early: the rest of the body is discarded, and the next request answered."""

    async def story() -> list[int]:
        async with Wire(answering(b"early")) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
            await wire.read(b"early")
            wire.feed(b"def" + GET)
            await wire.settle()
            assert not wire.is_closing
            return [each.status for each in answers(await wire.read_to_end())]

    assert run(loop, story) == [200, 200]


def test_too_much_is_not_read_away(loop: str) -> None:
    """Beyond the bound of what is discarded the connection is closed, and no second answer given."""

    async def story() -> None:
        async with Wire(answering(b"early")) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n")
            await wire.read(b"early")
            wire.feed(*[b"a" * 50_000] * 6)
            assert wire.is_closing
            assert len(answers(await wire.read_to_end())) == 1

    run(loop, story)


def test_reading_stops_while_nobody_takes_the_body(loop: str) -> None:
    """Above the high-water mark nothing more is parsed; once taken, the rest comes."""
    go: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        go.append(asyncio.Event())
        await go[0].wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await answering(b"%d" % size)(scope, receive, send)

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            await wire.until(lambda: go)
            wire.feed(*[b"a" * 100_000] * 10)
            assert wire.protocol._is_read_paused
            assert wire.protocol._exchange is not None
            assert len(wire.protocol._exchange.body) <= 2 * 64 * 1024
            go[0].set()
            await wire.read(b"1000000")
            assert not wire.protocol._is_read_paused

    run(loop, story)


def test_a_slow_reader_holds_the_application_back(loop: str) -> None:
    """`send` waits while the client does not read, goes on when it does, and raises when it is gone."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"a" * 65536, "more_body": True})
                seen.append(1)
        except OSError as error:
            seen.append(error)

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(GET)
            await wire.until(lambda: wire.protocol.is_write_paused)
            count = len(seen)
            while len(seen) < count + 10:
                await wire.loop.sock_recv(wire.client, 2**20)
            await wire.until(lambda: wire.protocol.is_write_paused)
            wire.client.close()

    run(loop, story)
    assert isinstance(seen[-1], ClientDisconnectedError)


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("taken_bytes", [3_000, 2**20])
def test_pieces_large_and_small_keep_their_order(loop: str, taken_bytes: int, *, has_length: bool) -> None:
    """Some are written at once and some wait in the transport; some are more than the kernel takes. Nothing is lost between."""
    sizes = [1, LARGE_BYTES - 1, LARGE_BYTES, 100, 700_000, 7, 0, 65_536, LARGE_BYTES, 5, 300_000]
    pieces = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(whole))] if has_length else []

    async def story() -> None:
        async with Wire(answering(*pieces, headers=headers)) as wire:
            wire.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            wire.feed(GET)
            while not wire.received.endswith(
                whole[-1000:] if has_length else whole[-1000:] + b"\r\n0\r\n\r\n"
            ):
                wire.received += await wire.loop.sock_recv(wire.client, taken_bytes)
            [answer] = answers(wire.received)
            assert answer.body == whole
            assert not wire.is_closing

    run(loop, story)


def test_whoever_leaves_is_told_of(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """`receive` says http.disconnect, again and again; `send` raises; nothing is logged as an error."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append((await receive())["type"])
        seen.append((await receive())["type"])
        await answering(b"x")(scope, receive, send)

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(GET)
            await wire.until(lambda: wire.engine.running)
            wire.protocol.abort()
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert seen == ["http.disconnect"] * 2
    assert not caplog.records


def test_a_half_closed_client_still_gets_its_answer(loop: str) -> None:
    """End of input: `receive` says disconnect, `send` still reaches whoever reads."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await answering(b"late")(scope, receive, send)

    async def story() -> list[bytes]:
        async with Wire(app) as wire:
            wire.feed(GET)
            return [each.body for each in answers(await wire.read_to_end())]

    assert run(loop, story) == [b"late"]


def test_after_its_answer_an_application_goes_on(loop: str) -> None:
    """The next request does not wait for background work, and gets no part of its context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="fresh")
    seen: list[str] = []
    done: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set("used")
        await asyncio.sleep(0)
        await answering(b"x")(scope, receive, send)
        done.append(asyncio.Event())
        await done[-1].wait()

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(GET + GET + GET)
            await wire.until(lambda: len(done) == 3)
            assert len(wire.engine.running) == 3
            for event in done:
                event.set()

    run(loop, story)
    assert seen == ["fresh"] * 3


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", None),
        (GET, None),
        (b"GET / HT", 408),
        (GET + b"GET / HT", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", 408),
    ],
)
def test_patience_ends(loop: str, raw: bytes, status: int | None) -> None:
    """Silent and idle connections are closed without a word; half a request is answered with 408."""

    async def story() -> list[int]:
        async with Wire(limits=HttpLimits(head_s=1, keep_alive_s=2, body_s=3)) as wire:
            wire.feed(raw)
            await wire.settle()
            deadline_s = wire.protocol.deadline_s
            assert deadline_s <= wire.loop.time() + 3
            wire.protocol.on_deadline(deadline_s)
            assert wire.is_closing
            return [each.status for each in answers(await wire.read_to_end())]

    expected = ([200] if raw.startswith(GET) else []) + ([status] if status else [])
    assert run(loop, story) == expected


def test_a_client_that_takes_nothing_is_reset(loop: str) -> None:
    """While it takes something its time begins anew."""

    async def story() -> None:
        async with Wire(answering(b"a" * 3_000_000), limits=HttpLimits(send_s=5)) as wire:
            wire.feed(GET)
            await wire.until(lambda: wire.protocol.is_write_paused)
            before = wire.protocol._transport.get_write_buffer_size()
            while wire.protocol._transport.get_write_buffer_size() == before:
                await wire.loop.sock_recv(wire.client, 2**18)
                await asyncio.sleep(0)
            wire.protocol.on_deadline(100.0)
            assert (wire.protocol.deadline_s, wire.is_closing) == (105.0, False)
            wire.protocol.on_deadline(105.0)
            assert wire.is_closing

    run(loop, story)


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_body_of_text_is_500_and_nothing_else(loop: str, size: int) -> None:
    """Also where its length was given, and is right: neither silence nor a second head."""
    app = answering("x" * size, headers=[(CL, b"%d" % size)])  # type: ignore[arg-type]
    answer, is_closing, rest = got(loop, app)
    assert (answer.status, is_closing, rest) == (500, True, [])


def test_a_body_that_is_waited_for_has_its_time_when_the_client_has_taken_an_answer(loop: str) -> None:
    """It was put off while nothing could be written, and comes back."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x" * 4_000_000, "more_body": True})
        await body

    async def story() -> None:
        async with Wire(app, limits=HttpLimits(body_s=7)) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
            await wire.until(lambda: wire.protocol.is_write_paused)
            while wire.protocol.is_write_paused:
                await wire.loop.sock_recv(wire.client, 2**20)
                await asyncio.sleep(0)
            exchange = wire.protocol._exchange
            assert exchange is not None
            assert exchange.is_waiting_for_body
            assert wire.protocol.deadline_s <= wire.loop.time() + 7

    run(loop, story)


def test_a_late_deadline_of_a_body_that_is_thrown_away(loop: str) -> None:
    """The whole answer fills the buffer; when it is taken, the client still owes a body."""

    async def story() -> None:
        async with Wire(answering(b"a" * 4_000_000), limits=HttpLimits(body_s=7)) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
            await wire.until(lambda: wire.protocol.is_write_paused)
            while wire.protocol.is_write_paused:
                await wire.loop.sock_recv(wire.client, 2**20)
                await asyncio.sleep(0)
            assert wire.protocol.deadline_s <= wire.loop.time() + 7

    run(loop, story)


def test_a_drain_does_not_wait_for_what_is_thrown_away(loop: str) -> None:
    """The answer is sent, and the rest of the request's body nobody's."""

    async def story() -> None:
        async with Wire(answering(b"a")) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
            await wire.until(lambda: wire.protocol._exchange and wire.protocol._exchange.stage == COMPLETE)
            wire.engine.keeps_alive = False
            wire.protocol.say_close()
            wire.protocol.close_when_idle()
            assert wire.is_closing
            wire.protocol.abort()

    run(loop, story)


def test_a_client_that_has_reset_when_it_is_answered(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its answer is the last, so our side is ended; that nobody is there is no mistake of the application."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client.close()  # unseen: the loop does not turn until the answer is written
        await answering(b"x", headers=[(b"connection", b"close")])(scope, receive, send)

    async def story() -> None:
        server = HttpServer(app, options=HttpOptions(lifespan="off"))
        async with served(server) as port:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")

            while client.fileno() >= 0:  # noqa: ASYNC110  (the loop's next turn, not a time)
                await asyncio.sleep(0)

    with socket.socket() as client:
        run(loop, story)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.parametrize("more_body", [False, True])
def test_a_view_of_numbers_is_sent_as_its_bytes(loop: str, *, more_body: bool) -> None:
    """The length of a memoryview counts its items, and each may have several bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        view = memoryview(array("I", [1, 2]))
        await send({"type": "http.response.body", "body": view, "more_body": more_body})
        if more_body:
            await send({"type": "http.response.body"})

    async def story() -> None:
        raw, _ = await converse([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] * 2, app)
        assert [answer.body for answer in answers(raw)] == [array("I", [1, 2]).tobytes()] * 2

    run(loop, story)
