"""How strangers' collections are read: the formats, by small pieces of our own in each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from strangers import gunicorn_requests, http_parser_c, httparse_rs, lighttpd_c
from strangers.c_text import tokens
from strangers.case import Case, Heard, with_hosts


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


class TestC:
    def test_neighbouring_literals_are_one_and_comments_none(self) -> None:
        source = '#define X "no"\nf("a\\r\\n" // no\n  "b\\0\\xff", 4); /* "no" */'
        assert list(tokens(source)) == ["f", "(", b"a\r\nb\x00\xff", ",", "4", ")", ";"]

    def test_text_that_is_no_ascii_is_utf_8(self) -> None:
        assert list(tokens('"ü\\"\\101"')) == [b'\xc3\xbc"A']


class TestGunicorn:
    def test_a_file_writes_its_line_ends(self) -> None:
        text = b"GET / HTTP/1.1\\r\\n\nA: \\t\\x85\\0\\r\\n\n\\r\\n\n"
        assert gunicorn_requests.unescape(text) == b"GET / HTTP/1.1\r\nA: \t\x85\0\r\n\r\n"

    def test_several_requests_are_told_by_their_names(self) -> None:
        source = (
            'one = {"method": "GET", "uri": uri("/a?b"), "version": (1, 1), "headers": [("A-B", "c")], "body": b""}\n'
            'two = {"method": "PUT", "uri": uri("*"), "version": (1, 0), "headers": [], "body": "x\\n".replace("\\n", "").encode()}\n'
            "request = [one, two]\n"
        )
        expected, settings = gunicorn_requests.read_expected(source)
        assert expected == [
            Heard("GET", "/a", "b", "1.1", (("a-b", "c"),), b""),
            Heard("PUT", "*", "", "1.0", (), b"x"),
        ]
        assert settings == {}

    def test_an_exception_is_a_refusal(self) -> None:
        source = 'from a import Bad\ncfg = Config()\ncfg.set("limit_request_fields", 2)\nrequest = Bad\n'
        assert gunicorn_requests.read_expected(source) == ("Bad", {"limit_request_fields": 2})

    def test_the_files_of_a_folder_become_cases(self, tmp_path: Path) -> None:
        """With the bound that a refusal is about, by our name for it."""
        files = {
            "tests/requests/valid/1.http": "GET /a HTTP/1.0\\r\\n\n\\r\\n\n",
            "tests/requests/valid/1.py": (
                'request = {"method": "GET", "uri": uri("/a"), "version": (1, 0), "headers": [], "body": b""}'
            ),
            "tests/requests/invalid/2.http": "GET /a HTTP/1.0\\r\\n\n\\r\\n\n",
            "tests/requests/invalid/2.py": "request = LimitRequestLine",
            "tests/requests/invalid/3.http": "GET",
            "tests/requests/invalid/3.py": "request = NoMoreData",
        }
        valid, cut, long = sorted(
            gunicorn_requests.read(written(tmp_path, files)),
            key=lambda case: (case.heard is None, not case.is_cut),
        )
        assert valid == Case("valid/1", b"GET /a HTTP/1.0\r\n\r\n", (Heard("GET", "/a", "", "1.0", (), b""),))
        assert cut == Case("invalid/3", b"GET", None, is_cut=True)
        assert long == Case("invalid/2", b"GET /a HTTP/1.0\r\n\r\n", None, {"target_bytes": 4094})


HTTP_PARSER = r"""
const struct message requests[] =
#define ONE 0
{ {.name= "one" ,.raw= "POST /a?b HTTP/1.0\r\n" "X: y\r\n" "\r\n" "z"
  ,.http_major= 1 ,.http_minor= 0 ,.method= HTTP_POST ,.query_string= "b" ,.request_path= "/a"
  ,.num_headers= 1 ,.headers= { { "X", "y" } } ,.body= "z" }
};
static const char *all_methods[] = { "GET", 0 };
static const char *bad_methods[] = { "G", 0 };
const char *named = "GET / HTTP/1.0\r\n\r\n";
void f() {
  test_simple("GET / HTTP/9\r\n\r\n", HPE_INVALID_VERSION);
  test_simple(named, HPE_OK);
  test_simple_type("HTTP/1.1 200 OK\r\n\r\n", HPE_OK, HTTP_RESPONSE);
}
"""


def test_http_parser_has_messages_errors_and_methods(tmp_path: Path) -> None:
    """Answers are left out."""
    cases = {
        case.name: case
        for case in http_parser_c.read(written(tmp_path, {"vendor/http-parser/test.c": HTTP_PARSER}))
    }
    assert set(cases) == {
        *("message 1: one", "simple 1: HPE_INVALID_VERSION", "simple 2: HPE_OK"),
        *("all_methods: GET", "bad_methods: G"),
    }
    assert cases["message 1: one"].heard == (Heard("POST", "/a", "b", "1.0", (("x", "y"),), b"z"),)
    assert cases["simple 1: HPE_INVALID_VERSION"].heard is None
    assert cases["simple 2: HPE_OK"].raw == b"GET / HTTP/1.0\r\n\r\n"
    assert cases["all_methods: GET"].heard == (Heard(method="GET", path="/", version="1.1"),)
    assert cases["bad_methods: G"].heard is None


def test_lighttpd_has_heads_with_their_status(tmp_path: Path) -> None:
    """A body that is announced never comes."""
    source = r"""
    static void run_http_request_parse(request_st * const r, int line, int status) {}
    run_http_request_parse(r, __LINE__, 400, "bad", CONST_STR_LEN("GET\r\n" "\r\n"));
    run_http_request_parse(r, __LINE__, 0, "good", CONST_STR_LEN("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n"));
    """
    assert lighttpd_c.read(written(tmp_path, {"src/t/test_request.c": source})) == [
        Case("1: bad", b"GET\r\n\r\n", None),
        Case("2: good", b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", (Heard(),), is_cut=True),
    ]


HTTPARSE = r"""
macro_rules! req { ($name:ident, $buf:expr, |$arg:ident| $body:expr) => ( req! {$name, $buf, Ok(1), |$arg| $body } ); }
req! { good, b"GET /a?b HTTP/1.0\r\nA: b\r\n\r\n", |req| {
    assert_eq!(req.method.unwrap(), "GET");
    assert_eq!(req.path.unwrap(), "/a?b");
    assert_eq!(req.version.unwrap(), 0);
    assert_eq!(req.headers.len(), 1);
    assert_eq!(req.headers[0].name, "A");
    assert_eq!(req.headers[0].value, b"b");
} }
req! { bad, b"G\0T", Err(crate::Error::Token), |_r| {} }
req! { cut, b"GET", Ok(Status::Partial), |_r| {} }
"""


def test_httparse_says_by_asserts_what_is_heard(tmp_path: Path) -> None:
    """A result between the bytes and the closure is one that is not the usual."""
    crate = "usr/share/cargo/registry/httparse-1"
    folder = written(tmp_path, {f"{crate}/src/lib.rs": HTTPARSE, f"{crate}/tests/uri.rs": ""})
    good, bad, cut = httparse_rs.read(folder)
    assert good.heard == (Heard("GET", "/a", "b", "1.0", (("a", "b"),)),)
    assert (bad.raw, bad.heard, bad.is_cut) == (b"G\0T", None, False)
    assert (cut.heard, cut.is_cut) == ((Heard(),), True)


GET = b"GET /%s HTTP/1.1\r\n%s\r\n"
HOSTED = b"Host: a.example\r\n"

HOSTS = {
    "none": (GET % (b"", b"A: b\r\n"), GET % (b"", HOSTED + b"A: b\r\n")),
    "one that is there": (GET % (b"", b"hOST : b\r\n"), GET % (b"", b"hOST : b\r\n")),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"),
    "absolute": (
        b"GET http://u@b:1/ HTTP/1.1\r\n\r\n",
        b"GET http://u@b:1/ HTTP/1.1\r\nHost: b:1\r\n\r\n",
    ),
    "no request at all": (b"nonsense\r\n\r\n", b"nonsense\r\n\r\n"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_request_gets_the_host_that_a_server_asks_for(name: str) -> None:
    """Whether it is to be heard or refused."""
    raw, hosted = HOSTS[name]
    assert with_hosts(Case("a", raw, None)).raw == hosted
    assert with_hosts(Case("a", raw, (Heard(),))).raw == hosted


def test_what_looks_like_a_request_within_a_body_is_left_alone() -> None:
    """Each request that follows gets its own, behind a body of a length and behind chunks."""
    inner = GET % (b"inner", b"")
    first = GET % (b"1", b"Content-Length: %d\r\n" % len(inner)) + inner
    second = GET % (b"2", b"Transfer-Encoding: chunked\r\n") + b"1\r\na\r\n0\r\n\r\n"
    case = with_hosts(
        Case("a", first + second + GET % (b"3", b""), (Heard(headers=()), Heard(), Heard(headers=())))
    )
    assert case.raw.count(HOSTED) == 3
    assert inner in case.raw
    assert case.heard == tuple(
        Heard(headers=each) for each in ((("host", "a.example"),), None, (("host", "a.example"),))
    )
