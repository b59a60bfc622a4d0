"""The PROXY protocol's preface, whole and in pieces."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.http.proxy_protocol import MOST_V2_BYTES, Preface, PrefaceError, crc32c, read_preface

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SOURCE, DESTINATION = ("192.0.2.1", 56324), ("192.0.2.2", 443)
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 56324, 443)
V6 = (
    ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + struct.pack("!HH", 1, 2)
)


def v2(body: bytes = V4, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return (
        SIGNATURE
        + bytes([command, family])
        + struct.pack("!H", len(body) if length is None else length)
        + body
    )


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def unix(source: bytes, destination: bytes) -> bytes:
    return source.ljust(108, b"\x00") + destination.ljust(108, b"\x00")


def with_checksum(body: bytes) -> bytes:
    blank = v2(body + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


def verdict(data: bytes) -> Preface | str | None:
    try:
        return read_preface(data)
    except PrefaceError:
        return "refused"


# -- version 1 -----------------------------------------------------------------------------------------

LONGEST_V1 = b"PROXY UNKNOWN " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2 + [b"65535"] * 2) + b"\r\n"


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", SOURCE, DESTINATION),
        (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", ("255.255.255.255", 65535), ("0.0.0.0", 0)),
        (b"PROXY TCP6 2001:DB8::1 ::1 0 2\r\n", ("2001:db8::1", 0), ("::1", 2)),
        (b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", ("::ffff:1.2.3.4", 1), ("::1", 2)),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN whatever it is\r\n", None, None),
        (LONGEST_V1, None, None),
    ],
)
def test_a_line(line: bytes, source: object, destination: object) -> None:
    assert len(line) <= 107
    assert read_preface(line + b"GET / HTTP/1.1\r\n") == (len(line), source, destination, False, None)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\r\n",
        b"PROXY UNKNOWN \r \r\n",
        b"PROXY UNKNOWN \n \r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 056 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +56 443\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 56 443\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 56 443\r\n",
        b"PROXY TCP4 ::1 ::1 56 443\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 56 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 56 443\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 56 443\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.2 56 443\r\n",
        b"PROXY \r\n",
        b"PROXY\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 443\r\n",
        LONGEST_V1[:-2] + b"x\r\n",
        b"PROXY UNKNOWN" + b" " * 94,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\nGET",
        b"proxy ",
    ],
)
def test_what_is_no_preface_is_refused(line: bytes) -> None:
    with pytest.raises(PrefaceError):
        read_preface(line)


def test_a_stranger_is_refused_at_the_first_byte() -> None:
    with pytest.raises(PrefaceError):
        read_preface(b"G")


# -- version 2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "source", "destination"),
    [
        (v2(), SOURCE, DESTINATION),
        (v2(family=0x12), SOURCE, DESTINATION),  # HTTP/3 at the proxy
        (v2(V6, family=0x21), ("2001:db8::1", 1), ("::1", 2)),
        (v2(unix(b"/run/a", b"/run/b"), family=0x31), ("/run/a", None), ("/run/b", None)),
        (v2(unix(b"", b"x" * 108), family=0x31), None, ("x" * 108, None)),
        (v2(unix(b"\x00abstract", b"/run/b\x00rest"), family=0x31), ("@abstract", None), ("/run/b", None)),
        (v2(b"", command=0x20, family=0x00), None, None),
        (v2(V4, command=0x20), None, None),
        (v2(b"\xff" * 300, command=0x20, family=0xFF), None, None),  # LOCAL: all of it is ignored
        (v2(b"", family=0x00), None, None),
        (v2(b"\xff" * 30, family=0x00), None, None),
        (v2(b"", family=0x01), None, None),
        (v2(V4, family=0x10), None, None),
        (v2(V4 + tlv(0x04, b"") + tlv(0xE0, b"abc")), SOURCE, DESTINATION),
        (v2(V4 + tlv(0xE0, bytes(MOST_V2_BYTES - 31))), SOURCE, DESTINATION),
    ],
)
def test_a_binary_preface(data: bytes, source: object, destination: object) -> None:
    assert read_preface(data + b"GET") == (len(data), source, destination, False, None)


@pytest.mark.parametrize(
    "data",
    [
        v2(command=0x11),
        v2(command=0x22),
        v2(command=0x2F),
        v2(family=0x41),
        v2(family=0x13),
        v2(V4[:-1]),
        v2(V4, family=0x21),
        v2(V4, family=0x31),
        v2(V4 + b"\x04"),
        v2(V4 + b"\x04\x00"),
        v2(V4 + b"\x04\x00\x01"),
        v2(V4 + tlv(0x04, b"a") + b"\x04\xff\xff"),
        v2(V4 + tlv(0x20, b"\x01\x00\x00\x00")),
        v2(V4 + tlv(0x20, b"\x01\x00\x00\x00\x00" + b"\x21\x00\x09TLS")),
        v2(V4 + tlv(0x03, bytes(3))),
        v2(V4 + tlv(0x03, b"\x01\x02\x03\x04")),
        v2(V4, length=MOST_V2_BYTES - 15),
        v2(V4, length=0xFFFF),
    ],
)
def test_a_binary_preface_that_is_refused(data: bytes) -> None:
    with pytest.raises(PrefaceError):
        read_preface(data)


def test_whether_the_client_came_by_tls() -> None:
    ssl = b"\x00\x00\x00\x00" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example")
    with_tls = read_preface(v2(V4 + tlv(0x01, b"h2") + tlv(0x20, b"\x01" + ssl)))
    assert with_tls is not None
    assert with_tls.is_tls
    assert with_tls.alpn == b"h2"
    without = read_preface(v2(V4 + tlv(0x20, b"\x00" + ssl)))
    assert without is not None
    assert not without.is_tls


def test_the_checksum() -> None:
    """The value of RFC 3720, appendix B.4; and one wrong bit anywhere is found."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    good = with_checksum(V4 + tlv(0xE0, b"abc"))
    assert read_preface(good) == (len(good), SOURCE, DESTINATION, False, None)
    for place in (16, 24, 31, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        assert verdict(bytes(bad)) == "refused"


# -- in pieces -----------------------------------------------------------------------------------------


@st.composite
def prefaces(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        family = draw(st.sampled_from((4, 6)))
        hosts = [str(draw(st.ip_addresses(v=family))) for _ in range(2)]
        ports = [str(draw(st.integers(0, 65535))) for _ in range(2)]
        return f"PROXY TCP{family} {' '.join(hosts + ports)}\r\n".encode()
    tlvs = b"".join(tlv(*pair) for pair in draw(pairs))
    return draw(st.sampled_from((v2(V4 + tlvs), v2(V6 + tlvs, family=0x21), with_checksum(V4 + tlvs))))


pairs: st.SearchStrategy[Sequence[tuple[int, bytes]]] = st.lists(
    st.tuples(st.integers(0xE0, 0xFF), st.binary(max_size=20)), max_size=4
)


@given(prefaces(), st.binary(max_size=10))
def test_a_preface_may_come_byte_by_byte(preface: bytes, rest: bytes) -> None:
    """It is "not yet" until its last byte is there, and from then on the same, whatever follows."""
    whole = read_preface(preface)
    assert whole is not None
    assert whole.size_bytes == len(preface)
    assert [read_preface(preface[:count]) for count in range(len(preface))] == [None] * len(preface)
    assert read_preface(preface + rest) == whole


@given(prefaces(), st.data())
def test_a_spoilt_preface_is_refused_or_read_alike_in_pieces(preface: bytes, data: st.DataObject) -> None:
    """However it is cut: first "not yet", then one verdict for good; never an exception of another kind."""
    spoilt = bytearray(preface)
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    verdicts = [verdict(bytes(spoilt[:count])) for count in range(len(spoilt) + 1)]
    final = next((each for each in verdicts if each is not None), None)
    since = verdicts.index(final)
    assert all(each is None for each in verdicts[:since])
    assert all(each == final for each in verdicts[since:])


@given(st.binary(max_size=300), st.sampled_from((b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11")))
def test_garbage_never_raises_anything_else(garbage: bytes, start: bytes) -> None:
    result = verdict(start + garbage)
    assert result is None or result == "refused" or result[0] <= len(start + garbage)
