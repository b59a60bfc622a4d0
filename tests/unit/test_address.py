from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.errors import AddressError, ConfigError
from prefork.net.address import Address, parse_address

NETWORKS = [None, "tcp", "tcp4", "tcp6", "unix"]


@pytest.mark.parametrize(
    ("text", "network", "expected"),
    [
        (":8080", None, Address("tcp4", host="0.0.0.0", port=8080)),
        (":8080", "tcp4", Address("tcp4", host="0.0.0.0", port=8080)),
        (":8080", "tcp6", Address("tcp6", host="::", port=8080)),
        (":8080", "tcp", Address("tcp", host="::", port=8080)),
        (":0", None, Address("tcp4", host="0.0.0.0", port=0)),
        (":00080", None, Address("tcp4", host="0.0.0.0", port=80)),
        ("127.0.0.1:8080", None, Address("tcp4", host="127.0.0.1", port=8080)),
        ("127.0.0.1:8080", "tcp", Address("tcp4", host="127.0.0.1", port=8080)),
        ("0.0.0.0:80", "tcp", Address("tcp4", host="0.0.0.0", port=80)),
        ("localhost:8080", None, Address("tcp", host="localhost", port=8080)),
        ("LocalHost:8080", "tcp4", Address("tcp4", host="localhost", port=8080)),
        ("localhost:8080", "tcp6", Address("tcp6", host="localhost", port=8080)),
        ("my_app.internal.:80", None, Address("tcp", host="my_app.internal.", port=80)),
        ("[::1]:8080", None, Address("tcp6", host="::1", port=8080)),
        ("[0:0:0:0:0:0:0:1]:8080", "tcp6", Address("tcp6", host="::1", port=8080)),
        ("[fe80::1%eth0]:80", None, Address("tcp6", host="fe80::1%eth0", port=80)),
        ("[::]:8080", None, Address("tcp", host="::", port=8080)),
        ("[::]:8080", "tcp6", Address("tcp6", host="::", port=8080)),
        ("tcp6://[::]:8080", None, Address("tcp6", host="::", port=8080)),
        ("tcp://:8080", "tcp", Address("tcp", host="::", port=8080)),
        ("unix:/run/app.sock", None, Address("unix", path="/run/app.sock")),
        ("unix:///run/app.sock", "tcp4", Address("unix", path="/run/app.sock")),
        ("unix:app.sock", None, Address("unix", path="app.sock")),
        ("unix:@abstract", "unix", Address("unix", path="@abstract")),
        ("/run/my app.sock", "unix", Address("unix", path="/run/my app.sock")),
        ("run/app:8080", "unix", Address("unix", path="run/app:8080")),
        ("fd://3", None, Address("fd", fd=3)),
        ("fd://3", "unix", Address("fd", fd=3)),
    ],
)
def test_an_address_means_what_its_text_and_network_say(
    text: str, network: str | None, expected: Address
) -> None:
    """Each form that people write is read as the table in the module promises."""
    assert parse_address(text, network) == expected


@pytest.mark.parametrize(
    ("text", "network", "advice"),
    [
        ("", None, "is empty: write ':8080'"),
        ("   ", None, "white space"),
        (" :8080", None, "white space"),
        (":8080\n", None, "white space"),
        ("127.0.0.1 :8080", None, "is no host name"),
        ("a\tb:80", None, "control character"),
        ("8080", None, "write ':8080'"),
        ("localhost", None, "no port: write 'localhost:8080'"),
        ("[::1]", None, "no port: write '[::1]:8080'"),
        ("localhost:", None, "no port: write 'localhost:8080'"),
        (":", None, "no port"),
        ("localhost:http", None, "write a number from 0 to 65535"),
        (":-1", None, "write a number from 0 to 65535"),
        (":٣", None, "write a number from 0 to 65535"),
        (":65536", None, "too high: the last one is 65535"),
        (":" + "9" * 5000, None, "too high"),
        ("::1:8080", None, "write IPv6 in brackets"),
        ("[::1:8080", None, "no closing bracket"),
        ("[::1]x:8080", None, "after the bracket"),
        ("[nonsense]:8080", None, "not an IPv6 address"),
        ("[::ffff:127.0.0.1]:80", None, "write '127.0.0.1:80'"),
        ("[fe80::1%a b]:80", None, "bad interface"),
        ("256.0.0.1:80", None, "not an IPv4 address"),
        ("1.2.3:80", None, "not an IPv4 address"),
        ("*:80", None, "write ':8080' for every interface"),
        ("bücher.example:80", None, "ASCII form"),
        ("-x-:80", None, "is no host name"),
        ("http://127.0.0.1:8080", None, "is a URL: write '127.0.0.1:8080'"),
        ("https://example.org/path", "tcp", "is a URL: write 'example.org:8080'"),
        ("HTTP://", None, "is a URL: write ':8080'"),
        ("udp://127.0.0.1:80", None, "unknown scheme 'udp'"),
        ("127.0.0.1:80", "tcp6", "network is tcp6"),
        ("[::1]:80", "tcp4", "network is tcp4: leave network out, or set it to tcp6 or tcp"),
        ("tcp6://[::]:80", "tcp4", "contradicts network 'tcp4'"),
        ("127.0.0.1:80", "unix", "is not a path"),
        ("http://x/y", "unix", "is not a path"),
        ("unix:", None, "has no path"),
        ("unix:@", None, "has no path"),
        ("unix:/run/", None, "ends as a directory"),
        ("unix://run/app.sock", None, "write 'unix:/run/app.sock'"),
        ("unix://@name", None, "write 'unix:@name'"),
        ("unix:/" + "x" * 107, None, "108 bytes, and a Unix socket's path has at most 107"),
        ("unix:/" + "ü" * 60, None, "121 bytes"),
        ("fd://", None, "write 'fd://3'"),
        ("fd:3", None, "write 'fd://3'"),
        ("fd://-1", None, "write 'fd://3'"),
        ("fd://" + "9" * 5000, None, "write 'fd://3'"),
    ],
)
def test_a_bad_address_is_refused_with_advice(text: str, network: str | None, advice: str) -> None:
    """Whatever cannot be an address is refused in one line that says what to write."""
    with pytest.raises(AddressError) as refusal:
        parse_address(text, network)
    assert advice in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_network_is_named_with_the_known_ones() -> None:
    """A network that the seed does not know is a mistake in the configuration, not in the address."""
    with pytest.raises(ConfigError, match=r"^network must be tcp, tcp4, tcp6 or unix, not 'udp'$") as refusal:
        parse_address(":8080", "udp")
    assert not isinstance(refusal.value, AddressError)


@pytest.mark.parametrize(
    ("text", "network", "canonical", "plain", "secure"),
    [
        ("127.0.0.1:8080", None, "127.0.0.1:8080", "http://127.0.0.1:8080", "https://127.0.0.1:8080"),
        (":8080", None, "0.0.0.0:8080", "http://0.0.0.0:8080", "https://0.0.0.0:8080"),
        (":8080", "tcp", "[::]:8080", "http://[::]:8080", "https://[::]:8080"),
        (":8080", "tcp6", "tcp6://[::]:8080", "http://[::]:8080", "https://[::]:8080"),
        ("[::1]:8080", None, "[::1]:8080", "http://[::1]:8080", "https://[::1]:8080"),
        ("a.b:80", "tcp4", "tcp4://a.b:80", "http://a.b:80", "https://a.b:80"),
        ("unix:///run/a.sock", None, "unix:/run/a.sock", "unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:@a", None, "unix:@a", "unix:@a", "unix:@a"),
        ("unix:////a", None, "unix:////a", "unix://a", "unix://a"),
        ("fd://3", None, "fd://3", "fd://3", "fd://3"),
    ],
)
def test_an_address_writes_itself_for_programs_and_for_people(
    text: str, network: str | None, canonical: str, plain: str, secure: str
) -> None:
    """The canonical text is complete without the network; the URL is what a person can click on."""
    address = parse_address(text, network)
    assert (str(address), address.url(tls=False), address.url(tls=True)) == (canonical, plain, secure)


LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
HOSTS = st.one_of(
    st.just(""),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
)
TCP = st.builds("{}:{}".format, HOSTS, st.integers(0, 65535))
SCHEMED = st.builds("{}://{}".format, st.sampled_from(["tcp", "tcp4", "tcp6"]), TCP)
PATHS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40)
UNIX = st.builds("{}{}".format, st.sampled_from(["unix:", "unix:@", "unix:/", "unix:///"]), PATHS)
FDS = st.integers(0, 2**31 - 1).map("fd://{}".format)


@given(text=st.one_of(TCP, SCHEMED, UNIX, FDS, st.text(max_size=30)), network=st.sampled_from(NETWORKS))
def test_every_address_survives_being_written_and_read(text: str, network: str | None) -> None:
    """Text is either refused in one line, or its address is the same after a round trip with no network."""
    try:
        address = parse_address(text, network)
    except AddressError as refusal:
        assert len(str(refusal).splitlines()) == 1  # noqa: PT017 - refusals are one of two right answers
        return
    assert parse_address(str(address)) == address
    assert str(parse_address(str(address))) == str(address)


@given(text=st.one_of(TCP, FDS))
def test_plain_forms_are_read_or_refused_for_their_host_alone(text: str) -> None:
    """A well-formed port or descriptor is never the reason of a refusal."""
    try:
        parse_address(text)
    except AddressError as refusal:
        assert "IPv4" in str(refusal)  # noqa: PT017 - a name such as "1.2" looks like a broken IPv4 literal
