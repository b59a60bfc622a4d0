"""What proxies say of where a request came from, through a whole connection: trusted ones are believed, no others.

How the headers are read is tested in tests/unit/test_http_forwarded.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import pytest

from prefork.http.forwarded import TrustedProxies
from prefork.http.options import HttpOptions
from prefork.http.server import HttpServer
from prefork.http.site import Site
from tests.wire.rig import LOOPS, Pair, Wire, answers, run, served

pytestmark = pytest.mark.parametrize("loop", LOOPS)


X_ALL = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n"
FORWARDED = b"Forwarded: for=1.2.3.4;proto=https;host=b\r\n"


def request(extra: bytes = b"", target: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, extra)


async def witness(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what the scope says of client, scheme and hosts."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
    text = json.dumps([scope["client"], scope["scheme"], hosts]).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


def told(loop: str, trusted: TrustedProxies, *raw: bytes) -> list[Any]:
    """Over a Unix socket, whose peer has no address: what the application was told, request by request."""

    async def story() -> bytes:
        async with Wire(witness, site=Site(trusted=trusted)) as wire:
            for each in raw:
                wire.feed(each)
                await wire.settle()
            return await wire.read_to_end()

    return [json.loads(each.body) for each in answers(run(loop, story))]


@pytest.mark.parametrize("proxies", ["unix", "*", "10.0.0.1,unix"])
@pytest.mark.parametrize("said", [X_ALL, FORWARDED])
@pytest.mark.parametrize("is_host_taken", [True, False])
def test_a_trusted_proxy_is_believed(loop: str, proxies: str, said: bytes, *, is_host_taken: bool) -> None:
    """Of the host only if asked for; then it is the only one."""
    trusted = TrustedProxies(proxies, is_host_taken=is_host_taken)
    (found,) = told(loop, trusted, request(said))
    assert found == [["1.2.3.4", 0], "https", ["b" if is_host_taken else "a"]]


@pytest.mark.parametrize("proxies", ["", "10.0.0.1", "127.0.0.1,::1", "0.0.0.0/0,::/0"])
@pytest.mark.parametrize("said", [X_ALL, FORWARDED])
def test_nobody_else_is(loop: str, proxies: str, said: bytes) -> None:
    trusted = TrustedProxies(proxies, is_host_taken=True)
    assert told(loop, trusted, request(said)) == [[None, "http", ["a"]]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", ["1.2.3.4", 0]),
        (b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", ["1.2.3.4", 0]),
        (b"X-Forwarded-For: 1.2.3.4, 10.0.0.7\r\n", ["1.2.3.4", 0]),
        (b"x-forwarded-for:1.2.3.4\r\nX-FORWARDED-FOR: 10.0.0.7\r\n", ["1.2.3.4", 0]),
        (b"Forwarded: for=6.6.6.6, for=1.2.3.4\r\nForwarded: for=10.0.0.7\r\n", ["1.2.3.4", 0]),
        (b'Forwarded: for="[2001:db8::1]:4711"\r\n', ["2001:db8::1", 4711]),
        (b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=6.6.6.6\r\n", ["1.2.3.4", 0]),
        (b"X-Forwarded-For: unknown\r\n", None),
        (b"X-Forwarded-For:\r\n", None),
        (b'X-Forwarded-For: \xff\xfe, "\r\n', None),
    ],
)
def test_a_chain_is_read_from_its_trusted_end(loop: str, said: bytes, expected: Any) -> None:
    """In however many lines it comes, in whatever letters."""
    ((client, _, _),) = told(loop, TrustedProxies("unix,10.0.0.0/8"), request(said))
    assert client == expected


def test_each_request_speaks_for_itself(loop: str) -> None:
    """Nothing of one is left for the next on a connection, whether parsed or not."""
    one, two, none = request(X_ALL), request(X_ALL.replace(b"1.2.3.4", b"5.6.7.8")), request()
    order = [one, one, one, none, one, two, none, none, none, two, one, one, one + two + none, two]
    found = told(loop, TrustedProxies("unix"), *order)
    names = {one: "1.2.3.4", two: "5.6.7.8", none: None}
    expected = [names[each] for each in (*order[:-2], one, two, none, two)]
    assert [client and client[0] for client, _, _ in found] == expected
    assert [scheme for _, scheme, _ in found] == ["https" if each else "http" for each in expected]


def test_a_target_with_a_host_and_a_proxy_with_another(loop: str) -> None:
    """The target counts more than the header (RFC 9112 §3.2.2), and a trusted proxy that is asked more than both."""
    raw = request(X_ALL, b"http://c/")
    assert told(loop, TrustedProxies("unix"), raw)[0][2] == ["c"]
    assert told(loop, TrustedProxies("unix", is_host_taken=True), raw)[0][2] == ["b"]


def test_a_host_that_is_none_is_not_taken(loop: str) -> None:
    trusted = TrustedProxies("unix", is_host_taken=True)
    raw = request(b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: b/c d\r\n")
    assert told(loop, trusted, raw) == [[["1.2.3.4", 0], "http", ["a"]]]


def test_trailers_say_nothing_of_the_next_request(loop: str) -> None:
    """Nor of their own: they come behind, where a proxy does not look."""
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + X_ALL + b"\r\n"
    found = told(loop, TrustedProxies("*"), chunked, request())
    assert found == [[None, "http", ["a"]]] * 2


@pytest.mark.parametrize(
    "name", [b"X_Forwarded_For", b"XForwardedFor", b"X-Forwarded-For_", b"HTTP-X-Forwarded-For"]
)
def test_names_that_look_alike_are_others(loop: str, name: bytes) -> None:
    assert told(loop, TrustedProxies("*"), request(name + b": 1.2.3.4\r\n"))[0][0] is None


@pytest.mark.parametrize("proxies", ["127.0.0.1", "127.0.0.0/8", "*"])
@pytest.mark.parametrize("is_tls", [True, False])
def test_over_tcp_from_a_trusted_peer(loop: str, proxies: str, *, is_tls: bool) -> None:
    """The proxy's word on the scheme wins over the connection's own, both ways."""
    said = X_ALL if not is_tls else X_ALL.replace(b"https", b"http")
    assert over_tcp(loop, proxies, said, is_tls=is_tls) == (["1.2.3.4", 0], "http" if is_tls else "https")


@pytest.mark.parametrize("proxies", ["", "unix", "127.0.0.2", "10.0.0.0/8"])
@pytest.mark.parametrize("is_tls", [True, False])
def test_over_tcp_from_anybody(loop: str, proxies: str, *, is_tls: bool) -> None:
    client, scheme = over_tcp(loop, proxies, X_ALL, is_tls=is_tls)
    assert client[0] == "127.0.0.1"
    assert client[1] > 1024
    assert scheme == ("https" if is_tls else "http")


def over_tcp(loop: str, proxies: str, said: bytes, *, is_tls: bool) -> tuple[Any, str]:
    """Through a whole server, by its options: client and scheme."""
    pair = Pair()
    options = HttpOptions(trusted_proxies=proxies, lifespan="off")

    async def story() -> list[Any]:
        async with served(HttpServer(witness, options=options), pair.server() if is_tls else None) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                port,
                ssl=pair.client() if is_tls else None,
                server_hostname="localhost" if is_tls else None,
            )
            writer.write(request(said))
            await reader.readuntil(b"\r\n\r\n")
            found = await reader.readuntil(b"]]")
            writer.close()
            return list(json.loads(found))

    client, scheme, _ = run(loop, story)
    return client, scheme


@pytest.mark.parametrize("headers", ["any", "x-forwarded", "forwarded"])
def test_only_the_family_that_was_named_is_heard(loop: str, headers: Any) -> None:
    both = request(b"X-Forwarded-For: 1.1.1.1\r\nForwarded: for=2.2.2.2\r\n")
    one = request(b"Forwarded: for=2.2.2.2\r\n")
    found = told(loop, TrustedProxies("unix", headers=headers), both, one)
    expected = {"any": ["1.1.1.1", "2.2.2.2"], "x-forwarded": ["1.1.1.1", None], "forwarded": ["2.2.2.2"] * 2}
    assert [client and client[0] for client, _, _ in found] == expected[headers]


def test_who_was_reset_before_the_accept_is_nobody(loop: str) -> None:
    """Its request can still be read, its address cannot: it must not pass for one at a Unix socket, which is trusted."""

    async def story() -> list[Any]:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"] == "http" and scope["client"])
            await witness(scope, receive, send)

        server = HttpServer(app, options=HttpOptions(trusted_proxies="unix", lifespan="off"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(request(X_ALL))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            serving = asyncio.ensure_future(server.serve_many([listener], None))
            # Behind it in the queue: when this one is answered, that one was read.
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(request(b"Connection: close\r\n"))
            await reader.read()
            writer.close()
            server.drain()
            await serving
        return seen

    (client,) = run(loop, story)
    assert client[0] == "127.0.0.1"
