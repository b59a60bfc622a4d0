"""Bodies of requests that are larger than what is held of them, and applications that take their time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.http.limits import BODY_HIGH_WATER_BYTES, DISCARD_BYTES, SLICE_BYTES, HttpLimits
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, Pair, Wire, answers, converse, run, served

GET = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
SIZE = 5_000_000
PATTERN = bytes(range(251)) * (SIZE // 251 + 1)
BODY = PATTERN[:SIZE]
READ_BYTES = 256 * 1024
"""What one read of either loop brings at most (asyncio; uvloop: 250 KiB)."""
HELD_BYTES = BODY_HIGH_WATER_BYTES + 2 * READ_BYTES
"""Of a body that nobody takes: the high-water mark, and what was read before the reading stopped."""

both_loops = pytest.mark.parametrize("loop", LOOPS)
both_framings = pytest.mark.parametrize("framing", ["length", "chunked"])


def upload(framing: str, body: bytes = BODY, path: bytes = b"/", extra: bytes = b"") -> bytes:
    """A request with this body; chunks are of many sizes."""
    head = b"POST %b HTTP/1.1\r\nHost: a\r\n%b" % (path, extra)
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    chunks, at, size = [], 0, 1
    while at < len(body):
        piece = body[at : at + size]
        chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at, size = at + size, size * 7 % 99_991
    return b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, b"".join(chunks))


async def say(send: Any, text: bytes, status: int = 200) -> None:
    head = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": text})


async def pieces(receive: Any) -> AsyncIterator[bytes]:
    """The body, as it comes; ends with it, and with the client."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message["body"]
        more = message["more_body"]


def checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


class Uploading(Wire):
    """A wire whose client really sends, as fast as the server takes."""

    sent_bytes = 0

    async def send(self, raw: bytes) -> None:
        view = memoryview(raw)
        while view:
            try:
                taken = self.client.send(view[: 64 * 1024])
            except BlockingIOError:
                await asyncio.sleep(0)
            except (BrokenPipeError, ConnectionResetError):
                return
            else:
                self.sent_bytes += taken
                view = view[taken:]

    def held_bytes(self) -> int:
        """What the connection has of bodies and of what it has not parsed."""
        protocol = self.protocol
        exchanges = [protocol._exchange, *protocol._reader.queue]
        return len(protocol._unfed) + sum(len(each.body) for each in exchanges if each is not None)

    async def standstill(self) -> None:
        """Until the client can send no more."""
        before, still = -1, 0
        while still < 50:
            still = still + 1 if self.sent_bytes == before else 0
            before = self.sent_bytes
            await asyncio.sleep(0)


# -- who reads all of it ------------------------------------------------------------------------------


@both_loops
@both_framings
@pytest.mark.parametrize("pace", ["eager", "slow", "in spells"])
def test_nothing_is_lost_or_reordered(loop: str, framing: str, pace: str) -> None:
    """And never more is held than is allowed, at whichever pace it is taken. Then the next request."""
    most = 0

    async def story() -> list[bytes]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal most
            digest, count = hashlib.sha256(), 0
            async for piece in pieces(receive):
                digest.update(piece)
                count += 1
                most = max(most, wire.held_bytes() + len(piece))
                turns = {"eager": 0, "slow": 3, "in spells": 200 if count % 8 == 0 else 0}[pace]
                for _ in range(turns):
                    await asyncio.sleep(0)
            await say(send, digest.hexdigest().encode())

        async with Uploading(app) as wire:
            sending = asyncio.ensure_future(wire.send(upload(framing) + GET))
            await wire.read(checksum(BODY))
            await wire.read(checksum(b""))
            await sending
            assert not wire.protocol._is_read_paused
            return [each.body for each in answers(wire.received)]

    assert run(loop, story) == [checksum(BODY), checksum(b"")]
    assert 0 < most <= HELD_BYTES


@both_loops
@both_framings
def test_reading_stops_and_goes_on(loop: str, framing: str) -> None:
    """While nobody takes anything nothing is read, however long; then all comes."""

    async def story() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await say(send, checksum(b"".join([piece async for piece in pieces(receive)])))

        async with Uploading(app) as wire:
            sending = asyncio.ensure_future(wire.send(upload(framing)))
            await wire.standstill()
            assert wire.protocol._is_read_paused
            assert BODY_HIGH_WATER_BYTES < wire.held_bytes() <= HELD_BYTES
            assert wire.sent_bytes < SIZE
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            assert not wire.is_closing  # nobody's patience runs but the application's
            go.set()
            await wire.read(checksum(BODY))
            await sending
            assert not wire.protocol._is_read_paused

    run(loop, story)


@both_loops
def test_over_tls_too(loop: str) -> None:
    """Where bytes are read and parsed by other ways."""
    pair = Pair()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        digest = hashlib.sha256()
        async for piece in pieces(receive):
            digest.update(piece)
            await asyncio.sleep(0)
        await say(send, digest.hexdigest().encode())

    async def story() -> None:
        async with served(HttpServer(app), pair.server()) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=pair.client(), server_hostname="localhost"
            )
            for framing in ("length", "chunked", "length"):
                writer.write(upload(framing))
                await reader.readuntil(checksum(BODY))
            writer.close()

    run(loop, story)


@given(st.data())
def test_how_a_body_is_cut_changes_nothing(data: st.DataObject) -> None:
    """Pieces of any size, bodies around every bound, taken before, between and after."""
    bounds = (0, 1, SLICE_BYTES, BODY_HIGH_WATER_BYTES, 2 * BODY_HIGH_WATER_BYTES)
    size = max(0, data.draw(st.sampled_from(bounds)) + data.draw(st.integers(-3, 3)))
    raw = upload(data.draw(st.sampled_from(["length", "chunked"])), PATTERN[:size])
    raw += GET
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    waits = data.draw(st.integers(0, 3))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        await say(send, checksum(b"".join([piece async for piece in pieces(receive)])))

    parts = [raw[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found, _ = run("uvloop", lambda: converse(parts, app))
    assert [each.body for each in answers(found)] == [checksum(PATTERN[:size]), checksum(b"")]


# -- who does not -------------------------------------------------------------------------------------


@both_loops
@both_framings
@pytest.mark.parametrize("taken_bytes", [0, 100_000])
def test_an_answer_that_comes_early_ends_a_large_upload(loop: str, framing: str, taken_bytes: int) -> None:
    """Too much is left to be read away: the answer is sent whole, and the connection closed."""

    async def story() -> bytes:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            taken = 0
            while taken < taken_bytes:
                taken += len((await receive())["body"])
            await say(send, b"enough", 403)

        async with Uploading(app) as wire:
            sending = asyncio.ensure_future(wire.send(upload(framing) + GET))
            await wire.read(b"enough")
            await wire.until(lambda: wire.is_closing)
            while data := await wire._recv():
                wire.received += data
            assert wire.held_bytes() <= HELD_BYTES
            sending.cancel()
            return wire.received.removesuffix(b"<reset>")

    (answer,) = answers(run(loop, story))
    assert (answer.status, answer.body) == (403, b"enough")


@both_loops
@both_framings
@pytest.mark.parametrize("size", [0, 1, 1_000, DISCARD_BYTES])
def test_what_is_left_of_a_small_one_is_read_away(loop: str, framing: str, size: int) -> None:
    """And the next request is answered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, scope["path"].encode())

    async def story() -> list[bytes]:
        async with Uploading(app) as wire:
            await wire.send(upload(framing, PATTERN[:size], b"/first") + GET)
            await wire.read(b"/next")
            return [each.body for each in answers(wire.received)]

    assert run(loop, story) == [b"/first", b"/next"]


@both_loops
@both_framings
def test_an_application_that_never_reads_nor_answers_holds_little(loop: str, framing: str) -> None:
    """Until the client leaves, which it is told of."""
    told: list[str] = []

    async def story() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await left.wait()
            told.append((await receive())["type"])

        left = asyncio.Event()
        async with Uploading(app) as wire:
            sending = asyncio.ensure_future(wire.send(upload(framing)))
            await wire.standstill()
            assert wire.held_bytes() <= HELD_BYTES
            sending.cancel()
            wire.protocol.abort()
            await wire.until(lambda: wire.protocol not in wire.connections)
            assert wire.held_bytes() == 0
            left.set()

    run(loop, story)
    assert told == ["http.disconnect"]


@both_loops
@both_framings
@pytest.mark.parametrize("way", ["closes", "shuts down writing"])
def test_a_client_that_leaves_in_the_middle(
    loop: str, framing: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before may be read; then http.disconnect, never an end of the body."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["more_body"])
        seen.append((await receive())["type"])

    async def story() -> None:
        async with Uploading(app) as wire:
            await wire.send(upload(framing)[:300_000])
            await wire.until(lambda: seen)
            if way == "closes":
                wire.client.close()
            else:
                wire.client.shutdown(1)
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert seen.pop() == "http.disconnect"
    assert all(seen)
    assert not caplog.records


# -- limits -------------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize(
    ("framing", "size", "status"),
    [
        ("length", 100_000, 200),
        ("length", 100_001, 413),
        ("chunked", 100_000, 200),
        ("chunked", 100_001, 413),
    ],
)
def test_a_body_has_a_limit(loop: str, framing: str, size: int, status: int) -> None:
    """To the byte. Of one whose length is told the application never hears; of another it hears that nobody is there."""
    seen: list[bool | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more: bool | None = True
        while more:
            more = (await receive()).get("more_body")
            seen.append(more)
        if more is False:
            await say(send, b"all")

    raw = upload(framing, PATTERN[:size]) + GET
    found, is_closing = run(loop, lambda: converse([raw], app, limits=HttpLimits(body_bytes=100_000)))
    assert [each.status for each in answers(found)] == ([200, 200] if status == 200 else [413])
    assert is_closing == (status == 413)
    if status == 413:
        assert seen == [] if framing == "length" else seen[-1] is None


@both_loops
def test_a_body_over_the_limit_ends_an_answer_that_has_begun(loop: str) -> None:
    """There is no place for 413: the answer is cut off, so that it is not taken for a whole one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        async for _ in pieces(receive):
            pass

    limits = HttpLimits(body_bytes=100_000)
    raw, is_closing = run(loop, lambda: converse([upload("chunked", PATTERN[:200_000])], app, limits=limits))
    assert is_closing
    assert b"413" not in raw
    assert not raw.endswith(b"0\r\n\r\n")


@both_loops
@both_framings
def test_a_pause_within_a_body_has_a_limit(loop: str, framing: str) -> None:
    """408, and the application hears that nobody is there; each byte begins it anew."""
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async for _ in pieces(receive):
            pass
        told.append((await receive())["type"])

    async def story() -> list[int]:
        async with Wire(app, limits=HttpLimits(body_s=7)) as wire:
            raw = upload(framing, PATTERN[:1000])
            wire.feed(raw[:300])
            await wire.until(lambda: wire.protocol.deadline_s < wire.loop.time() + 9)
            first_s = wire.protocol.deadline_s
            wire.clock.now_s += 3
            wire.clock.is_awake = True
            wire.feed(raw[300:400])
            await wire.until(lambda: wire.protocol.deadline_s > first_s + 2)
            wire.protocol.on_deadline(wire.protocol.deadline_s)
            assert wire.is_closing
            return [each.status for each in answers(await wire.read_to_end())]

    assert run(loop, story) == [408]
    assert told == ["http.disconnect"]


# -- Expect: 100-continue (RFC 9110 §10.1.1) ----------------------------------------------------------

EXPECTING = b"Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@both_loops
@both_framings
def test_a_large_body_that_waits_to_be_asked_for(loop: str, framing: str) -> None:
    """Once, when the application first asks; then all comes, and the connection is kept."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, checksum(b"".join([piece async for piece in pieces(receive)])))

    async def story() -> bytes:
        async with Uploading(app) as wire:
            head, _, body = upload(framing, extra=EXPECTING).partition(b"\r\n\r\n")
            await wire.send(head + b"\r\n\r\n")
            await wire.read(CONTINUE)
            sending = asyncio.ensure_future(wire.send(body + GET))
            await wire.read(checksum(b""))
            await sending
            return wire.received

    raw = run(loop, story)
    assert raw.count(CONTINUE) == 1
    assert [each.status for each in answers(raw)] == [100, 200, 200]


@both_loops
@both_framings
def test_a_body_that_did_not_wait_is_not_asked_for(loop: str, framing: str) -> None:
    """It is there already when the application asks. The connection ends: proxies differ in what they expect then."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await say(send, checksum(b"".join([piece async for piece in pieces(receive)])))

    raw = upload(framing, b"abc", extra=EXPECTING)
    found, is_closing = run(loop, lambda: converse([raw + GET], app))
    (answer,) = answers(found)
    assert (answer.status, answer.body, answer["connection"], is_closing) == (
        200,
        checksum(b"abc"),
        b"close",
        True,
    )


@both_loops
@both_framings
@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("what", ["nothing", "the body", "a request"])
def test_an_expectation_that_is_not_met(loop: str, framing: str, what: str, *, is_streamed: bool) -> None:
    """The final answer comes instead of 100, and closes: whether a body follows nobody knows, so nothing is read as a request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if is_streamed:
            await send({"type": "http.response.start", "status": 403})
            await send({"type": "http.response.body", "body": b"n", "more_body": True})
            await send({"type": "http.response.body", "body": b"o"})
        else:
            await say(send, b"no", 403)

    head, _, body = upload(framing, GET * 3, extra=EXPECTING).partition(b"\r\n\r\n")
    then = {"nothing": b"", "the body": body, "a request": GET}[what]
    found, is_closing = run(loop, lambda: converse([head + b"\r\n\r\n", then], app))
    (answer,) = answers(found)
    assert (answer.status, answer.body, answer["connection"], is_closing) == (403, b"no", b"close", True)


@both_loops
def test_half_of_a_body_that_was_asked_for(loop: str) -> None:
    """The application has had enough: what is left is read away, and the connection kept."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await receive()
        await say(send, scope["path"].encode())

    async def story() -> list[int]:
        async with Wire(app) as wire:
            head, _, body = upload("length", PATTERN[:10_000], extra=EXPECTING).partition(b"\r\n\r\n")
            wire.feed(head + b"\r\n\r\n")
            await wire.read(CONTINUE)
            wire.feed(body[:100])
            await wire.read(b"200 OK")
            wire.feed(body[100:] + GET)
            await wire.read(b"/next")
            return [each.status for each in answers(wire.received)]

    assert run(loop, story) == [100, 200, 200]
