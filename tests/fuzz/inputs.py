"""What an input of the fuzzer means, where it starts from, and the words that streams are made of.

An input is what is served (one byte, with flags in it), how it is fed (a byte of flags, see `planned`), a count of cuts, the
cuts, each as a fraction of 256, and then what is fed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fuzz.conversation import Course
from tests.fuzz.trial import WEBSOCKET, Trial
from tests.wire.strategies import BODIES, HEADERS, TARGETS, UPGRADE, frame, request

WORDS: Final = (
    *(
        b"GET POST HEAD OPTIONS PUT BREW CONNECT PRI HTTP/1.1 HTTP/1.0 HTTP/2.0 :// http://a/ * % %2F # ? \\".split()
    ),
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b": ",
    b" :",
    b"\t",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"X-Forwarded-For: ",
    b"X-Forwarded-Proto: https",
    b"Forwarded: for=",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b";a=b",
    b"\x81\x80",
    b"\x88\x82",
    b"\x89\x80",
    b"\x00\x80",
    b"\xc1\x80",
    b"\xfe",
    b"\xff",
)


def planned(data: bytes) -> Trial | None:
    """What is to be done for an input; None if it is too short to say."""
    if len(data) < 3:
        return None
    served, flags, count = data[0] & 3, data[1], data[2] & 15
    cuts, fed = data[3 : 3 + count], data[3 + count :]
    at = sorted({len(fed) * cut >> 8 for cut in cuts} - {0})
    if data[0] & 8:  # each head by itself, as clients send that wait for the answer
        at = sorted({each.end() for each in re.finditer(rb"\r\n\r\n", fed)} - {len(fed)})
    pieces = tuple(fed[i:j] for i, j in zip([0, *at], [*at, len(fed)], strict=True) if i < j)
    return Trial(
        served,
        Course(
            pieces,
            turns=flags & 3,
            ends=bool(flags & 4),
            is_late=bool(flags & 8),
            is_slow=bool(flags & 16),
            drains=bool(flags & 32) and served != WEBSOCKET,
        ),
        has_small_limits=bool(flags & 64),
        deflates=bool(flags & 128),
        is_logged=bool(data[0] & 4) and served != WEBSOCKET,
        has_neighbours=bool(data[0] & 16) and served != WEBSOCKET,
    )


def write_words(path: Path) -> None:
    """A dictionary for libFuzzer."""
    lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in WORDS]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def streams() -> Iterator[bytes]:
    """What clients send, and what they should not."""
    plain = request()
    yield plain
    yield plain * 3
    for target in TARGETS:
        yield request(target=target) + plain
    for header in HEADERS:
        yield request(headers=(header,)) + plain
    for framing, body in BODIES:
        yield request(b"POST", headers=(framing,)) + body + plain
        yield request(b"POST", b"/ra", headers=(framing, b"Expect: 100-continue")) + body + plain
    yield request(version=b"1.0") + plain
    yield request(version=b"1.0", headers=(b"Connection: keep-alive",)) + plain
    yield request(b"HEAD", b"/pp") + plain


def frames() -> Iterator[bytes]:
    """What follows a handshake."""
    yield frame(0x81, b"text") + frame(0x82, bytes(200)) + frame(0x88, b"\x03\xe8bye")
    yield frame(0x01, b"te") + frame(0x89, b"ping") + frame(0x80, "ü".encode()) + frame(0x8A, b"")
    yield frame(0x81, b"\xff")
    yield frame(0xC1, b"\xca\x49\xad\x28\x01\x00") + frame(0x88, b"")
    yield frame(0x82, bytes(70_000))[:200]


def seeds() -> Iterator[bytes]:
    """Each of them, in each way."""
    for stream in streams():
        for target in range(3):
            yield bytes((target, 0, 0)) + stream
        yield bytes((0, 3, 2, 80, 160)) + stream
        yield bytes((5, 0, 0)) + stream
        for target in range(3):
            yield bytes((24 + target, 2, 0)) + stream * 2
        yield bytes((28, 7, 0)) + stream + UPGRADE
        yield bytes((1, 0x3C, 1, 128)) + stream
    for stream in frames():
        yield bytes((3, 0, 0)) + stream
        yield bytes((3, 5, 1, 30)) + stream
        yield bytes((3, 128, 1, 30)) + stream
        yield bytes((0, 0, 0)) + UPGRADE + stream
