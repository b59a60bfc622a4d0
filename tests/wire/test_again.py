"""What came before is not parsed again, whoever sends it: nobody may be able to tell."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefork.http.forwarded import TrustedProxies
from prefork.http.limits import HttpLimits
from prefork.http.site import Site
from tests.wire.rig import LOOPS, Wire, answers, run

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n"
LOCK = b"LOCK /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
REQUESTS = {
    "get": GET,
    "nearly": GET.replace(b"X-A: 1", b"X-A: 2"),
    "another": b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    "other target": GET.replace(b"/a?b=c", b"/x%20y/?"),
    "other method": GET.replace(b"GET", b"DELETE"),
    "head of the same": GET.replace(b"GET", b"HEAD"),
    "asterisk of the same": GET.replace(b"GET /a?b=c", b"OPTIONS *"),
    "absolute of the same": GET.replace(b"/a?b=c", b"http://b/a"),
    "fragment of the same": GET.replace(b"/a?b=c", b"/a#b"),
    "1.0 of the same": GET.replace(b"1.1", b"1.0"),
    "blanks in the same": GET.replace(b"GET /", b"GET  /"),
    "long target of the same": GET.replace(b"/a?b=c", b"/" + b"a" * 300),
    "unknown method of the same": GET.replace(b"GET", b"BREW"),
    "connect of the same": GET.replace(b"GET /a?b=c", b"CONNECT a:1"),
    "lock": LOCK,
    "post": POST,
    "empty post": b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "chunked": b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "expecting": POST.replace(b"Content", b"Expect: 100-continue\r\nContent"),
    "head": b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "forwarded": GET.replace(b"X-A: 1", b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https"),
    "absolute": b"GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "1.0 close": b"GET / HTTP/1.0\r\n\r\n",
    "close": GET.replace(b"X-A: 1", b"Connection: close"),
    "h2c": GET.replace(b"X-A: 1", b"Connection: upgrade\r\nUpgrade: h2c"),
    "slow": b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad": b"GET / HTTP/1.1\r\n\r\n",
    "long head": GET.replace(b"X-A: 1", b"X-A: " + b"1" * 2000),
    "too long head": GET.replace(b"X-A: 1", b"X-A: " + b"1" * 5000),
    "line break": b"\r\n",
}
TAILS = [
    b"",
    b"",
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"UN",
    b"G",
    b"GET",
    b"GET ",
    b"GET /",
    GET[:40],
    GET,
    POST,
    POST[:-1],
]
LIMITS = HttpLimits(head_bytes=4000, target_bytes=200)
DRAIN = "drain"


async def witness(scope: Any, receive: Any, send: Any) -> None:
    """Answer with all that it was told, and then change it."""
    said = repr(sorted((name, value) for name, value in scope.items() if name != "server"))
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0)
    text = f"{said} {body!r}".encode()
    head = [(b"content-length", b"%d" % len(text))]
    scope["headers"].append((b"x-left", b"behind"))
    scope["state"]["left"] = "behind"
    scope["path"] = "/left-behind"
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": text})


async def hear(
    pieces: list[tuple[bytes | str, bool]], *, is_forgetful: bool, before: tuple[bytes, ...] = ()
) -> tuple[bytes, bool]:
    """What is answered to these pieces; `is_forgetful`: by a connection that parses all that it reads.

    `before`: what others have asked, three times each.
    """
    site = Site(trusted=TrustedProxies("unix"))
    async with Wire(witness, limits=LIMITS, site=site, state={"known": 1}) as wire:
        for piece in before * 3:
            async with Wire(witness, limits=LIMITS, site=site) as other:
                other.engine = wire.engine
                other.protocol = await other.another()
                other.feed(piece)
                await other.settle()
        for piece, is_settled in pieces:
            if is_forgetful:
                wire.protocol._is_between = False
            if isinstance(piece, bytes):
                wire.feed(piece)
            else:
                wire.engine.keeps_alive = False
                wire.protocol.say_close()
            await (wire.settle() if is_settled else asyncio.sleep(0))
        await wire.settle()
        is_closing = wire.is_closing
        raw = await wire.read_to_end()
        return re.sub(rb"date: [^\r]*GMT", b"date: now", raw), is_closing


def sequences() -> st.SearchStrategy[list[tuple[bytes | str, bool]]]:
    """Few different pieces, many times: requests, with the beginning of what follows, halves, and a drain."""
    whole = st.sampled_from(list(REQUESTS.values()))
    joined = st.builds(bytes.__add__, whole, st.sampled_from(TAILS))
    half = st.builds(lambda raw, cut: raw[cut % len(raw) :], whole, st.integers(0, 60))
    start = st.builds(lambda raw, cut: raw[: cut % len(raw)], whole, st.integers(0, 60))
    some: st.SearchStrategy[list[bytes | str]] = st.lists(
        st.one_of(whole, whole, joined, half, start, st.just(DRAIN)), min_size=1, max_size=4
    )
    return some.flatmap(
        lambda few: st.lists(
            st.tuples(st.sampled_from(few), st.sampled_from([True, True, True, False])),
            min_size=3,
            max_size=12,
        )
    )


def each_settled(*pieces: bytes | str) -> list[tuple[bytes | str, bool]]:
    return [(piece, True) for piece in pieces]


@given(sequences())
@example(each_settled(GET, GET, GET, GET))
@example(each_settled(GET, GET, DRAIN, GET, GET))
@example(each_settled(LOCK, LOCK, GET + b"UN", LOCK))
@example(each_settled(LOCK, LOCK, POST + b"UN", LOCK))
@example(each_settled(LOCK, LOCK, b"UN", LOCK, LOCK))
@example(each_settled(LOCK, LOCK, REQUESTS["h2c"] + b"UN", LOCK))
@example(each_settled(LOCK, LOCK, LOCK + b"\r\n", LOCK, LOCK))
@example(each_settled(GET, GET, GET + b"GE", GET))
@example(each_settled(GET, GET, GET + GET + b"GE", GET))
@example(each_settled(LOCK, GET, LOCK, LOCK, GET + b"UN", LOCK, LOCK))
def test_nobody_can_tell_whether_a_request_was_parsed(pieces: list[tuple[bytes | str, bool]]) -> None:
    """Whatever comes, however it is cut: byte by byte the same answers as from a connection that parses everything."""
    # uvloop only: which loop it is makes no difference here, and the examples are many.
    kept = run("uvloop", lambda: hear(pieces, is_forgetful=False))
    assert kept == run("uvloop", lambda: hear(pieces, is_forgetful=True))


async def hear_two(pieces: list[tuple[bytes, bool, bool]]) -> list[bytes]:
    """What each of two connections of one worker is answered; of a piece is said whether it is for the first."""
    site = Site(trusted=TrustedProxies("unix"))
    async with (
        Wire(witness, limits=LIMITS, site=site, state={"known": 1}) as one,
        Wire(witness, limits=LIMITS, site=Site(trusted=TrustedProxies(()))) as two,
    ):
        two.engine = one.engine
        await two.another()
        assert two.protocol.template is one.protocol.template
        for piece, is_settled, is_first in pieces:
            wire = one if is_first else two
            wire.feed(piece)
            await (wire.settle() if is_settled else asyncio.sleep(0))
        said = []
        for wire in (one, two):
            await wire.settle()
            said.append(re.sub(rb"date: [^\r]*GMT", b"date: now", await wire.read_to_end()))
        return said


@given(sequences(), st.lists(st.booleans(), min_size=12, max_size=12))
@example(each_settled(*[REQUESTS["forwarded"]] * 6), [True, False] * 6)
@example(each_settled(GET, REQUESTS["other target"], LOCK, GET, GET, LOCK), [True, True, False] * 4)
def test_nobody_can_tell_who_else_is_there(pieces: list[tuple[bytes | str, bool]], turns: list[bool]) -> None:
    """Two at once, one of them trusted to say who it is: each is answered as it would be alone."""
    mixed = [
        (piece, is_settled, turn)
        for (piece, is_settled), turn in zip(pieces, turns, strict=False)
        if isinstance(piece, bytes)
    ]
    together = run("uvloop", lambda: hear_two(mixed))
    for is_first, said in zip((True, False), together, strict=True):
        alone = [each for each in mixed if each[2] == is_first]
        assert said == run("uvloop", lambda alone=alone: hear_two(alone))[not is_first]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("before", REQUESTS)
def test_nobody_can_tell_what_others_have_asked(loop: str, before: str) -> None:
    """Whatever came first, from others, the same answer to each kind of request, alone and with others behind it."""
    for raw in REQUESTS.values():
        for pieces in (each_settled(raw), each_settled(raw, GET), each_settled(raw + b"UN", LOCK)):
            told = run(
                loop, lambda pieces=pieces: hear(pieces, is_forgetful=False, before=(REQUESTS[before],))
            )
            assert told == run(loop, lambda pieces=pieces: hear(pieces, is_forgetful=True))


@given(
    st.binary(max_size=12),
    st.sampled_from([b"GET ", b"PUT ", b"UNLOCK ", b"get ", b"", b"GET / HTTP/1.1\r\nA: "]),
)
@example(b"/a b", b"GET ")
@example(b"/a\x7f", b"GET ")
@example(b"/\xff", b"GET ")
@example(b'/"<>\\^`{|}', b"GET ")
def test_a_first_line_is_read_as_the_parser_reads_it(target: bytes, method: bytes) -> None:
    """Before headers that are known: whatever stands for the target."""
    raw = method + target + GET[GET.index(b" HTTP") :]
    kept = run("uvloop", lambda: hear(each_settled(raw, GET), is_forgetful=False, before=(GET,)))
    assert kept == run("uvloop", lambda: hear(each_settled(raw, GET), is_forgetful=True))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ["get", "empty post", "forwarded", "absolute", "long head"])
def test_the_third_time_is_not_parsed(loop: str, name: str) -> None:
    """The short way is taken, and tells the application the same; otherwise nothing here tests anything."""
    raw = REQUESTS[name]

    async def story() -> tuple[list[bytes], int]:
        async with Wire(witness, limits=LIMITS, site=Site(trusted=TrustedProxies("unix"))) as wire:
            parsed = 0
            feed = wire.protocol._reader.feed

            def counted(data: bytes | memoryview) -> None:
                nonlocal parsed
                parsed += 1
                feed(data)

            wire.protocol._reader.feed = counted
            for _ in range(5):
                wire.feed(raw)
                await wire.settle()
            return [each.body for each in answers(await wire.read_to_end())], parsed

    bodies, parsed = run(loop, story)
    assert len(bodies) == 5
    assert len(set(bodies)) == 1
    assert parsed == 2


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("where", ["asgi", "extensions", "state", "headers", "itself"])
def test_what_an_application_does_to_a_scope_stays_there(loop: str, where: str) -> None:
    """No later request of the connection is told of it, parsed or not."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(repr(scope))
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
        (scope if where == "itself" else scope[where]).clear()
        await send(head)
        await send({"type": "http.response.body"})

    async def story() -> None:
        async with Wire(app, state={"known": 1}) as wire:
            for _ in range(4):
                wire.feed(GET)
                await wire.settle()

    run(loop, story)
    assert len(seen) == 4
    assert set(seen) == {seen[0]}


@pytest.mark.parametrize("loop", LOOPS)
def test_what_an_application_does_to_headers_changes_no_later_origin(loop: str) -> None:
    """It takes out what its proxy has said: the next who asks the same comes from there all the same."""
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"])
        scope["headers"].clear()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def story() -> None:
        async with Wire(app, site=Site(trusted=TrustedProxies("unix"))) as wire:
            for _ in range(5):
                wire.feed(REQUESTS["forwarded"])
                await wire.settle()

    run(loop, story)
    assert clients == [("1.2.3.4", 0)] * 5


@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_is_heard_by_what_is_not_parsed(loop: str) -> None:
    async def story() -> tuple[list[bytes | None], bool]:
        async with Wire() as wire:
            for _ in range(3):
                wire.feed(GET)
                await wire.settle()
            wire.engine.keeps_alive = False
            wire.feed(GET)
            await wire.settle()
            is_closing = wire.is_closing
            return [each["connection"] for each in answers(await wire.read_to_end())], is_closing

    assert run(loop, story) == ([None, None, None, b"close"], True)
