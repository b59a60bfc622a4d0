"""Requests as clients make them, and as they should not: for Hypothesis, and as seeds for the fuzzer."""

from __future__ import annotations

import struct
from typing import Final

from hypothesis import strategies as st

METHODS: Final = (
    b"GET",
    b"POST",
    b"HEAD",
    b"OPTIONS",
    b"PUT",
    b"DELETE",
    b"PROPFIND",
    b"BREW",
    b"get",
    b"PRI",
)
TARGETS: Final = (
    b"/",
    b"/a/b?c=d&e",
    b"/%C3%A9%00%2F?%",
    b"//a",
    b"/?",
    b"?",
    b"*",
    b"http://b.example:8/p?q",
    b"HTTP://b",
    b"https://u@b/",
    b"b:80",
    b"/a#b",
    b"/\xc3\xa9",
    b"",
    b"/a b",
    b'/[]{}|\\^`"<>',
    b"/pppa",
    b"/cpr",
    b"/wnm",
)
VERSIONS: Final = (b"1.1", b"1.1", b"1.1", b"1.0", b"2.0", b"1.2", b"0.9", b"1.10", b"")
HEADERS: Final = (
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: Keep-Alive",
    b"Connection: Upgrade",
    b"Upgrade: h2c",
    b"Upgrade: websocket",
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"content-length: 3 ",
    b"Content-Length: 03",
    b"Content-Length: 3, 3",
    b"Content-Length: -1",
    b"Content-Length:",
    b"Content-Length: 99999999999999999999",
    b"Content-Length : 3",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked ",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: ,chunked",
    b"Expect: 100-continue",
    b"Expect: 100-Continue",
    b"Expect: other",
    b"Host: b",
    b"Host:",
    b"Host: a b",
    b"TE: trailers",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-For: 127.0.0.1, 8.8.8.8:5, [::1]:6",
    b"X-Forwarded-Proto: https",
    b'Forwarded: for="[::1]:8";proto=https;host=x, for=127.0.0.1;by=_a',
    b'Forwarded: for="',
    b"X_Under: 1",
    b"Proxy: x",
    b"Cookie: a=b",
    b"X: \xff\x80",
    b"X:",
    b"X: \t ",
    b"X: a\x0bb",
    b"X\x00: b",
    b" X: fold",
    b"\tX: fold",
    b"no colon",
    b": no name",
    b"X: a\rb",
    b"X: a\nY: b",
    b"X" * 300 + b": b",
    b"X: " + b"b" * 300,
)
BODIES: Final = (
    (b"Content-Length: 3", b"abc"),
    (b"Content-Length: 3", b"ab"),
    (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"3;a=b\r\nabc\r\n1\r\nd\r\n0;c\r\nTrailer: x\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b'3;a="b;c"\r\nabc\r\n00\r\n\r\n'),
    (b"Transfer-Encoding: chunked", b"3 \r\nabc\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"3\nabc\n0\n\n"),
    (b"Transfer-Encoding: chunked", b"0x3\r\nabc\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"3\r\nabcd\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"3\r\nabc0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"A\r\n0123456789\r\n0\r\nHost: evil\r\nContent-Length: 4\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"fffffffffffffffff\r\n"),
    (b"Transfer-Encoding: chunked", b"0\r\nX: y\r\n Z: fold\r\n\r\n"),
)
UPGRADE: Final = (
    b"GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
UPGRADE_DEFLATE: Final = (
    UPGRADE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


def request(
    method: bytes = b"GET",
    target: bytes = b"/",
    *,
    version: bytes = b"1.1",
    headers: tuple[bytes, ...] = (),
    host: bytes = b"Host: a",
) -> bytes:
    """The head of a request, as it is told."""
    lines = [method + b" " + target + b" HTTP/" + version, *([host] if host else []), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frame(first: int, payload: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """A frame of a WebSocket client; `first` is its whole first byte."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 0x10000:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request: mostly good, at times anything."""
    framing, body = draw(st.sampled_from((*BODIES, *[(b"", b"")] * len(BODIES))))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2))
    if framing:
        headers.insert(draw(st.integers(0, len(headers))), framing)
    return (
        request(
            draw(st.sampled_from(METHODS)),
            draw(st.sampled_from(TARGETS)),
            version=draw(st.sampled_from(VERSIONS)),
            headers=tuple(headers),
            host=draw(st.sampled_from((b"Host: a", b"Host: a", b"Host: a", b""))),
        )
        + body
    )


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What comes on one connection: some requests, with bytes changed, put in or left out at times."""
    stream = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream)))
        junk = draw(st.sampled_from((b"", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b"0")))
        stream = stream[:at] + junk + stream[at + draw(st.integers(0, 2)) :]
    return stream


@st.composite
def frame_streams(draw: st.DrawFn) -> bytes:
    """What comes on one WebSocket: frames, mostly good, the end at times cut off."""
    payload = st.one_of(
        st.binary(max_size=8), st.text(max_size=4).map(str.encode), st.sampled_from([b"\x03\xe8", b"x" * 130])
    )
    first = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x83, 0x08])
    stream = b"".join(
        draw(st.lists(st.builds(frame, first, payload, st.binary(min_size=4, max_size=4)), max_size=5))
    )
    return stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> tuple[bytes, ...]:
    """A stream in pieces."""
    if len(stream) < 2:
        return (stream,) if stream else ()
    at = sorted(draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    return tuple(stream[i:j] for i, j in zip([0, *at], [*at, len(stream)], strict=True))
