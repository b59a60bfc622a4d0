"""The opening handshake of a WebSocket, and its refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prefork.http.exchange import ClientDisconnectedError
from prefork.http.response import ResponseError
from tests.wire.rig import answers, run
from tests.wire.test_websocket_rig import Told, Wire, both_loops, echo, masked


@both_loops
def test_the_application_gets_the_scope_that_asgi_describes(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept", "subprotocol": "soap", "headers": [(b"X-One", b"1")]})
        async with Wire(app, subprotocols=["chat", "soap"]) as wire:
            await wire.open()
            assert wire.peer.subprotocol == "soap"
            assert b"\r\nx-one: 1\r\n" in wire.raw
            wanted = {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "scheme": "ws",
                "path": "/chat",
                "raw_path": b"/chat",
                "query_string": b"x=1",
                "root_path": "",
                "subprotocols": ["chat", "soap"],
                "state": {"shared": 1},
                "extensions": {"websocket.http.response": {}},
            }
            assert {**app.scope, **wanted} == app.scope
            assert set(app.scope) - set(wanted) == {"headers"}
            assert app.messages == [{"type": "websocket.connect"}]

    run(loop, told)


def test_https_becomes_wss_and_the_tls_extension_stays() -> None:
    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            wire.begin(scope={**wire.request(), "scheme": "https", "extensions": {"tls": {"x": 1}}})
            await wire.until(lambda: app.messages)
            assert app.scope["scheme"] == "wss"
            assert app.scope["extensions"] == {"websocket.http.response": {}, "tls": {"x": 1}}

    run("uvloop", told)


@both_loops
def test_the_connection_takes_the_place_of_the_one_before_it(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open()
            assert wire.connections == {wire.protocol}
            assert wire.transport.get_protocol() is wire.protocol

    run(loop, told)


def without(name: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        scope["headers"] = [header for header in scope["headers"] if header[0] != name]

    return change


def put(name: bytes, value: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        without(name)(scope)
        scope["headers"].append((name, value))

    return change


def twice(name: bytes) -> Callable[[dict[str, Any]], None]:
    def change(scope: dict[str, Any]) -> None:
        scope["headers"] += [header for header in scope["headers"] if header[0] == name]

    return change


IMPOSSIBLE = {
    "no version": (without(b"sec-websocket-version"), 400),
    "version 12": (put(b"sec-websocket-version", b"12"), 426),
    "two versions": (twice(b"sec-websocket-version"), 426),
    "no key": (without(b"sec-websocket-key"), 400),
    "two keys": (twice(b"sec-websocket-key"), 400),
    "a key of 15 bytes": (put(b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAA"), 400),
    "a key that is not base64": (put(b"sec-websocket-key", b"!GhlIHNhbXBsZSBub25jZQ=="), 400),
    "another upgrade": (put(b"upgrade", b"h2c"), 400),
    "no connection: upgrade": (put(b"connection", b"keep-alive"), 400),
    "POST": (lambda scope: scope.update(method="POST"), 400),
    "HTTP/1.0": (lambda scope: scope.update(http_version="1.0"), 400),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_request_is_refused_and_no_application_is_called(case: str) -> None:
    change, status = IMPOSSIBLE[case]

    async def told() -> None:
        app = Told()
        async with Wire(app) as wire:
            scope = wire.request()
            change(scope)
            wire.begin(b"what came behind it", scope)
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert answer.status == status
            assert answer["connection"] == b"close"
            assert answer["sec-websocket-version"] == (b"13" if status == 426 else None)
            assert answer["upgrade"] == (b"websocket" if status == 426 else None)
            assert not app.scope

    run("asyncio", told)


def test_the_key_is_answered_as_in_the_rfc() -> None:
    async def told() -> None:
        async with Wire() as wire:
            scope = wire.request()
            put(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")(scope)
            wire.begin(scope=scope)
            while b"\r\n\r\n" not in wire.raw:
                wire.raw += await wire.loop.sock_recv(wire.client, 1000)
            assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in wire.raw

    run("asyncio", told)


@pytest.mark.parametrize(
    "accept",
    [
        {"headers": [(b"Sec-WebSocket-Protocol", b"chat")]},
        {"headers": [(b"Sec-WebSocket-Accept", b"x")]},
        {"headers": [(b"Upgrade", b"x")]},
        {"headers": [(b"Content-Length", b"0")]},
        {"headers": [(b"x", b"1\r\ny: 2")]},
        {"headers": [(b"x y", b"1")]},
        {"subprotocol": "other"},
    ],
)
def test_an_impossible_accept_is_the_applications_mistake(
    accept: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.accept", **accept})
        async with Wire(app, subprotocols=["chat"]) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [500]
            assert isinstance(app.failure, ResponseError)

    run("asyncio", told)
    assert "the application raised" in caplog.text


@both_loops
def test_what_came_with_the_request_is_the_first_message(loop: str) -> None:
    async def told() -> None:
        async with Wire() as wire:
            await wire.open(masked(0x81, b"early") + masked(0x82, b"bird")[:3])
            wire.feed(masked(0x82, b"bird")[3:])
            assert await wire.heard(2) == [b"early", b"bird"]

    run(loop, told)


@both_loops
def test_a_client_that_does_not_wait_for_the_accept_is_kept_within_bounds(loop: str) -> None:
    async def told() -> None:
        accept = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await accept.wait()
            await echo(scope, receive, send)

        async with Wire(slow) as wire:
            wire.begin(masked(0x82, b"x" * 100_000))
            assert wire.is_reading
            wire.feed(masked(0x82, b"y" * 100_000))
            assert not wire.is_reading
            accept.set()
            assert await wire.heard(2) == [b"x" * 100_000, b"y" * 100_000]
            assert wire.is_reading

    run(loop, told)


@both_loops
def test_a_close_before_the_accept_is_403(loop: str) -> None:
    async def told() -> None:
        app = Told({"type": "websocket.close", "code": 4000})
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [403]
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1006, "")

    run(loop, told)


@both_loops
def test_an_application_may_refuse_with_an_answer_of_its_own(loop: str) -> None:
    async def told() -> None:
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"X-Why", b"who")]}
        body = {"type": "websocket.http.response.body", "body": b"no"}
        app = Told(start, {**body, "more_body": True}, {**body, "body": b"body"})
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert (answer.status, answer.body, answer["x-why"]) == (401, b"nobody", b"who")
            assert answer["connection"] == b"close"
            await wire.until(lambda: not wire.engine.running)
            assert app.end == (1006, "")

    run(loop, told)


ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
DENIED = (
    {"type": "websocket.http.response.start", "status": 401},
    {"type": "websocket.http.response.body"},
)
COUNTED: dict[str, tuple[tuple[dict[str, Any], ...], int]] = {
    "accepted": ((ACCEPT, CLOSE), 1),
    "refused": ((CLOSE,), 4),
    "denied": (DENIED, 4),
    "denied strangely": ((DENIED[0] | {"status": 799}, DENIED[1]), 7),
    "a mistake": ((CLOSE | {"type": "websocket.send"},), 5),
}


@both_loops
@pytest.mark.parametrize("case", COUNTED)
def test_each_answer_to_a_handshake_counts_once_by_its_status(loop: str, case: str) -> None:
    says, status_class = COUNTED[case]

    async def told() -> list[int]:
        async with Wire(Told(*says)) as wire:
            wire.begin()
            await wire.until(lambda: sum(wire.engine.tally.statuses))
            wire.transport.abort()
            await wire.until(lambda: not wire.engine.running)
            return wire.engine.tally.statuses

    assert run(loop, told) == [int(each == status_class) for each in range(8)]


REFUSALS: dict[str, tuple[tuple[dict[str, Any], ...], list[int]]] = {
    "a message before the accept": (({"type": "websocket.send", "text": "x"},), [500]),
    "a body without its head": (({"type": "websocket.http.response.body", "body": b"x"},), [500]),
    "a head, then an accept": (
        ({"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.accept"}),
        [500],
    ),
    "two heads": (({"type": "websocket.http.response.start", "status": 401},) * 2, [500]),
    "an impossible status": (({"type": "websocket.http.response.start", "status": 42},), [500]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_out_of_order_is_the_applications_mistake(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    says, statuses = REFUSALS[case]

    async def told() -> None:
        app = Told(*says)
        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == statuses
            assert isinstance(app.failure, ResponseError)

    run("asyncio", told)
    assert "the application raised" in caplog.text


@pytest.mark.parametrize("says", [(), ({"type": "websocket.http.response.start", "status": 200},)])
def test_an_application_that_returns_without_an_answer_is_500(
    says: tuple[dict[str, Any], ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in says:
                await send(message)

        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert [answer.status for answer in answers(wire.raw)] == [500]

    run("asyncio", told)
    assert "returned and has not answered: WebSocket '/chat'" in caplog.text


def test_a_refusal_that_breaks_off_is_no_whole_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.http.response.start", "status": 401})
            await send({"type": "websocket.http.response.body", "body": b"half", "more_body": True})
            raise ValueError("half")

        async with Wire(app) as wire:
            wire.begin()
            await wire.ended()
            assert b"0\r\n\r\n" not in wire.raw

    run("asyncio", told)
    assert "ValueError: half" in caplog.text


@both_loops
def test_a_refusal_of_many_pieces_waits_for_a_client_that_does_not_read(loop: str) -> None:
    async def told() -> None:
        piece = {"type": "websocket.http.response.body", "body": b"x" * 100_000, "more_body": True}
        start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
        app = Told(start, *[piece] * 30, {**piece, "more_body": False})
        async with Wire(app) as wire:
            wire.begin()
            await wire.until(lambda: wire.protocol.is_write_paused)
            assert wire.protocol.deadline_s == wire.clock.now_s + wire.limits.send_s
            await wire.ended()
            (answer,) = answers(wire.raw)
            assert len(answer.body) == 3_100_000

    run(loop, told)


@both_loops
def test_a_client_that_takes_nothing_of_a_refusal_is_given_up(loop: str) -> None:
    async def told() -> None:
        piece = {"type": "websocket.http.response.body", "body": b"x" * 100_000, "more_body": True}
        app = Told({"type": "websocket.http.response.start", "status": 403}, *[piece] * 30)
        async with Wire(app) as wire:
            wire.begin()
            await wire.until(lambda: wire.protocol.is_write_paused)
            for _ in range(2):
                wire.protocol.on_deadline(wire.protocol.deadline_s)
            await wire.until(lambda: not wire.engine.running)
            assert isinstance(app.failure, ClientDisconnectedError)

    run(loop, told)
