"""What a WSGI application is told of a request."""

from __future__ import annotations

import io
import logging
from typing import Any
from wsgiref.util import request_uri

import pytest

from prefork.http.forwarded import Origin
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_errors import ErrorStream
from tests.wire.rig import run
from tests.wire.test_wsgi_rig import GET, PLAIN, WsgiWire, ask, both_ways, talk, validated


def told(loop: str, way: str, *requests: bytes) -> list[dict[str, Any]]:
    """The environs of some requests on one connection."""
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> Any:
        assert type(environ) is dict
        seen.append(environ.copy())
        environ.clear()  # it is the application's to change
        start_response("200 OK", [PLAIN])
        return [b""]

    run(loop, lambda: talk(requests, app, way))
    return seen


def get(target: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"GET %b HTTP/1.1" % target, b"Host: a:1", *headers, b"", b""))


@both_ways
def test_an_ordinary_request(loop: str, way: str) -> None:
    [environ] = told(loop, way, get(b"/a/b?c=d&e", b"User-Agent: me", b"X-Some-Thing: \xe9"))
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d&e",
        "RAW_URI": "/a/b?c=d&e",
        "REQUEST_URI": "/a/b?c=d&e",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "a:1",
        "HTTP_USER_AGENT": "me",
        "HTTP_X_SOME_THING": "\xe9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": way == "threads",
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert expected.items() <= environ.items()
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTPS", "client", "scheme"} & environ.keys()
    assert request_uri(environ) == "http://a:1/a/b?c=d&e"


@both_ways
@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/%C3%A9", "/\xc3\xa9"),
        (b"/%e9", "/\xe9"),
        (b"/%25%zz", "/%%zz"),
        (b"/a%2Fb", "/a/b"),
        (b"//a/../b", "//a/../b"),
        (b"http://b/c", "/c"),
    ],
)
def test_paths_are_bytes_as_latin_1(loop: str, way: str, raw: bytes, path: str) -> None:
    [environ] = told(loop, way, get(raw))
    assert environ["PATH_INFO"] == path
    assert environ["RAW_URI"] == raw.removeprefix(b"http://b").decode()


@both_ways
def test_an_asterisk_is_a_path_to_the_root(loop: str, way: str) -> None:
    [environ] = told(loop, way, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (environ["PATH_INFO"], environ["RAW_URI"]) == ("/", "*")


@both_ways
def test_repeated_headers_are_joined(loop: str, way: str) -> None:
    raw = get(b"/", b"X-A: 1", b"Cookie: a=b", b"X-a: 2", b"Cookie: c=d", b"x-A: 3", b"Accept: */*")
    [environ] = told(loop, way, raw)
    assert (environ["HTTP_X_A"], environ["HTTP_COOKIE"]) == ("1,2,3", "a=b; c=d")
    assert environ["HTTP_ACCEPT"] == "*/*"


@both_ways
@pytest.mark.parametrize("with_dash", [(), (b"X-Forwarded-For: 1.2.3.4",)])
@pytest.mark.parametrize("is_first", [True, False])
def test_names_with_underscores_are_dropped(loop: str, way: str, with_dash: Any, *, is_first: bool) -> None:
    """They would pass for the name with a dash, which a proxy in front may have checked."""
    spoofed = (b"X_Forwarded-For: 6.6.6.6", b"x_forwarded_for: 6.6.6.6", b"Proxy: evil", b"content_length: 7")
    headers = (*spoofed, *with_dash) if is_first else (*with_dash, *spoofed)
    [environ] = told(loop, way, get(b"/", *headers))
    assert environ.get("HTTP_X_FORWARDED_FOR") == ("1.2.3.4" if with_dash else None)
    assert not {"", "HTTP_PROXY", "HTTP_CONTENT_LENGTH", "CONTENT_LENGTH"} & environ.keys()


@both_ways
def test_what_one_application_has_changed_the_next_does_not_see(loop: str, way: str) -> None:
    """The same request again and again is parsed twice only; all environs are alike all the same."""
    first, *others = told(loop, way, *[get(b"/a?b", b"X-A: b")] * 4)
    assert len(others) == 3
    assert all(other == first for other in others)


@both_ways
def test_http_1_0(loop: str, way: str) -> None:
    [environ] = told(loop, way, b"GET / HTTP/1.0\r\n\r\n")
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert request_uri(environ) == "http://localhost/"  # by a Unix socket


def beginning(**changes: Any) -> dict[str, Any]:
    given = {
        "scheme": "http",
        "server": ("::1", 8000),
        "root_path": "",
        "tls": None,
    }
    client = changes.pop("client", ("1.2.3.4", 5))
    return WSGIExchange.template(**(given | changes)) | WSGIExchange.own(client)


def test_addresses() -> None:
    environ = beginning()
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("[::1]", "8000")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("1.2.3.4", "5")
    environ = beginning(client=None, server=("/run/a.sock", None), scheme="https")
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "443")
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ


def test_the_root_path_is_the_script_name() -> None:
    assert beginning(root_path="/\xe9")["SCRIPT_NAME"] == "/\xc3\xa9"


def test_a_forwarded_request() -> None:
    """A trusted proxy has said where it came from."""
    exchange = WSGIExchange(None, beginning(), True)  # type: ignore[arg-type]
    exchange.scope["HTTP_HOST"] = "inner"
    exchange.set_origin(Origin(("9.9.9.9", 0), "https", b"outer"))
    environ = exchange.scope
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTPS"]) == (
        "9.9.9.9",
        "https",
        "on",
    )
    assert environ["HTTP_HOST"] == "outer"
    assert "REMOTE_PORT" not in environ
    exchange.set_origin(Origin(None, "http", None))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == ("", "http", "outer")
    assert "HTTPS" not in environ


class FakeTls:
    """What the `ssl` module says of a connection."""

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)

    def getpeercert(self, *, binary_form: bool = False) -> Any:
        return b"der" if binary_form else {"subject": ((("commonName", "\xe9"),),)}


def test_tls() -> None:
    environ = beginning(scheme="https", tls=FakeTls())
    expected = {
        "HTTPS": "on",
        "wsgi.url_scheme": "https",
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "TLS_AES_128_GCM_SHA256",
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": "CN=\xc3\xa9",
    }
    assert expected.items() <= environ.items()
    assert environ["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")


@both_ways
def test_what_the_access_log_says(loop: str, way: str) -> None:
    async def story() -> Any:
        fields = []

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [PLAIN])
            return [b""]

        async with WsgiWire(app, way) as wire:
            kept = wire.protocol.response_done
            wire.feed(get(b"/a%20?b", b"Referer: \xe9", b"User-Agent: u")[:-2] + b"Content-Length: 3\r\n\r\n")
            fields.append(wire.protocol._exchange.log_fields())
            wire.feed(b"abc")
            await wire.settle()
            await wire.rest()
            del kept
        return fields

    assert run(loop, story) == [
        ("GET", b"/a%20?b", [(b"host", b"a:1"), (b"referer", b"\xe9"), (b"user-agent", b"u")], None, "http")
    ]


@both_ways
def test_errors_go_to_the_log(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        errors = environ["wsgi.errors"]
        print("one", "line", file=errors)
        errors.write("and two\nlines\nand a ")
        errors.writelines(["third", "\n"])
        errors.write("rest")
        errors.flush()
        start_response("200 OK", [PLAIN])
        return [b""]

    answer, _ = ask(loop, way, validated(app), GET)
    assert answer.status == 200
    assert [(name, level, text) for name, level, text in caplog.record_tuples] == [
        ("prefork.http.wsgi", logging.ERROR, text)
        for text in ("one line", "and two\nlines", "and a third", "rest")
    ]


@both_ways
def test_errors_of_two_clients_never_mix(loop: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each writes pieces of a line in turn; then their requests say that it ends."""

    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.errors"].write(environ["HTTP_X_SAID"])
        if environ["PATH_INFO"] == "/end":
            environ["wsgi.errors"].flush()
        start_response("200 OK", [PLAIN, ("Content-Length", "2")])
        return [b"ok"]

    async def story() -> None:
        async with WsgiWire(app, way) as one, WsgiWire(app, way) as two:
            pool, two.engine = two.engine.pool, one.engine
            await two.another()
            assert two.protocol.template is one.protocol.template
            for path in (b"/", b"/", b"/", b"/end"):
                for wire, said in ((one, b"X-Said: a"), (two, b"X-Said: b")):
                    wire.feed(get(path, said))
                    await wire.settle()
                    await wire.rest()
            if pool is not None:
                pool.close()

    run(loop, story)
    assert caplog.messages == ["aaaa", "bbbb"]


def test_errors_are_not_kept_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A line without end is logged in pieces; what is left when the connection ends, too."""
    errors = ErrorStream()
    errors.write("\n \n")
    errors.write("a" * 100_000)
    errors.writelines(["b", "c"])
    with pytest.raises(TypeError):
        errors.write(b"c")  # type: ignore[arg-type]
    del errors
    assert caplog.messages == ["a" * 100_000, "bc"]


@both_ways
def test_no_body_is_an_empty_input(loop: str, way: str) -> None:
    """One object for all who have none; what an application does to it, the next does not see."""

    def app(environ: Any, start_response: Any) -> Any:
        file = environ["wsgi.input"]
        for change in (lambda: file.write(b"a"), lambda: file.writelines([b"a"])):
            with pytest.raises(io.UnsupportedOperation):
                change()
        assert [file.read(), file.read(3), file.readline(), file.readlines(), list(file)] == [
            b"",
            b"",
            b"",
            [],
            [],
        ]
        with file:
            file.close()
        start_response("200 OK", [PLAIN])
        return [b"fine"]

    for _ in range(2):
        assert ask(loop, way, app)[0].body == b"fine"
