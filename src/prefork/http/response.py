"""The head of an answer: from an ASGI message to bytes, checked so that no value can end a line of its own.

Rules:

* Names are tokens (RFC 9110 §5.6.2), sent in lower case. No CR, LF or NUL gets into a head.
* Framing is the server's: `transfer-encoding` is dropped (ASGI), `connection` is heard for `close` only,
  `content-length` must be one plain number.
* `date` is added unless the application gave one; nothing else is.

Each line carries its line break in front: the head is one join, with one scan for stray line breaks instead of
one a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

HAS_DATE: Final = 1
WANTS_CLOSE: Final = 2
HAS_NO_BODY: Final = 4

_MOST_NAMES: Final = 512
"""Names remembered a worker: applications use dozens; one that makes names up must not fill the memory."""

_MOST_HEADS: Final = 256
"""Heads remembered a worker, the latest used: more than an API has kinds of answers of one size."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_LENGTH: Final = b"\r\ncontent-length: "

STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
    if status.value >= 200
}

_BODILESS_LINES: Final = (STATUS_LINES[204], STATUS_LINES[304])

_NO_TRAILERS: Final = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type expect host "
    b"set-cookie te trailer transfer-encoding".split()
)
"""What frames, routes or guards a message must stand in its head (RFC 9110 §6.5.1)."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ResponseError(RuntimeError):
    """The application has sent what ASGI or HTTP does not allow. It is answered with 500, or closes the connection."""


Head = tuple[bytes, int | None, int]
"""The lines of a head, without date, framing and the empty line; the length given, if any; flags."""


class Composer:
    """Makes heads; one for each worker, for what it remembers of names and of whole heads."""

    def __init__(self) -> None:
        self._prefixes: dict[bytes, bytes] = {b"content-length": _LENGTH}
        # A head is a function of what it is made of, and few differ: 0.2 µs in place of 2.
        self.remembered = lru_cache(_MOST_HEADS)(self._compose)
        """As `head`, of pairs in tuples only. Raises TypeError for others."""

    def head(self, status: Any, headers: Iterable[Iterable[Any]]) -> Head:
        """The head for an ASGI `http.response.start`. Raises ResponseError."""
        headers = tuple(headers)
        try:
            return self.remembered(status, headers)
        except TypeError:  # pairs that are lists cannot be looked up
            return self._compose(status, headers)

    def _compose(self, status: Any, headers: tuple[Iterable[Any], ...]) -> Head:
        line = STATUS_LINES.get(status) or _status_line(status)
        parts = [line]
        length: int | None = None
        flags = HAS_NO_BODY if line in _BODILESS_LINES else 0
        prefixes = self._prefixes
        try:
            for name, value in headers:
                prefix = prefixes.get(name)
                if prefix is None:
                    lowered = bytes(name).lower()
                    flags |= _flags(lowered, value)
                    if lowered in (b"connection", b"transfer-encoding"):
                        continue
                    prefix = self._prefix(lowered)
                if prefix is _LENGTH:
                    if status == 204:  # must not have one (RFC 9110 §8.6)
                        continue
                    if length is not None or not value.isdigit():
                        raise ResponseError(f"content-length must be one plain number, not {value!r}")
                    length = int(value)
                parts.append(prefix)
                parts.append(value)
            lines = b"".join(parts)
        except (TypeError, ValueError, AttributeError) as error:
            raise ResponseError(f"headers must be pairs of byte strings: {error}") from error
        breaks = len(parts) >> 1
        if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks or b"\0" in lines:
            raise ResponseError("a response header holds CR, LF or NUL")
        return lines, length, flags

    def _prefix(self, lowered: bytes) -> bytes:
        prefix = self._prefixes.get(lowered)
        if prefix is None:
            if _TOKEN.fullmatch(lowered) is None:
                raise ResponseError(f"{lowered!r} is no header name")
            prefix = b"\r\n" + lowered + b": "
            if len(self._prefixes) < _MOST_NAMES and lowered != b"date":
                self._prefixes[lowered] = prefix
        return prefix


def _flags(name: bytes, value: Any) -> int:
    if name == b"date":
        return HAS_DATE
    if name == b"connection" and b"close" in [token.strip() for token in bytes(value).lower().split(b",")]:
        return WANTS_CLOSE
    return 0


def _status_line(status: Any) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ResponseError(f"{status!r} is no status of a final answer")
    return b"HTTP/1.1 %d " % status


def early_hint(links: Iterable[bytes]) -> bytes:
    """A whole 103 with a `link` header for each of `links` (RFC 8297). Raises ResponseError."""
    try:
        fields = [b"\r\nlink: " + link for link in links]
    except TypeError as error:
        raise ResponseError(f"the links of an early hint must be byte strings: {error}") from error
    lines = b"".join(fields)
    if lines.count(b"\n") != len(fields) or lines.count(b"\r") != len(fields) or b"\0" in lines:
        raise ResponseError("a link of an early hint holds CR, LF or NUL")
    return b"HTTP/1.1 103 Early Hints" + lines + b"\r\n\r\n"


def trailer_section(headers: Iterable[Iterable[Any]]) -> bytes:
    """Trailer fields, a line each (RFC 9112 §7.1.2). Raises ResponseError."""
    lines = []
    for name, value in headers:
        lowered = bytes(name).lower()
        if _TOKEN.fullmatch(lowered) is None or lowered in _NO_TRAILERS:
            raise ResponseError(f"{lowered!r} cannot be a trailer")
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ResponseError("a trailer holds CR, LF or NUL")
        lines.append(b"%b: %b\r\n" % (lowered, value))
    return b"".join(lines)


def refusal(status: int, date_line: bytes, *, is_bodiless: bool = False) -> bytes:
    """A whole answer of the server's own, after which it closes. `is_bodiless`: to a HEAD (RFC 9110 §9.3.2)."""
    line = STATUS_LINES[status]
    text = _refusal_text(status)
    head = b"\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return line + date_line + head % len(text) + (b"" if is_bodiless else text)


def refusal_bytes(status: int) -> int:
    """How long the body of a `refusal` is."""
    return len(_refusal_text(status))


def _refusal_text(status: int) -> bytes:
    return STATUS_LINES[status][len(b"HTTP/1.1 ") :] + b"\n"
