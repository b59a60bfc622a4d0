"""Raw requests and what is answered, whole, byte by byte, and with more behind them."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefork.http.limits import HttpLimits
from prefork.http.protocol import HttpProtocol
from prefork.http.reader import RequestReader
from tests.wire.rig import LOOPS, Wire, answers, converse, run

H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"


def post(headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/" + version + b"\r\n" + H + headers + b"\r\n" + body


GOOD: dict[str, tuple[bytes, bytes]] = {
    "plain": (GET, b"GET / [] []"),
    "query": (b"GET /a?b=c&d HTTP/1.1\r\n" + H + b"\r\n", b"GET /a [b=c&d] []"),
    "percent": (b"GET /%C3%A9%20x?%20 HTTP/1.1\r\n" + H + b"\r\n", "GET /é x [%20] []".encode()),
    "absolute-form": (b"GET http://b.example/p?q HTTP/1.1\r\n" + H + b"\r\n", b"GET /p [q] []"),
    "absolute-form without a path": (b"GET http://b?q HTTP/1.1\r\n" + H + b"\r\n", b"GET / [q] []"),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", b"OPTIONS * [] []"),
    "no host in 1.0": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET / [] []"),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b"GET / [] []"),
    "blank lines before": (b"\r\n\r\n" + GET, b"GET / [] []"),
    "length": (post(b"Content-Length: 3\r\n", b"abc"), b"POST / [] [abc]"),
    "length with blanks": (post(b"Content-Length: 3 \t \r\n", b"abc"), b"POST / [] [abc]"),
    "length zero": (post(b"content-length: 0\r\n"), b"POST / [] []"),
    "chunks": (CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"POST / [] [abc]"),
    "chunk extension": (CHUNKED + b"3;x=y\r\nabc\r\n0\r\n\r\n", b"POST / [] [abc]"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nHost: evil\r\nExpect: x\r\n\r\n", b"POST / [] [abc]"),
    "CHUNKED": (post(b"TRANSFER-ENCODING: Chunked\r\n", b"1\r\na\r\n0\r\n\r\n"), b"POST / [] [a]"),
    "upgrade is plain HTTP": (
        b"GET / HTTP/1.1\r\n" + H + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / [] []",
    ),
    "upgrade with a body": (
        post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n", b"abc"),
        b"POST / [] [abc]",
    ),
    "upgrade with chunks": (
        post(
            b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\n\r\n"
        ),
        b"POST / [] [a]",
    ),
    "obs-text in a value": (b"GET / HTTP/1.1\r\n" + H + b"X: \xff\r\n\r\n", b"GET / [] []"),
    "empty value": (b"GET / HTTP/1.1\r\nX:\r\n" + H + b"\r\n", b"GET / [] []"),
}

BAD: dict[str, tuple[bytes, int]] = {
    "both lengths": (post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "both lengths, turned": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400),
    "list of lengths": (post(b"Content-Length: 3, 3\r\n", b"abc"), 400),
    "signed length": (post(b"Content-Length: +3\r\n", b"abc"), 400),
    "negative length": (post(b"Content-Length: -3\r\n", b"abc"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x3\r\n", b"abc"), 400),
    "empty length": (post(b"Content-Length:\r\n", b"abc"), 400),
    "huge length": (post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    "space before the colon": (post(b"Content-Length : 3\r\n", b"abc"), 400),
    "obs-fold": (b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n c\r\n\r\n", 400),
    "obs-fold with a tab": (b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n\tc\r\n\r\n", 400),
    "space before the first header": (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in a header": (b"GET / HTTP/1.1\r\n" + H + b"A: b\nC: d\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\n" + H + b"A: b\rc\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\n" + H + b"A: b\0c\r\n\r\n", 400),
    "NUL in a name": (b"GET / HTTP/1.1\r\n" + H + b"A\0: b\r\n\r\n", 400),
    "control character": (b"GET / HTTP/1.1\r\n" + H + b"A: \x01\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\n" + H + b"nothing\r\n\r\n", 400),
    "no name": (b"GET / HTTP/1.1\r\n" + H + b": x\r\n\r\n", 400),
    "blank in a name": (b"GET / HTTP/1.1\r\n" + H + b"A b: x\r\n\r\n", 400),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "gzip": (post(b"Transfer-Encoding: gzip\r\n"), 501),
    "identity": (post(b"Transfer-Encoding: identity\r\n"), 501),
    "chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), 400),
    "chunked twice": (
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
    ),
    "chunked in 1.0": (post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"1.0"), 400),
    "chunk size that is none": (CHUNKED + b"x\r\n", 400),
    "chunk size with a prefix": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "chunk size with a blank": (CHUNKED + b"1 \r\na\r\n0\r\n\r\n", 400),
    "huge chunk size": (CHUNKED + b"fffffffffffffffff\r\n", 400),
    "chunk size and bare LF": (CHUNKED + b"1\na\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    "length in a trailer": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    "host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host that is a port alone": (b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
    "absolute-form with a port alone": (b"GET http://:80/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nHOST: a/b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no version": (b"GET / FTP/1.1\r\n" + H + b"\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "other scheme": (b"GET ftp://h/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    "bytes above 127 in the target": (b"GET /\xff HTTP/1.1\r\n" + H + b"\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n" + H + b"\r\n", 501),
    "unknown method": (b"BREW / HTTP/1.1\r\n" + H + b"\r\n", 501),
    "a TLS hello": (b"\x16\x03\x01\x02\x00", 501),
    "other expectation": (post(b"Expect: more\r\nContent-Length: 1\r\n", b"a"), 417),
    "long target": (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "long head": (b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 500 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + H + b"a: b\r\n" * 20 + b"\r\n", 431),
    "long body": (post(b"Content-Length: 101\r\n"), 413),
    "long chunked body": (
        CHUNKED + b"60\r\n" + b"a" * 0x60 + b"\r\n60\r\n" + b"a" * 0x60 + b"\r\n0\r\n\r\n",
        413,
    ),
}

SMALL = HttpLimits(target_bytes=100, head_bytes=400, header_count=10, body_bytes=100)

EVERYTHING = [raw for raw, _ in GOOD.values()] + [raw for raw, _ in BAD.values()]

ENDLESS = {
    "header": b"GET / HTTP/1.1\r\n" + H + b"A: " + b"b" * 900,
    "trailer": CHUNKED + b"0\r\nA: " + b"b" * 900,
    "chunk extension": CHUNKED + b"1;" + b"b" * 900,
    "blank lines": b"\r\n" * 450,
    "headers": b"GET / HTTP/1.1\r\n" + H + b"a: b\r\n" * 200,
}


def said(loop: str, *pieces: bytes) -> tuple[bytes, bool]:
    return run(loop, lambda: converse(pieces, limits=SMALL))


def bytewise(raw: bytes) -> list[bytes]:
    return [raw[i : i + 1] for i in range(len(raw))]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_request_is_answered_and_the_connection_kept(loop: str, name: str) -> None:
    """Whole, byte by byte, and with another request behind it: the same answer, and the other's after it."""
    raw, body = GOOD[name]
    whole, is_closing = said(loop, raw)
    (answer,) = answers(whole)
    assert (answer.status, answer.body, is_closing) == (200, body, False)
    assert said(loop, *bytewise(raw)) == (whole, False)
    followed, is_closing = said(loop, raw + GET)
    assert [each.body for each in answers(followed)] == [body, b"GET / [] []"]
    assert not is_closing


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_and_the_connection_closed(loop: str, name: str) -> None:
    """Whole, byte by byte, behind a good one, and with more behind it, which is never taken for a request."""
    raw, status = BAD[name]
    whole, is_closing = said(loop, raw)
    (answer,) = answers(whole)
    assert (answer.status, answer["connection"], is_closing) == (status, b"close", True)
    assert said(loop, *bytewise(raw)) == (whole, True)
    assert said(loop, raw + GET) == (whole, True)
    followed, _ = said(loop, GET + raw)
    assert [each.status for each in answers(followed)] == [200, status]


HEAD_REFUSED = {
    "in its target": (b"HEAD /" + b"a" * 200 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "in its headers": (b"HEAD / HTTP/1.1\r\n" + H + b"a: b\r\n" * 20 + b"\r\n", 431),
    "at the end of its head": (b"HEAD / HTTP/1.1\r\n\r\n", 400),
    "in its body": (b"HEAD / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", HEAD_REFUSED)
def test_the_refusal_of_a_head_request_has_no_body(loop: str, name: str) -> None:
    """Its length and no text (RFC 9110 §9.3.2); behind it the refusal of another method has its text again."""
    raw, status = HEAD_REFUSED[name]
    for pieces in ([raw], bytewise(raw)):
        found, is_closing = said(loop, *pieces)
        (answer,) = answers(found, ("HEAD",))
        assert (answer.status, answer["connection"], is_closing) == (status, b"close", True)
        assert answer["content-length"] not in (None, b"0")
    found, _ = said(loop, b"HEAD / HTTP/1.1\r\n" + H + b"\r\n" + b"GET / HTTP/1.1\r\n\r\n")
    assert [each.body for each in answers(found, ("HEAD", "GET"))] == [b"", b"400 Bad Request\n"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_head_request_whose_body_stalls_gets_no_text(loop: str) -> None:
    """408, its head alone."""

    async def story() -> bytes:
        async with Wire() as wire:
            wire.feed(b"HEAD / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\n\r\n")
            await wire.settle()
            wire.protocol.on_deadline(wire.loop.time())
            return await wire.read_to_end()

    (answer,) = answers(run(loop, story), ("HEAD",))
    assert answer.status == 408


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_ended(loop: str, name: str) -> None:
    """Parts without a length of their own are bounded as a head is, however slowly they come."""
    found, is_closing = said(loop, *bytewise(ENDLESS[name]))
    assert ([each.status for each in answers(found)], is_closing) == ([431], True)


@pytest.mark.parametrize("loop", LOOPS)
def test_pipelined_requests_are_answered_in_order(loop: str) -> None:
    """Two thousand requests in one read: as many answers, in order, and no deep recursion."""
    raw = b"".join(b"GET /%d HTTP/1.1\r\n" % number + H + b"\r\n" for number in range(2000))
    found, is_closing = said(loop, raw)
    assert [each.body for each in answers(found)] == [b"GET /%d [] []" % number for number in range(2000)]
    assert not is_closing


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_last_request_is_the_last(loop: str, version: bytes) -> None:
    """After `connection: close`, or a plain HTTP/1.0 request, what follows is not answered."""
    extra = b"Connection: close\r\n" if version == b"1.1" else b""
    found, is_closing = said(loop, b"GET / HTTP/" + version + b"\r\n" + H + extra + b"\r\n" + GET)
    (answer,) = answers(found)
    assert (answer.status, answer["connection"], is_closing) == (200, b"close", True)


@settings(max_examples=150)
@given(raw=st.sampled_from(EVERYTHING), after=st.sampled_from([b"", GET, GET + GET]), data=st.data())
def test_how_bytes_are_split_changes_nothing(raw: bytes, after: bytes, data: st.DataObject) -> None:
    """Whatever the pieces, the answers are those of the whole."""
    stream = GET + raw + after
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    pieces = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert said("uvloop", *pieces) == said("uvloop", stream)


@settings(max_examples=150)
@given(raw=st.sampled_from(EVERYTHING), junk=st.binary(max_size=8), data=st.data())
def test_nothing_that_a_client_sends_is_a_defect(raw: bytes, junk: bytes, data: st.DataObject) -> None:
    """Bytes put anywhere into any request: only whole answers come back, and nothing is logged as a defect."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = seen.append  # type: ignore[method-assign]
    logging.getLogger("prefork.http").addHandler(handler)
    try:
        at = data.draw(st.integers(0, len(raw)))
        found, _ = said("uvloop", raw[:at] + junk + raw[at + data.draw(st.integers(0, 8)) :], GET)
        answers(found)
    finally:
        logging.getLogger("prefork.http").removeHandler(handler)
    assert not seen


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scope_says_what_asgi_says(loop: str) -> None:
    """Names in lower case, values as they came, state copied, and the target's host before the header's."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        scope["state"]["mine"] = 1
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def story() -> None:
        async with Wire(app, state={"shared": 1}) as wire:
            wire.feed(b"GET HTTP://b:1/%41?q HTTP/1.1\r\nHOST: a\r\nX-Own:  V \r\nCookie: c\r\n\r\n" + GET)
            await wire.settle()

    run(loop, story)
    first, second = scopes
    assert first["headers"] == [(b"host", b"b:1"), (b"x-own", b"V"), (b"cookie", b"c")]
    assert (first["path"], first["raw_path"], first["query_string"]) == ("/A", b"/%41", b"q")
    assert (first["type"], first["http_version"], first["scheme"], first["root_path"]) == (
        "http",
        "1.1",
        "http",
        "",
    )
    assert second["state"] == {"shared": 1, "mine": 1}
    assert first["state"] is not second["state"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_host_among_trailers_is_not_remembered_as_good(loop: str) -> None:
    """Trailers are not checked; the next request's Host is."""
    evil = b"Host: a/../@b <x>\r\n"
    upload = CHUNKED + b"0\r\n" + evil + b"\r\n"
    raw, _ = run(loop, lambda: converse([upload, b"GET / HTTP/1.1\r\n" + evil + b"\r\n"]))
    assert [each.status for each in answers(raw)] == [200, 400]


@pytest.mark.parametrize("loop", LOOPS)
def test_headers_are_counted_behind_a_request_that_runs(loop: str) -> None:
    """A head of 64 KiB is 750 KiB of headers of four bytes each."""

    async def story() -> None:
        ended = asyncio.Event()

        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            await ended.wait()

        async with Wire(app, limits=HttpLimits(header_count=10)) as wire:
            wire.feed(GET, b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 12)  # the last ends with the next
            held = wire.protocol._reader.header_count, wire.protocol._refusal
            ended.set()
        assert held == (11, 431)

    run(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_has_ended_is_no_garbage(loop: str) -> None:
    """Nothing of it is in a circle: no collection is needed to let go of it."""

    async def story() -> int:
        async def one() -> None:
            async with Wire() as wire:
                wire.feed(GET)
                await wire.settle()

        def count() -> int:
            # By type: `isinstance` asks lazy objects, such as Django's, for their class.
            return sum(issubclass(type(each), HttpProtocol | RequestReader) for each in gc.get_objects())

        await one()
        gc.collect()
        gc.disable()
        try:
            before = count()
            for _ in range(5):
                await one()
            await asyncio.sleep(0)
            return count() - before
        finally:
            gc.enable()

    assert run(loop, story) == 0
