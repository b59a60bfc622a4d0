"""Where a request comes from: only trusted proxies are believed, and only for what they wrote themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.errors import ConfigError
from prefork.http.forwarded import Origin, TrustedProxies, apply
from prefork.http.request import FORWARDING

PEER = ("127.0.0.1", 40000)
MADE_UP = "6.6.6.6"
CLIENT = "203.0.113.7"


def origin(*lines: tuple[str, str], trusted: TrustedProxies | None = None, client: Any = PEER) -> Origin:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
    return apply(headers, client, "http", trusted or TrustedProxies())


def x_for(value: str, **how: Any) -> Any:
    return origin(("x-forwarded-for", value), **how).client


def forwarded(value: str, **how: Any) -> Any:
    return origin(("forwarded", value), **how).client


# -- whom to listen to ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "peer", "is_trusted"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),  # through a dual-stack listener
        ("127.0.0.1", None, False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("10.0.0.0/8, ::1", "10.200.3.4", True),
        ("10.0.0.0/8, ::1", "::1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("unix", None, True),
        ("unix", "127.0.0.1", False),
        ("*", "8.8.8.8", True),
        ("*", None, True),
        ("", "127.0.0.1", False),
        ("127.0.0.1", "no address", False),
        (["127.0.0.1", "::1"], "::1", True),
        ([], "127.0.0.1", False),
    ],
)
def test_whom_to_listen_to(proxies: Any, peer: str | None, is_trusted: object) -> None:
    trusted = TrustedProxies(proxies)
    assert trusted.trusts(peer) is is_trusted
    assert trusted.trusts(peer) is is_trusted, "from memory, too"


def test_by_default_the_own_machine_is_trusted() -> None:
    trusted = TrustedProxies()
    assert trusted.trusts("127.0.0.1")
    assert trusted.trusts("::1")
    assert trusted.trusts(None)
    assert not trusted.trusts("192.168.1.1")


@pytest.mark.parametrize(
    ("proxies", "advice"),
    [
        ("nginx", "10.0.0.0/8"),
        ("10.0.0.300", "10.0.0.0/8"),
        ("10.0.0.5/8", "write 10.0.0.0/8 for all of it, or 10.0.0.5 for the one"),
        ("/run/nginx.sock", '"unix"'),
    ],
)
def test_a_proxy_that_is_no_address_is_refused_in_one_line(proxies: str, advice: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TrustedProxies(proxies)
    assert repr(proxies) in str(refused.value)
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_choice_of_headers_is_refused() -> None:
    with pytest.raises(ConfigError, match="any, x-forwarded, forwarded"):
        TrustedProxies(headers="both")  # type: ignore[arg-type]


def test_memory_is_bounded() -> None:
    trusted = TrustedProxies()
    for number in range(5000):
        host = f"10.0.{number >> 8}.{number & 255}"
        trusted.trusts(host)
        trusted.node(host.encode())
        trusted.node(b"x" * 100 + b"%d" % number)
    assert len(trusted._peers) <= 1024
    assert len(trusted._nodes) <= 1024
    assert max(map(len, trusted._nodes)) <= 64


# -- X-Forwarded-For -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7", (CLIENT, 0)),
        (" 203.0.113.7 ", (CLIENT, 0)),
        ("203.0.113.7:5000", (CLIENT, 5000)),  # Azure's Application Gateway
        ("203.0.113.7:99999", (CLIENT, 0)),
        ("2001:DB8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:5000", ("2001:db8::1", 5000)),
        ("::ffff:203.0.113.7", (CLIENT, 0)),
        ("6.6.6.6, 203.0.113.7", (CLIENT, 0)),  # the left one the client has made up
        ("6.6.6.6,203.0.113.7,127.0.0.1", (CLIENT, 0)),
        ("203.0.113.7, unix:", (CLIENT, 0)),  # nginx, reached by a Unix socket
        ("127.0.0.1, ::1", ("127.0.0.1", 0)),  # all trusted: a client on the proxy's own machine
        (",, 203.0.113.7 ,", (CLIENT, 0)),  # empty items are none (RFC 9110 §5.6.1)
        ("", PEER),
        (" , ", PEER),
        ("unknown", None),
        ("6.6.6.6, unknown", None),
        ("6.6.6.6, _hidden", None),
        ("6.6.6.6, nonsense", None),
        ("6.6.6.6, unknown, 127.0.0.1", None),
        ("6.6.6.6, 203.0.113.007", None),
        ("6.6.6.6, 256.1.1.1", None),
        ("6.6.6.6, [1.2.3.4", None),
        ("6.6.6.6, fe80::1%<script>", None),  # `ipaddress` takes any zone
        ("6.6.6.6, 1.2.3.4:5:6", None),
        ("6.6.6.6, \xe9\x00", None),
        ("unix:", None),
    ],
)
def test_the_client_of_a_chain(value: str, client: Any) -> None:
    assert x_for(value) == client


def test_several_lines_are_one_list() -> None:
    """HAProxy adds a line of its own to those that came."""
    assert origin(("x-forwarded-for", MADE_UP), ("x-forwarded-for", CLIENT)).client == (CLIENT, 0)
    two = origin(("x-forwarded-for", f"{MADE_UP}, {CLIENT}"), ("x-forwarded-for", "127.0.0.1"))
    assert two.client == (CLIENT, 0)


def test_all_peers_trusted_means_the_last_entry_only() -> None:
    """The star vouches for who connects, not for what clients wrote before a proxy appended to it."""
    assert x_for(f"{MADE_UP}, {CLIENT}", trusted=TrustedProxies("*")) == (CLIENT, 0)
    assert x_for(f"{CLIENT}, 10.0.0.1", trusted=TrustedProxies("*")) == ("10.0.0.1", 0)
    assert x_for(f"{MADE_UP}, {CLIENT}, 10.0.0.1", trusted=TrustedProxies("*,10.0.0.0/8")) == (CLIENT, 0)


def test_a_peer_by_unix_socket_has_no_address_until_the_proxy_gives_one() -> None:
    assert x_for(CLIENT, client=None) == (CLIENT, 0)
    assert x_for("", client=None) is None


def test_a_chain_without_end_is_cut() -> None:
    """Nobody makes us walk through thousands of hops: beyond the bound the client is unknown."""
    assert x_for(", ".join(["127.0.0.1"] * 32)) == ("127.0.0.1", 0)
    assert x_for(", ".join([CLIENT] + ["127.0.0.1"] * 5000)) is None


# -- scheme and host -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("wss", "https"),
        ("ws", "http"),
        ("javascript", "http"),
        ("", "http"),
        ("http, https", "https"),
    ],
)
def test_the_scheme(proto: str, scheme: str) -> None:
    assert origin(("x-forwarded-proto", proto)) == (PEER, scheme, None)


def test_the_scheme_belongs_to_the_hop_of_the_client() -> None:
    """The client came to the first proxy by https, that one to the second by http."""
    chain = ("x-forwarded-for", f"{MADE_UP}, {CLIENT}, 127.0.0.1")
    assert origin(chain, ("x-forwarded-proto", "ftp, https, http")).scheme == "https"
    assert origin(chain, ("x-forwarded-proto", "https")).scheme == "https", "one that was passed on"


WITH_HOST = TrustedProxies(is_host_taken=True)


def test_the_host_is_left_alone_unless_asked_for() -> None:
    """Most proxies pass on an X-Forwarded-Host that a client has made up."""
    lines = [("x-forwarded-for", CLIENT), ("x-forwarded-host", "evil.example")]
    assert origin(*lines).host is None
    assert origin(*lines, trusted=WITH_HOST).host == b"evil.example"
    assert origin(("forwarded", f"for={CLIENT};host=evil.example")).host is None


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        ({"x-forwarded-host": "a.example"}, b"a.example"),
        ({"x-forwarded-host": "a.example, b.example"}, b"b.example"),
        ({"x-forwarded-host": "a.example:8443"}, b"a.example:8443"),
        ({"x-forwarded-host": "a.example", "x-forwarded-port": "8443"}, b"a.example:8443"),
        ({"x-forwarded-host": "a.example:1", "x-forwarded-port": "8443"}, b"a.example:1"),
        ({"x-forwarded-host": "[::1]", "x-forwarded-port": "8443"}, b"[::1]:8443"),
        ({"x-forwarded-host": "a.example", "x-forwarded-port": "443"}, b"a.example"),
        ({"x-forwarded-host": "a.example", "x-forwarded-port": "80"}, b"a.example"),
        ({"x-forwarded-host": "a.example", "x-forwarded-port": "x"}, b"a.example"),
        ({"x-forwarded-host": "a.example", "x-forwarded-port": "70000"}, b"a.example"),
        ({"host": "a.example", "x-forwarded-port": "8443"}, b"a.example:8443"),  # nginx's $host has no port
        ({"host": "a.example:1", "x-forwarded-port": "8443"}, b"a.example:1"),
        ({"x-forwarded-port": "8443"}, None),
        ({"host": "a.example", "x-forwarded-port": "443"}, None),
        ({"host": "a.example", "x-forwarded-host": "b c"}, None),
        ({"host": "a.example", "x-forwarded-host": "b/../"}, None),
        ({"host": "a.example", "x-forwarded-host": ""}, None),
        ({"forwarded": "for=1.2.3.4;host=a.example"}, b"a.example"),
        ({"forwarded": 'for=1.2.3.4;host="a.example:8443"'}, b"a.example:8443"),
        ({"forwarded": 'for=1.2.3.4;host="a\\"b"'}, None),
    ],
)
def test_the_host(lines: dict[str, str], host: bytes | None) -> None:
    assert origin(*lines.items(), trusted=WITH_HOST).host == host


# -- Forwarded (RFC 7239) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.43", ("192.0.2.43", 0)),
        ('For="[2001:db8:cafe::17]:4711"', ("2001:db8:cafe::17", 4711)),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", ("192.0.2.60", 0)),
        ("for=192.0.2.43, for=198.51.100.17", ("198.51.100.17", 0)),
        ('for="192.0.2.43:47011"', ("192.0.2.43", 47011)),
        ("for=192.0.2.43:47011", ("192.0.2.43", 47011)),  # not by the grammar, but by many proxies
        ("for=[2001:db8::1]", ("2001:db8::1", 0)),
        ('for="192.0.2.43:_port"', ("192.0.2.43", 0)),
        ('for="192.0.2.\\43"', ("192.0.2.43", 0)),
        ("; for=192.0.2.43 ;; proto=http;", ("192.0.2.43", 0)),
        ('for=6.6.6.6, for=192.0.2.43, For="[::1]"', ("192.0.2.43", 0)),
        ("for=_hidden", None),
        ("for=_SEVKISEK, for=127.0.0.1", None),
        ("for=6.6.6.6, for=unknown", None),
        ('for=6.6.6.6, for="_gazonk:99"', None),
        ("for=6.6.6.6, for=192.0.2.43;for=6.6.6.6", None),  # "MUST NOT occur more than once"
        ("for=6.6.6.6, for 192.0.2.43", None),
        ("for=6.6.6.6, nonsense", None),
        ("proto=https", PEER),
        ("for=6.6.6.6, proto=https", PEER),
        ("", PEER),
        (
            'for="6.6.6.6, for=192.0.2.43',
            ("192.0.2.43", 0),
        ),  # an open quote does not swallow the proxy's element
        ('for=6.6.6.6;x="a, for=192.0.2.43', ("192.0.2.43", 0)),
        ('for=192.0.2.43;x="a, for=6.6.6.6"', None),  # and what is quoted is no element
        ('for=6.6.6.6, for=192.0.2.43"', None),
    ],
)
def test_the_client_of_a_forwarded_header(value: str, client: Any) -> None:
    assert forwarded(value) == client


def test_the_scheme_of_the_element_that_names_the_client() -> None:
    value = f"for={MADE_UP};proto=ftp, for={CLIENT};proto=HTTPS, for=127.0.0.1;proto=http"
    assert origin(("forwarded", value)) == ((CLIENT, 0), "https", None)
    assert origin(("forwarded", f"for={CLIENT};proto=gopher")).scheme == "http"
    assert origin(("forwarded", "proto=https")) == (PEER, "https", None)


def test_what_most_proxies_write_wins() -> None:
    """As behind nginx, which sets X-Forwarded-For and passes a client's own Forwarded on."""
    lines = [("x-forwarded-for", CLIENT), ("forwarded", f"for={MADE_UP};proto=https")]
    assert origin(*lines) == ((CLIENT, 0), "http", None)
    assert origin(*reversed(lines)) == ((CLIENT, 0), "http", None)
    x_proto = [("x-forwarded-proto", "http"), ("forwarded", f"for={MADE_UP};proto=https")]
    assert origin(*x_proto) == (PEER, "http", None)


def test_a_proxy_that_writes_forwarded_can_be_named_as_such() -> None:
    lines = [("x-forwarded-for", MADE_UP), ("forwarded", f"for={CLIENT};proto=https")]
    assert origin(*lines, trusted=TrustedProxies(headers="forwarded")) == ((CLIENT, 0), "https", None)
    assert origin(lines[0], trusted=TrustedProxies(headers="forwarded")) == (PEER, "http", None)
    assert origin(lines[1], trusted=TrustedProxies(headers="x-forwarded")) == (PEER, "http", None)


def test_other_headers_change_nothing() -> None:
    assert origin(("x-real-ip", MADE_UP), ("host", "a"), ("x_forwarded_for", MADE_UP)) == (PEER, "http", None)


# -- whatever comes ------------------------------------------------------------------------------------

PIECES = [
    "for=",
    "proto=https",
    "host=a",
    '"',
    "\\",
    ";",
    ",",
    " ",
    "127.0.0.1",
    MADE_UP,
    "[::1]",
    ":80",
    "_x",
    "\xff",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(FORWARDING)), TEXT | st.text(st.characters(max_codepoint=255))))
)
def test_nothing_raises(lines: list[tuple[bytes, str]]) -> None:
    headers = [(name, value.encode("latin-1")) for name, value in lines]
    result = apply(headers, PEER, "http", WITH_HOST)
    assert result.scheme in {"http", "https"}


@given(TEXT)
def test_whatever_a_client_sends_the_proxy_has_the_last_word(made_up: str) -> None:
    """A proxy appends to what came, be it within the line or as another one."""
    for name, entry in (("x-forwarded-for", CLIENT), ("forwarded", f"for={CLIENT};proto=https")):
        assert origin((name, f"{made_up}, {entry}")).client == (CLIENT, 0)
        assert origin((name, made_up), (name, entry)).client == (CLIENT, 0)
