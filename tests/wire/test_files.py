"""Answers that are files: `http.response.pathsend` and `http.response.zerocopysend` (ASGI extensions)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from prefork.http.exchange import ClientDisconnectedError
from prefork.http.limits import HttpLimits
from prefork.http.response import ResponseError
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, Pair, Wire, answers, run, served

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
CL = b"content-length"
SMALL, LARGE = 5_000, 5_000_000
SIZES = [0, 1, SMALL, 64 * 1024, 64 * 1024 + 1, 300_000, LARGE]
PATTERN = bytes(range(251)) * (LARGE // 251 + 1)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its file."""
    return tmp_path / "file"


@pytest.fixture(autouse=True, scope="module")
def loops_have_run() -> None:
    """What the first loop of a process opens for good is opened."""
    for name in LOOPS:
        run(name, lambda: transcript(sending(body(b""))))


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Whatever a test does: afterwards as much is open as before."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def filled(path: Path, size: int) -> bytes:
    data = PATTERN[:size]
    path.write_bytes(data)
    return data


def sending(*messages: dict[str, Any], errors: list[Any] | None = None, **start: Any) -> Any:
    """An application that sends these messages; what `send` raises goes to `errors`, if given."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, **start})
            for message in messages:
                await send({**message, "type": f"http.response.{message['type']}"})
        except Exception as error:
            if errors is None:
                raise
            errors.append(error)

    return app


def by_path(path: Path) -> dict[str, Any]:
    return {"type": "pathsend", "path": str(path)}


def piece(file: BinaryIO | int, **rest: Any) -> dict[str, Any]:
    return {"type": "zerocopysend", "file": file, **rest}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "body", "body": data, "more_body": more}


async def transcript(app: Any, raw: bytes = GET) -> bytes:
    """All that comes back until the connection has nothing to do, read as it comes, then to the end."""
    async with Wire(app) as wire:
        wire.feed(raw)
        await wire.settle()
        return await wire.read_to_end()


def got(loop: str, app: Any, raw: bytes = GET, methods: tuple[str, ...] = ("GET",)) -> Any:
    return answers(run(loop, lambda: transcript(app, raw)), methods)


# -- whole files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_path_is_sent_whole(loop: str, path: Path, size: int, *, is_announced: bool) -> None:
    """With its length, whoever says it; and the connection goes on."""
    data = filled(path, size)
    headers = [(CL, b"%d" % size)] if is_announced else []
    first, second = got(loop, sending(by_path(path), headers=headers), GET + GET)
    assert (first.status, first["content-length"], first["transfer-encoding"]) == (200, b"%d" % size, None)
    assert first.body == data
    assert (second.status, second.body) == (200, data)


@pytest.mark.parametrize("size", SIZES)
def test_an_open_file_is_sent_whole(loop: str, path: Path, size: int) -> None:
    data = filled(path, size)
    with path.open("rb") as file:
        (answer,) = got(loop, sending(piece(file)))
    assert (answer["content-length"], answer.body) == (b"%d" % size, data)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["path", "file"])
def test_head_is_told_the_length_only(loop: str, path: Path, size: int, kind: str) -> None:
    """And the next answer begins where the head ends."""
    data = filled(path, size)
    with path.open("rb") as file:
        app = sending(by_path(path) if kind == "path" else piece(file))
        first, second = got(loop, app, HEAD + GET, ("HEAD", "GET"))
    assert (first.status, first["content-length"], first.body) == (200, b"%d" % size, b"")
    assert second.body == data


@pytest.mark.parametrize(("status", "has_length"), [(204, False), (304, True)])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_statuses_without_a_body(loop: str, path: Path, status: int, size: int, *, has_length: bool) -> None:
    """204 must have no length (RFC 9110 §8.6), 304 may."""
    filled(path, size)
    first, second = got(loop, sending(by_path(path), status=status), GET + GET)
    for answer in (first, second):
        assert (answer.status, answer.body, answer["transfer-encoding"]) == (status, b"", None)
        assert (answer["content-length"] is not None) <= has_length


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_http_1_0(loop: str, path: Path, size: int) -> None:
    """A length keeps the connection."""
    data = filled(path, size)
    first, second = got(loop, sending(by_path(path)), GET_1_0 + GET_1_0)
    assert (first["connection"], first.body) == (b"keep-alive", data)
    assert second.body == data


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_last_answer_is_closed_behind_the_file(loop: str, path: Path, size: int) -> None:
    data = filled(path, size)
    raw = GET.replace(b"Host", b"Connection: close\r\nHost")
    (answer,) = got(loop, sending(by_path(path)), raw + GET)
    assert (answer["connection"], answer.body) == (b"close", data)


# -- parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, 10),
        (10, None),
        (100, 100_000),
        (1_000_000, 3_000_000),
        (None, 70_000),
        (LARGE - 10, 10),
        (LARGE, None),
        (LARGE + 10, None),
        (7, 0),
    ],
)
@pytest.mark.parametrize("is_number", [True, False])
def test_a_part_of_a_file(
    loop: str, path: Path, offset: int | None, count: int | None, *, is_number: bool
) -> None:
    """From `offset`, or where the file stands; `count` bytes, or to the end; by its object or its descriptor."""
    data = filled(path, LARGE)
    with path.open("rb") as file:
        file.seek(3)
        (answer,) = got(
            loop, sending(piece(file.fileno() if is_number else file, offset=offset, count=count))
        )
    begin = 3 if offset is None else offset
    expected = data[begin:] if count is None else data[begin : begin + count]
    assert (answer["content-length"], answer.body) == (b"%d" % len(expected), expected)


def test_a_buffered_file_stands_where_it_was_read_to(loop: str, path: Path) -> None:
    """Not where its buffer ends."""
    data = filled(path, LARGE)
    with path.open("rb") as file:
        file.read(10)
        (answer,) = got(loop, sending(piece(file)))
    assert answer.body == data[10:]


@pytest.mark.parametrize("sizes", [(10, 200_000), (200_000, 10), (200_000, 300_000), (0, 0)])
@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("raw", [GET, GET_1_0])
def test_files_and_pieces_of_a_body_in_their_order(
    loop: str, path: Path, sizes: tuple[int, int], raw: bytes, *, is_announced: bool
) -> None:
    """Chunked where no length was told; by the close to a client of HTTP/1.0."""
    data = filled(path, LARGE)
    one, two = sizes
    expected = b"before" + data[:one] + b"between" + data[5 : 5 + two] + b"after"
    headers = [(CL, b"%d" % len(expected))] if is_announced else []
    with path.open("rb") as file:
        messages = (
            body(b"before", more=True),
            piece(file, offset=0, count=one, more_body=True),
            body(b"between", more=True),
            piece(file, offset=5, count=two, more_body=True),
            body(b"after"),
        )
        found = got(loop, sending(*messages, headers=headers), raw + raw)
    assert found[0].body == expected
    assert found[0]["transfer-encoding"] == (None if is_announced or raw is GET_1_0 else b"chunked")
    assert len(found) == (2 if is_announced or raw is GET else 1)


@pytest.mark.parametrize("count", [10, 200_000])
def test_a_file_as_the_last_piece(loop: str, path: Path, count: int) -> None:
    data = filled(path, LARGE)
    with path.open("rb") as file:
        app = sending(body(b"before", more=True), piece(file, offset=0, count=count))
        first, second = got(loop, app, GET + GET)
    assert first.body == second.body == b"before" + data[:count]


def test_trailers_behind_a_file(loop: str, path: Path) -> None:
    data = filled(path, 200_000)
    with path.open("rb") as file:
        app = sending(piece(file), {"type": "trailers", "headers": [(b"x-sum", b"1")]}, trailers=True)
        raw = run(loop, lambda: transcript(app, GET.replace(b"Host", b"TE: trailers\r\nHost")))
    assert raw.endswith(b"%x\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(data), data))


# -- what cannot be sent ------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["missing", "directory", "pipe", "nowhere"])
def test_what_is_no_file(loop: str, path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """The application is told, and the client gets 500; nobody waits for the other end of a pipe."""
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "nowhere":
        path /= "below"
    errors: list[Any] = []
    (answer,) = got(loop, sending(by_path(path), errors=errors))
    assert answer.status == 500
    assert isinstance(errors[0], OSError if what in ("missing", "nowhere") else ResponseError)


@pytest.mark.parametrize("announced", [SMALL - 1, SMALL + 1, LARGE])
@pytest.mark.parametrize("size", [SMALL, 300_000])
def test_a_file_that_is_not_as_long_as_announced(loop: str, path: Path, size: int, announced: int) -> None:
    """Known before anything was sent: 500."""
    filled(path, size)
    errors: list[Any] = []
    (answer,) = got(loop, sending(by_path(path), headers=[(CL, b"%d" % announced)], errors=errors))
    assert answer.status == 500
    assert isinstance(errors[0], ResponseError)


@pytest.mark.parametrize("size", [SMALL, 300_000])
@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_count_that_a_file_does_not_have(
    loop: str, path: Path, size: int, *, is_announced: bool, is_first: bool
) -> None:
    """What the application has promised is not there: an error to it, and never a whole answer to the client."""
    filled(path, size)
    count = size + 10
    total = count if is_first else count + 6
    headers = [(CL, b"%d" % total)] if is_announced else []
    errors: list[Any] = []
    with path.open("rb") as file:
        before = [] if is_first else [body(b"before", more=True)]
        app = sending(*before, piece(file, offset=0, count=count), headers=headers, errors=errors)
        raw = run(loop, lambda: transcript(app))
    assert len(errors) == 1
    assert raw.startswith(b"HTTP/1.1 500") or is_cut(raw)


def is_cut(raw: bytes) -> bool:
    """A whole answer cannot be made out."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return not rest.endswith(b"0\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return len(rest.removesuffix(b"<reset>")) < length


def test_a_file_that_is_cut_while_it_is_sent(loop: str, path: Path) -> None:
    """The connection is closed; what came is no whole answer. That is no fault of the client's."""
    filled(path, LARGE)
    errors: list[Any] = []

    async def story() -> bytes:
        async with Wire(sending(by_path(path), errors=errors)) as wire:
            wire.feed(GET + GET)
            await wire.until(lambda: wire.protocol._outlet and wire.protocol._outlet._writable)
            os.truncate(path, 1_000)
            return await wire.read_to_end()

    assert is_cut(run(loop, story))
    assert [type(error) for error in errors] == [ResponseError]


@pytest.mark.parametrize("is_tls", [True, False])
def test_an_answer_that_only_its_close_would_end(loop: str, path: Path, *, is_tls: bool) -> None:
    """To a client of HTTP/1.0 a close says that the answer is whole: one that is not is reset (RFC 9112 §8, TLS: §9.8)."""
    filled(path, SMALL)
    pair = Pair()
    errors: list[Any] = []

    async def story() -> None:
        with path.open("rb") as file:
            app = sending(body(b"before", more=True), piece(file, count=LARGE), errors=errors)
            async with (
                served(HttpServer(app_without_lifespan(app)), pair.server() if is_tls else None) as port,
                connected(port, pair.client() if is_tls else None) as (reader, writer),
            ):
                writer.write(GET_1_0)
                with pytest.raises(ConnectionResetError):
                    await reader.read()

    run(loop, story)
    assert [type(error) for error in errors] == [ResponseError]


@pytest.mark.parametrize("kind", ["path", "file"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_file_out_of_order(loop: str, path: Path, kind: str, size: int) -> None:
    """Before the head: 500. After the end: an error, and the answer stands."""
    filled(path, size)
    errors: list[Any] = []
    with path.open("rb") as file:
        message = by_path(path) if kind == "path" else piece(file)

        async def early(scope: Any, receive: Any, send: Any) -> None:
            await send({**message, "type": f"http.response.{message['type']}"})

        assert [each.status for each in got(loop, early)] == [500]
        late = sending(body(b"whole"), message, errors=errors)
        assert [each.body for each in got(loop, late, GET + GET)] == [b"whole"] * 2
    assert [type(error) for error in errors] == [ResponseError] * 2


@pytest.mark.parametrize(
    ("offset", "count"), [(-1, None), (-1, 5), (0, -5), (-300_000, 200_000), (0, -200_000)]
)
def test_a_part_that_is_none(loop: str, path: Path, offset: int, count: int | None) -> None:
    filled(path, LARGE)
    errors: list[Any] = []
    with path.open("rb") as file:
        raw = run(loop, lambda: transcript(sending(piece(file, offset=offset, count=count), errors=errors)))
    assert len(errors) == 1
    assert raw.startswith(b"HTTP/1.1 500") or is_cut(raw)


def test_a_descriptor_that_is_closed(loop: str, path: Path) -> None:
    filled(path, LARGE)
    with path.open("rb") as file:
        fd = file.fileno()
    (answer,) = got(loop, sending(piece(fd), errors=[]))
    assert answer.status == 500


# -- clients ------------------------------------------------------------------------------------------


def test_a_client_that_reads_slowly_gets_all(loop: str, path: Path) -> None:
    """A little at a time, and the application has returned only when all is on its way."""
    data = filled(path, LARGE)
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sending(by_path(path))(scope, receive, send)
        ended.append(len(received))

    received = bytearray()

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(GET)
            while len(received) < LARGE:
                received.extend(await wire.loop.sock_recv(wire.client, 10_000))
                assert not wire.protocol._transport.get_write_buffer_size() > 64 * 1024
            while not received.endswith(data[-100:]):
                received.extend(await wire.loop.sock_recv(wire.client, 10_000))

    run(loop, story)
    assert received.partition(b"\r\n\r\n")[2] == data
    assert ended[0] > LARGE // 2


@pytest.mark.parametrize("way", ["closes", "shuts down", "is reset"])
def test_a_client_that_leaves_in_the_middle(
    loop: str, path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`send` raises an OSError, the file is closed, and nothing is logged."""
    filled(path, LARGE)
    errors: list[Any] = []

    async def story() -> None:
        async with Wire(sending(by_path(path), errors=errors)) as wire:
            wire.feed(GET)
            await wire.until(lambda: wire.protocol._outlet and wire.protocol._outlet._writable)
            if way == "closes":
                wire.client.close()
            elif way == "shuts down":
                wire.client.shutdown(2)
            else:
                wire.protocol.abort()
            await wire.until(lambda: not wire.engine.running)
            assert wire.protocol._outlet is None

    run(loop, story)
    assert [type(error) for error in errors] == [ClientDisconnectedError]
    assert not caplog.records


def test_a_client_that_takes_nothing_is_reset(loop: str, path: Path) -> None:
    """After `send_s`, which begins anew with each byte that it takes."""
    filled(path, LARGE)
    errors: list[Any] = []

    async def story() -> bytes:
        async with Wire(sending(by_path(path), errors=errors), limits=HttpLimits(send_s=5)) as wire:
            protocol = wire.protocol
            wire.feed(GET)
            await wire.until(lambda: protocol._outlet and protocol._outlet._writable)
            first_s = protocol.deadline_s
            assert first_s == pytest.approx(wire.loop.time() + 5, abs=1.5)
            wire.clock.now_s += 3
            wire.clock.is_awake = True
            while protocol.deadline_s <= first_s + 2:
                wire.received += await wire.loop.sock_recv(wire.client, 2**18)
                await asyncio.sleep(0)
            await wire.until(lambda: protocol._outlet and protocol._outlet._writable)
            protocol.on_deadline(protocol.deadline_s)
            assert wire.is_closing
            return await wire.read_to_end()

    assert is_cut(run(loop, story))
    assert [type(error) for error in errors] == [ClientDisconnectedError]


@pytest.mark.parametrize("order", ["LS", "SL", "LLSS", "SSLL"])
def test_pipelined_requests_are_answered_in_order(loop: str, tmp_path: Path, order: str) -> None:
    """Large files past the transport, small ones through it."""
    expected = {"L": filled(tmp_path / "L", LARGE // 2), "S": filled(tmp_path / "S", SMALL)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sending(by_path(tmp_path / scope["path"][1:]))(scope, receive, send)

    raw = b"".join(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % each.encode() for each in order)
    found = got(loop, app, raw)
    assert [each.body == expected[name] for name, each in zip(order, found, strict=True)] == [True] * len(
        order
    )


def test_a_file_does_not_keep_others_waiting(loop: str, path: Path) -> None:
    """Between two pieces of a large file the loop turns, however fast the client takes them."""
    filled(path, LARGE)
    turns = 0

    async def story() -> int:
        async with Wire(sending(by_path(path))) as wire:

            def turn() -> None:
                nonlocal turns
                turns += 1
                wire.loop.call_soon(turn)

            wire.feed(GET)
            turn()
            while len(wire.received) < LARGE:
                wire.take()
                await asyncio.sleep(0)
            return turns

    assert run(loop, story) > 5


def test_over_tcp_and_tls(loop: str, path: Path) -> None:
    """TLS copies the file; both send the same, twice on one connection."""
    data = filled(path, LARGE)
    pair = Pair()

    async def story() -> None:
        for is_tls in (False, True):
            app = sending(by_path(path))
            server = HttpServer(app_without_lifespan(app))
            async with served(server, pair.server() if is_tls else None) as port:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    port,
                    ssl=pair.client() if is_tls else None,
                    server_hostname="localhost" if is_tls else None,
                )
                writer.write(GET + GET)
                for _ in range(2):
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert b"content-length: %d\r\n" % LARGE in head
                    assert await reader.readexactly(LARGE) == data
                writer.close()

    run(loop, story)


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_client_over_the_network_that_leaves(
    loop: str, path: Path, caplog: pytest.LogCaptureFixture, *, is_tls: bool
) -> None:
    """After a little of the file, by a reset: the application is told, nothing is logged."""
    filled(path, LARGE)
    pair = Pair()
    errors: list[Any] = []
    app = sending(by_path(path), errors=errors)

    async def story() -> None:
        async with served(HttpServer(app_without_lifespan(app)), pair.server() if is_tls else None) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                port,
                ssl=pair.client() if is_tls else None,
                server_hostname="localhost" if is_tls else None,
            )
            writer.write(GET)
            await reader.readexactly(1_000)
            writer.transport.abort()
            while not errors:  # noqa: ASYNC110  (the loop's next turn, not a time)
                await asyncio.sleep(0)

    run(loop, story)
    assert [type(error) for error in errors] == [ClientDisconnectedError]
    assert not caplog.records


@contextlib.asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.close()


def app_without_lifespan(app: Any) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return wrapped
