"""The access log of real connections: one line for each request, with what became of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from prefork.http.access import AccessLog
from prefork.http.clock import Clock
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.limits import DISCARD_BYTES, HttpLimits
from prefork.http.logged import LoggedHttpProtocol
from prefork.http.options import HttpOptions
from prefork.http.protocol import HttpProtocol
from prefork.http.server import HttpServer
from tests.wire.rig import LOOPS, Wire, answers, echo, run, served

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
START = {"type": "http.response.start", "status": 200}
FILE_BYTES = 5_000_000

Line = tuple[str, int, int]
"""The request's line, the status, the bytes."""

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Logged(Wire):
    """A wire that keeps a log."""

    def __init__(self, app: Any, log: AccessLog, **options: Any) -> None:
        super().__init__(app, kind=LoggedHttpProtocol, **options)
        self.log = log
        self.clock.others.append(log)

    def make(self) -> HttpProtocol:
        protocol = super().make()
        assert isinstance(protocol, LoggedHttpProtocol)
        protocol.log = self.log
        return protocol


def logged(
    loop: str, folder: Path, app: Any, do: Callable[[Logged], Awaitable[None]], **options: Any
) -> list[Line]:
    """The lines of one connection of which `do` is the client."""
    path = folder / "access"
    log = AccessLog("common", str(path))

    async def story() -> None:
        async with Logged(app, log, **options) as wire:
            await do(wire)

    run(loop, story)
    log.close()
    return lines_of(path)


def lines_of(path: Path) -> list[Line]:
    found = [
        re.fullmatch(r'\S+ - - \[[^]]+\] "([^"]*)" (\d+) (\d+)', line)
        for line in path.read_text().splitlines()
    ]
    return [(match[1], int(match[2]), int(match[3])) for match in found if match]


def asking(*raw: bytes) -> Callable[[Logged], Awaitable[None]]:
    """A client that sends these, one after the other's answer, and reads to the end."""

    async def do(wire: Logged) -> None:
        for each in raw:
            wire.feed(each)
            await wire.settle()
        await wire.read_to_end()

    return do


def sending(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize(
    ("app", "raw", "expected"),
    [
        (echo, GET, ("GET /a?b=c HTTP/1.1", 200, 15)),
        (echo, HEAD, ("HEAD / HTTP/1.1", 200, 0)),
        (echo, POST + b"0123456789", ("POST / HTTP/1.1", 200, 22)),
        (echo, b"GET / HTTP/1.0\r\n\r\n", ("GET / HTTP/1.0", 200, 11)),
        (echo, b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", ("GET /x?y HTTP/1.1", 200, 13)),
        (echo, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS * HTTP/1.1", 200, 15)),
        (echo, b"GET /%22%0d HTTP/1.1\r\nHost: a\r\n\r\n", ("GET /%22%0d HTTP/1.1", 200, 13)),
        (sending(START, body(b"abc")), GET, ("GET /a?b=c HTTP/1.1", 200, 3)),
        (
            sending(START, body(b"ab", more=True), body(b"", more=True), body(b"cde")),
            GET,
            ("GET /a?b=c HTTP/1.1", 200, 5),
        ),
        (sending(START, body(b"ab", more=True), body(b"cde")), HEAD, ("HEAD / HTTP/1.1", 200, 0)),
        (sending(START, body(b"x" * 100_000)), GET, ("GET /a?b=c HTTP/1.1", 200, 100_000)),
        (sending(START | {"status": 204}, body(b"abc")), GET, ("GET /a?b=c HTTP/1.1", 204, 0)),
        (sending(START | {"status": 304}, body(b"abc")), GET, ("GET /a?b=c HTTP/1.1", 304, 0)),
        (sending(START | {"status": 799}, body(b"abc")), GET, ("GET /a?b=c HTTP/1.1", 799, 3)),
        (sending(), GET, ("GET /a?b=c HTTP/1.1", 500, 22)),
        (sending(START), GET, ("GET /a?b=c HTTP/1.1", 500, 22)),
        (sending({"type": "no such"}), GET, ("GET /a?b=c HTTP/1.1", 500, 22)),
        (sending(START, {"type": "no such"}), HEAD, ("HEAD / HTTP/1.1", 500, 0)),
    ],
)
def test_what_was_answered(loop: str, tmp_path: Path, app: Any, raw: bytes, expected: Line) -> None:
    """One line for each, with what was sent of the body, without its framing."""
    assert logged(loop, tmp_path, app, asking(raw)) == [expected]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (GET[:-2] + b"a: " + b"b" * 70_000, 431),
    ],
)
def test_what_was_refused(loop: str, tmp_path: Path, raw: bytes, status: int) -> None:
    """No request line, since it made no sense; the status, and the bytes of the body that went with it."""
    sent: list[bytes] = []

    async def do(wire: Logged) -> None:
        await asking(raw)(wire)
        sent.append(wire.received)

    ((line, logged_status, size),) = logged(loop, tmp_path, echo, do)
    (answer,) = answers(sent[0])
    assert (answer.status, logged_status, line) == (status, status, "- - HTTP/1.1")
    assert size == len(answer.body)


def test_a_refusal_behind_answers(loop: str, tmp_path: Path) -> None:
    lines = logged(loop, tmp_path, echo, asking(GET + HEAD + b"nonsense\r\n\r\n"))
    assert [status for _, status, _ in lines] == [200, 200, 501]


def test_a_body_over_its_limit(loop: str, tmp_path: Path) -> None:
    """Whether it is known from the head, or found out while the application reads."""
    limits = HttpLimits(body_bytes=5)
    chunked = POST.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked") + b"8\r\n01234567\r\n"
    for raw in (POST, chunked):
        lines = logged(loop, tmp_path, echo, asking(raw), limits=limits)
        assert [status for _, status, _ in lines] == [413]
        (tmp_path / "access").unlink()


def test_a_head_that_never_ends(loop: str, tmp_path: Path) -> None:
    async def do(wire: Logged) -> None:
        wire.feed(GET[:-2])
        wire.protocol.on_deadline(wire.protocol.deadline_s)
        await wire.read_to_end()

    assert [status for _, status, _ in logged(loop, tmp_path, echo, do)] == [408]


def test_an_idle_connection_is_no_request(loop: str, tmp_path: Path) -> None:
    """Neither one that never asks, nor one that has been answered."""

    async def do(wire: Logged) -> None:
        wire.protocol.on_deadline(wire.protocol.deadline_s)
        await wire.read_to_end()

    assert logged(loop, tmp_path, echo, do) == []

    async def answered(wire: Logged) -> None:
        wire.feed(GET)
        await wire.settle()
        wire.protocol.on_deadline(wire.protocol.deadline_s)
        await wire.read_to_end()

    assert len(logged(loop, tmp_path, echo, answered)) == 1


def test_requests_that_are_alike(loop: str, tmp_path: Path) -> None:
    """Those that are not parsed are logged as the others."""
    assert logged(loop, tmp_path, echo, asking(*[GET] * 5)) == [("GET /a?b=c HTTP/1.1", 200, 15)] * 5


@pytest.mark.parametrize("is_slow", [True, False])
def test_pipelined_requests_in_their_order(loop: str, tmp_path: Path, *, is_slow: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if is_slow and scope["path"] in ("/0", "/3"):
            for _ in range(5):
                await asyncio.sleep(0)
        await echo(scope, receive, send)

    raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(8))
    lines = logged(loop, tmp_path, app, asking(raw))
    assert lines == [(f"GET /{number} HTTP/1.1", 200, 12) for number in range(8)]


def test_a_line_is_written_when_the_answer_is_given(loop: str, tmp_path: Path) -> None:
    """Not when the application returns, which may go on for long."""

    async def do(wire: Logged) -> None:
        wire.feed(GET)
        await wire.read(b"200 OK")
        wire.log.flush()
        assert len(lines_of(tmp_path / "access")) == 1
        go.set()

    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        await go.wait()

    assert len(logged(loop, tmp_path, app, do)) == 1


def test_lines_go_out_with_the_clock(loop: str, tmp_path: Path) -> None:
    """Nobody flushes: a tick does."""

    async def do(wire: Logged) -> None:
        wire.feed(GET)
        await wire.read(b"200 OK")
        assert not lines_of(tmp_path / "access")
        assert wire.clock._is_ticking
        wire.clock._tick()
        assert len(lines_of(tmp_path / "access")) == 1

    assert len(logged(loop, tmp_path, echo, do)) == 1


# -- what ended before its time -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["closes", "is gone"])
@pytest.mark.parametrize("does_return", [True, False])
def test_a_client_that_leaves_before_the_answer(
    loop: str, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture, *, does_return: bool
) -> None:
    """499. Its application was told: whether it returns then or tries to answer, it has made no mistake."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        if not does_return:
            await gone.wait()
            await send(START)
            await send(body(b"late"))

    async def do(wire: Logged) -> None:
        wire.feed(GET)
        await wire.until(lambda: wire.engine.running)
        if way == "closes":
            wire.client.close()
        if way == "is gone" or not does_return:
            wire.protocol.abort()
        await wire.until(lambda: wire.protocol not in wire.connections)
        gone.set()
        await wire.until(lambda: not wire.engine.running)

    gone = asyncio.Event()
    assert logged(loop, tmp_path, app, do) == [("GET /a?b=c HTTP/1.1", 499, 0)]
    assert not caplog.records


def test_a_client_that_leaves_within_the_answer(loop: str, tmp_path: Path) -> None:
    """The status that it was sent, and what it was sent of the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"abc", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(body(b"late"))

    async def do(wire: Logged) -> None:
        wire.feed(GET)
        await wire.read(b"abc")
        wire.protocol.abort()
        await wire.until(lambda: not wire.engine.running)

    assert logged(loop, tmp_path, app, do) == [("GET /a?b=c HTTP/1.1", 200, 3)]


def test_a_client_that_leaves_within_a_body(loop: str, tmp_path: Path) -> None:
    async def do(wire: Logged) -> None:
        wire.feed(POST + b"012")
        await wire.until(lambda: wire.engine.running)
        wire.client.close()
        await wire.until(lambda: not wire.engine.running)

    assert logged(loop, tmp_path, echo, do) == [("POST / HTTP/1.1", 499, 0)]


def test_requests_that_wait_behind_one_that_is_left(loop: str, tmp_path: Path) -> None:
    """Nobody has begun to answer them: they are not logged."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def do(wire: Logged) -> None:
        wire.feed(GET + HEAD)
        await wire.until(lambda: wire.engine.running)
        wire.protocol.abort()
        await wire.until(lambda: not wire.engine.running)

    assert logged(loop, tmp_path, app, do) == [("GET /a?b=c HTTP/1.1", 499, 0)]


@pytest.mark.parametrize("ending", [(), ({"type": "no such"},)])
def test_an_answer_that_the_application_leaves_off(loop: str, tmp_path: Path, ending: Any) -> None:
    """The connection is cut; the line says what was sent."""
    app = sending(START, body(b"abc", more=True), *ending)
    assert logged(loop, tmp_path, app, asking(GET)) == [("GET /a?b=c HTTP/1.1", 200, 3)]


def test_an_answer_that_is_cut_for_its_request(loop: str, tmp_path: Path) -> None:
    """It had begun when the body went over its limit."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"abc", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    chunked = POST.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")

    async def do(wire: Logged) -> None:
        wire.feed(chunked)
        await wire.read(b"abc")
        wire.feed(b"8\r\n01234567\r\n")
        await wire.read_to_end()

    lines = logged(loop, tmp_path, app, do, limits=HttpLimits(body_bytes=5))
    assert lines == [("POST / HTTP/1.1", 200, 3)]


def test_a_body_that_is_read_away_and_is_too_much(loop: str, tmp_path: Path) -> None:
    """The answer was given long ago: one line."""
    raw = POST.replace(b"10", b"%d" % (4 * DISCARD_BYTES)) + b"x" * (4 * DISCARD_BYTES)
    assert logged(loop, tmp_path, sending(START, body(b"abc")), asking(raw)) == [("POST / HTTP/1.1", 200, 3)]


@pytest.mark.parametrize("size", [1_000, FILE_BYTES])
def test_a_file(loop: str, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    app = sending(START, {"type": "http.response.pathsend", "path": str(path)})
    lines = logged(loop, tmp_path, app, asking(GET, HEAD))
    assert lines == [("GET /a?b=c HTTP/1.1", 200, size), ("HEAD / HTTP/1.1", 200, 0)]


def test_a_client_that_leaves_within_a_file(loop: str, tmp_path: Path) -> None:
    """What was sent of it is logged, not its size."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * FILE_BYTES)
    app = sending(START, {"type": "http.response.pathsend", "path": str(path)})

    async def do(wire: Logged) -> None:
        wire.feed(GET)
        await wire.until(lambda: wire.protocol._outlet and wire.protocol._outlet._writable)
        wire.client.close()
        await wire.until(lambda: not wire.engine.running)

    ((_, status, size),) = logged(loop, tmp_path, app, do)
    assert status == 200
    assert 0 < size < FILE_BYTES


# -- more than the line -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["common", "combined", "json"])
def test_the_client_is_the_one_that_was_forwarded(loop: str, tmp_path: Path, form: str) -> None:
    """As the application is told it; but only if the proxy is trusted."""
    path = tmp_path / "access"
    raw = GET.replace(
        b"Host", b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nUser-Agent: me\r\nHost"
    )

    async def story() -> None:
        for proxies in ("127.0.0.1", "10.0.0.1"):
            options = HttpOptions(
                access_log=str(path), access_log_format=form, trusted_proxies=proxies, lifespan="off"
            )
            async with served(HttpServer(echo, options=options)) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(raw)
                await reader.readuntil(b"[]")
                writer.close()
                await writer.wait_closed()

    run(loop, story)
    trusted, untrusted = path.read_text().splitlines()
    assert "1.2.3.4" in trusted
    assert "127.0.0.1" not in trusted
    assert "127.0.0.1" in untrusted
    assert "1.2.3.4" not in untrusted
    if form == "json":
        assert '"scheme":"https"' in trusted
        assert '"scheme":"http"' in untrusted
    assert ("me" in trusted) == (form != "common")


@pytest.mark.parametrize("is_on", [True, False])
def test_who_keeps_no_log_does_not_pay_for_it(loop: str, tmp_path: Path, *, is_on: bool) -> None:
    """The class of a connection tells."""
    options = HttpOptions(access_log=str(tmp_path / "access") if is_on else None)

    async def story() -> type:
        server = HttpServer(echo, options=options)
        server.prepare()
        connections: Connections[Any] = Connections(asyncio.get_running_loop().time)
        clock = Clock(asyncio.get_running_loop(), connections)
        made = server._factory(Engine(echo, asyncio.get_running_loop(), clock, {}), connections)(None)
        if server._log is not None:
            server._log.close()
        return type(made)

    assert run(loop, story) is (LoggedHttpProtocol if is_on else HttpProtocol)


def test_a_drain_writes_the_last_lines(loop: str, tmp_path: Path) -> None:
    """What was answered while it drained is in the log when `serve` has returned."""
    path = tmp_path / "access"

    async def story() -> None:
        server = HttpServer(echo, options=HttpOptions(access_log=str(path), lifespan="off"))
        async with served(server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"[]")
            server.drain()
            writer.write(GET)
            await reader.readuntil(b"[]")
            writer.close()

    run(loop, story)
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("form", ["common", "json"])
def test_what_an_application_makes_of_a_method_or_a_scheme_ends_no_field(
    loop: str, tmp_path: Path, form: str
) -> None:
    """Middleware takes both from headers, as they come."""
    forged = 'GET","user":"admin\n1.2.3.4 - - forged'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["method"] = scope["scheme"] = forged
        await sending(START, body(b"abc"))(scope, receive, send)

    log = AccessLog(form, str(tmp_path / "access"))

    async def story() -> None:
        async with Logged(app, log) as wire:
            await asking(GET)(wire)

    run(loop, story)
    log.close()
    (line,) = (tmp_path / "access").read_text().splitlines()
    assert "forged" not in line
    assert "admin" not in line
