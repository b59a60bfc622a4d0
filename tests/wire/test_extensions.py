"""ASGI's extensions that add to an answer or to a scope: early hints, trailers, TLS. Files are in test_files.py."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate

from prefork.http.exchange import ClientDisconnectedError
from prefork.http.response import ResponseError
from prefork.http.server import HttpServer
from prefork.net.material import Clients, TLSFiles
from prefork.net.tls import server_context
from tests.wire.rig import LOOPS, Wire, answers, converse, run, served

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
WANTS_TRAILERS = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTE: trailers\r\n\r\n"
CL = b"content-length"
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"abc"}

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def sending(*messages: dict[str, Any], errors: list[Any] | None = None) -> Any:
    """An application that sends these messages; what `send` raises goes to `errors`, if given."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception as error:
                if errors is None:
                    raise
                errors.append(error)

    return app


def heard(loop: str, app: Any, raw: bytes = GET) -> bytes:
    found, _ = run(loop, lambda: converse([raw], app))
    return found


# -- early hints (RFC 8297) ---------------------------------------------------------------------------


def hint(*links: Any) -> dict[str, Any]:
    return {"type": "http.response.early_hint", "links": list(links)}


def test_early_hints_come_before_the_answer(loop: str) -> None:
    """Each at once, as an answer of its own, before the head is given and after; and on a kept connection again."""
    app = sending(hint(b"</a.css>; rel=preload", b"</b.js>; rel=preload"), START, hint(b"</c>"), BODY)
    once = (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nlink: </c>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 3\r\n\r\nabc"
    )
    raw = heard(loop, app, GET + GET).replace(
        b"content-length: 3\r\ndate: now", b"date: now\r\ncontent-length: 3"
    )
    assert raw == once * 2


def test_a_hint_is_sent_before_the_answer_is_there(loop: str) -> None:
    """That is what it is for."""

    async def story() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(hint(b"</a>"))
            await go.wait()
            await sending(START, BODY)(scope, receive, send)

        async with Wire(app) as wire:
            wire.feed(GET)
            assert (await wire.read(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
            go.set()
            await wire.read(b"abc")

    run(loop, story)


def test_http_1_0_has_no_interim_answers(loop: str) -> None:
    """RFC 9110 §15.2: it must not be sent one. The application is not bothered with that."""
    (answer,) = answers(heard(loop, sending(hint(b"</a>"), START, BODY), GET_1_0))
    assert (answer.status, answer.body) == (200, b"abc")


@pytest.mark.parametrize("link", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b", "text", None, 7])
def test_a_link_that_would_end_its_line(loop: str, link: Any) -> None:
    """Nothing of the hint is sent, not its good links either; the answer may follow."""
    errors: list[Any] = []
    raw = heard(loop, sending(hint(b"</good>", link), START, BODY, errors=errors))
    assert [type(error) for error in errors] == [ResponseError]
    assert [each.status for each in answers(raw)] == [200]
    assert b"good" not in raw


@pytest.mark.parametrize("before", [(BODY,), ({**BODY, "more_body": True},)])
def test_a_hint_that_is_late(loop: str, before: Any) -> None:
    """Behind the head there is no place for it."""
    errors: list[Any] = []
    heard(loop, sending(START, *before, hint(b"</a>"), errors=errors))
    assert [type(error) for error in errors] == [ResponseError]


def test_a_hint_for_nobody(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client has left: an OSError, as every `send`, and no word in the log."""
    errors: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        try:
            await send(hint(b"</a>"))
        except OSError as error:
            errors.append(error)
            raise

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(GET)
            await wire.until(lambda: wire.engine.running)
            wire.protocol.abort()
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert [type(error) for error in errors] == [ClientDisconnectedError]
    assert not caplog.records


def test_a_hint_is_no_answer_to_an_expectation(loop: str) -> None:
    """100 still comes when the body is asked for."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint(b"</a>"))
        await receive()
        await sending(START, BODY)(scope, receive, send)

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
            assert await wire.read(b"100 Continue\r\n\r\n") == (
                b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
            )
            wire.feed(b"x")
            await wire.read(b"abc")

    run(loop, story)


# -- trailers (RFC 9110 §6.5, RFC 9112 §7.1.2) --------------------------------------------------------


def trailers(*pairs: tuple[Any, Any], more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": list(pairs), "more_trailers": more}


WITH_TRAILERS = {**START, "trailers": True}
SUM = (b"X-Sum", b"1")


@pytest.mark.parametrize(
    ("messages", "section"),
    [
        ((BODY, trailers(SUM)), b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"),
        (
            ({**BODY, "more_body": True}, BODY, trailers(SUM)),
            b"3\r\nabc\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        (
            (BODY, trailers(SUM, more=True), trailers((b"x-b", b"2"), (b"x-b", b""))),
            b"3\r\nabc\r\n0\r\nx-sum: 1\r\nx-b: 2\r\nx-b: \r\n\r\n",
        ),
        ((BODY, trailers()), b"3\r\nabc\r\n0\r\n\r\n"),
        (({**BODY, "body": b""}, trailers(SUM)), b"0\r\nx-sum: 1\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("te", [b"trailers", b"gzip;q=0.5, Trailers", b"deflate\r\nTE: trailers"])
def test_trailers_follow_the_last_chunk(loop: str, messages: Any, section: bytes, te: bytes) -> None:
    raw = heard(loop, sending(WITH_TRAILERS, *messages), GET.replace(b"Host", b"TE: " + te + b"\r\nHost"))
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert rest == section


@pytest.mark.parametrize(
    "raw", [GET, GET.replace(b"Host", b"TE: gzip\r\nHost"), GET.replace(b"Host", b"TE: x-trailers\r\nHost")]
)
def test_who_does_not_ask_for_trailers_gets_none(loop: str, raw: bytes) -> None:
    """The answer is whole without, and so is the next one."""
    found = answers(heard(loop, sending(WITH_TRAILERS, BODY, trailers(SUM)), raw + raw))
    assert [each.body for each in found] == [b"abc", b"abc"]


@pytest.mark.parametrize(
    ("raw", "head", "body"),
    [
        (WANTS_TRAILERS, {"headers": [(CL, b"3")]}, b"abc"),
        (WANTS_TRAILERS.replace(b"GET", b"HEAD"), {}, b""),
        (WANTS_TRAILERS.replace(b"GET", b"HEAD"), {"headers": [(CL, b"3")]}, b""),
        (WANTS_TRAILERS, {"status": 204}, b""),
        (WANTS_TRAILERS, {"status": 304}, b""),
        (GET_1_0, {}, b"abc"),
        (GET_1_0, {"headers": [(CL, b"3")]}, b"abc"),
    ],
)
def test_an_answer_that_has_no_place_for_trailers(loop: str, raw: bytes, head: Any, body: bytes) -> None:
    """A body that is not chunked: they are dropped."""
    messages = (WITH_TRAILERS | head, BODY, trailers(SUM))
    method = raw.partition(b" ")[0].decode()
    found = answers(heard(loop, sending(*messages), raw + raw), [method] * 2)
    assert len(found) == (1 if raw is GET_1_0 and not head else 2)
    for answer in found:
        assert answer.body == body
        assert answer["x-sum"] is None


@pytest.mark.parametrize("announced", [b"2", b"4"])
def test_a_wrong_length_is_found_out_behind_trailers_too(loop: str, announced: bytes) -> None:
    errors: list[Any] = []
    messages = (WITH_TRAILERS | {"headers": [(CL, announced)]}, BODY, trailers(SUM))
    raw = heard(loop, sending(*messages, errors=errors), WANTS_TRAILERS)
    assert isinstance(errors[0], ResponseError)
    assert b"abc" not in raw


@pytest.mark.parametrize(
    "name",
    [
        *b"transfer-encoding content-length host te trailer connection authorization set-cookie expect".split(),
        *b"content-type content-encoding content-range cache-control Content-Length".split(),
        *(b"", b"a b", b"a:", b"\xe9", b"a\r\nb"),
    ],
)
def test_a_name_that_cannot_be_a_trailer(loop: str, name: bytes) -> None:
    """What frames, routes or guards a message: a client that joined it to the head would be misled."""
    errors: list[Any] = []
    raw = heard(
        loop, sending(WITH_TRAILERS, BODY, trailers(SUM, (name, b"1")), errors=errors), WANTS_TRAILERS
    )
    assert [type(error) for error in errors] == [ResponseError]
    assert b"x-sum" not in raw
    assert not raw.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b"])
@pytest.mark.parametrize("is_asked_for", [True, False])
def test_a_trailer_that_would_end_its_line(loop: str, value: bytes, *, is_asked_for: bool) -> None:
    """A mistake whether it is sent or not."""
    errors: list[Any] = []
    app = sending(WITH_TRAILERS, BODY, trailers((b"x-a", value)), errors=errors)
    raw = heard(loop, app, WANTS_TRAILERS if is_asked_for else GET)
    assert [type(error) for error in errors] == [ResponseError]
    assert b"x-a" not in raw


@pytest.mark.parametrize(
    "messages",
    [
        (trailers(SUM), WITH_TRAILERS, BODY),
        (START, BODY, trailers(SUM)),
        (START, trailers(SUM), BODY),
        (WITH_TRAILERS, {**BODY, "more_body": True}, trailers(SUM), BODY),
        (WITH_TRAILERS, BODY, BODY, trailers(SUM)),
        (WITH_TRAILERS, BODY, trailers(SUM), trailers(SUM)),
        (WITH_TRAILERS, BODY, trailers(SUM), BODY),
    ],
)
def test_trailers_out_of_order(loop: str, messages: Any) -> None:
    """Head, body, trailers: whatever is not in its place is refused, and sent nowhere."""
    errors: list[Any] = []
    raw = heard(loop, sending(*messages, errors=errors), WANTS_TRAILERS)
    assert [type(error) for error in errors] == [ResponseError]
    assert raw.count(b"x-sum") <= 1
    assert raw.count(b"abc") <= 2


def test_trailers_that_never_come(loop: str) -> None:
    """The application has promised them: without, the answer is not whole."""
    raw = heard(loop, sending(WITH_TRAILERS, BODY), WANTS_TRAILERS + GET)
    assert raw.count(b"HTTP/1.1") == 1
    assert b"0\r\n\r\n" not in raw


def test_trailers_for_nobody(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client has left between body and trailers."""
    errors: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sending(WITH_TRAILERS, BODY)(scope, receive, send)
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await sending(trailers(SUM), errors=errors)(scope, receive, send)

    async def story() -> None:
        async with Wire(app) as wire:
            wire.feed(WANTS_TRAILERS)
            await wire.read(b"abc")
            wire.protocol.abort()
            await wire.until(lambda: not wire.engine.running)

    run(loop, story)
    assert [type(error) for error in errors] == [ClientDisconnectedError]
    assert not caplog.records


def test_every_extension_is_told_of(loop: str) -> None:
    """Applications look them up by these names; without TLS there is no `tls`."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope["extensions"])
        await sending(START, BODY)(scope, receive, send)

    heard(loop, app)
    names = ("early_hint", "pathsend", "trailers", "zerocopysend")
    assert told == [{f"http.response.{name}": {} for name in names}]


# -- tls ----------------------------------------------------------------------------------------------


class Material:
    """Certificates on disk: the server's, its clients' authority, and a client's."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        self.folder = folder
        self.authority, self.clients = trustme.CA(), trustme.CA()
        issued = self.authority.issue_cert(name)
        (folder / "cert").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        (folder / "key").write_bytes(issued.private_key_pem.bytes())
        self.clients.cert_pem.write_to_path(str(folder / "clients"))
        self.of_client = self.clients.issue_cert(
            "me@example.org", common_name='A, "B"', organization_name="C+D"
        )

    def server(self, *, is_required: bool) -> ssl.SSLContext:
        names = [str(self.folder / name) for name in ("cert", "key", "clients")]
        return server_context(TLSFiles(names[0], names[1], Clients(names[2], is_required=is_required)))

    def client(self, *, shows: bool, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        if shows:
            self.of_client.configure_cert(context)
        return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("is_required", [True, False])
def test_a_scope_tells_of_the_clients_certificate(
    loop: str, tmp_path: Path, version: ssl.TLSVersion, *, shows: bool, is_required: bool
) -> None:
    """Chain, name, version and cipher as the ASGI TLS extension has them; who must show one and does not is not served."""
    material = Material(tmp_path)
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        told.append((scope["scheme"], scope["extensions"]["tls"]))
        await sending(START, BODY)(scope, receive, send)

    async def story() -> None:
        async with served(HttpServer(app), material.server(is_required=is_required)) as port:
            context = material.client(shows=shows, version=version)
            with contextlib.ExitStack() as refused:
                if is_required and not shows:
                    refused.enter_context(
                        pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError))
                    )
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="localhost"
                )
                refused.callback(writer.close)
                writer.write(GET)
                await reader.readuntil(b"abc")

    run(loop, story)
    if is_required and not shows:
        assert not told
        return
    ((scheme, tls),) = told
    assert scheme == "https"
    assert tls["tls_version"] == {ssl.TLSVersion.TLSv1_2: 0x0303, ssl.TLSVersion.TLSv1_3: 0x0304}[version]
    assert tls["cipher_suite"] is None or 0 < tls["cipher_suite"] < 0x10000
    assert tls["cipher_suite"] is not None or version == ssl.TLSVersion.TLSv1_2
    assert tls["client_cert_error"] is None
    if shows:
        first, *_ = tls["client_cert_chain"]
        certificate = load_pem_x509_certificate(first.encode())
        assert certificate == load_pem_x509_certificate(material.of_client.cert_chain_pems[0].bytes())
        assert tls["client_cert_name"] == certificate.subject.rfc4514_string()
    else:
        assert list(tls["client_cert_chain"]) == []
        assert tls["client_cert_name"] is None


def test_what_an_application_writes_of_tls_no_other_client_is_told(loop: str, tmp_path: Path) -> None:
    """It enters there whom a proxy has named: the next request has no name again, of this connection or another."""
    material = Material(tmp_path)
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        tls = scope["extensions"]["tls"]
        told.append((tls["client_cert_name"], list(tls["client_cert_chain"])))
        tls["client_cert_name"] = "CN=root"
        await sending(START, BODY)(scope, receive, send)

    async def story() -> None:
        async with served(HttpServer(app), material.server(is_required=False)) as port:
            context = material.client(shows=False, version=ssl.TLSVersion.TLSv1_3)
            for _ in range(2):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="localhost"
                )
                for _ in range(3):
                    writer.write(GET)
                    await reader.readuntil(b"abc")
                writer.close()

    run(loop, story)
    assert told == [(None, [])] * 6


def test_the_servers_certificate(loop: str, tmp_path: Path) -> None:
    """`server_cert` is PEM, or None where the server cannot tell: never anything else."""
    material = Material(tmp_path)
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        told.append(scope["extensions"]["tls"]["server_cert"])
        await sending(START, BODY)(scope, receive, send)

    async def story() -> None:
        async with served(HttpServer(app), material.server(is_required=False)) as port:
            context = material.client(shows=False, version=ssl.TLSVersion.TLSv1_3)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            writer.write(GET)
            await reader.readuntil(b"abc")
            writer.close()

    run(loop, story)
    assert told[0] is None or told[0] == (tmp_path / "cert").read_text()
