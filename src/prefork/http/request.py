"""What a request head means, beyond what llhttp has checked: target, host, names, coded bodies.

llhttp refuses by itself (measured on llhttp 9 in httptools 0.9, all leniencies off): both Content-Length and
Transfer-Encoding, repeated, malformed and overflowing lengths, obs-fold, bare CR and LF, NUL and control characters,
space before a colon, names that are no tokens, bad chunk sizes and extensions, bytes above 127 in a target. It lets pass
what is refused here: codings before `chunked`, Transfer-Encoding in HTTP/1.0, versions 0.9 and 2.0, targets that do not
suit their method, fragments, and hosts that are missing, doubled or malformed.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

_METHODS: Final = (
    b"GET HEAD POST PUT DELETE OPTIONS PATCH TRACE "  # RFC 9110, RFC 5789
    b"COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK ACL BIND REBIND UNBIND REPORT "  # WebDAV
    b"MKACTIVITY CHECKOUT MERGE MKCALENDAR LINK UNLINK PURGE"
)
METHODS: Final = {name: name.decode("ascii") for name in _METHODS.split()}
"""What is served; llhttp knows no others. CONNECT is for proxies, the rest of its list for RTSP and UPnP: 501."""

HOST: Final = b"host"

_ORDINARY_NAMES: Final = (
    b"accept accept-charset accept-encoding accept-language authorization cache-control content-encoding "
    b"content-language content-type cookie date dnt etag from if-match if-modified-since if-none-match "
    b"if-range if-unmodified-since max-forwards origin pragma priority proxy-authorization range referer "
    b"sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user "
    b"te traceparent tracestate trailer upgrade-insecure-requests user-agent via x-correlation-id "
    b"x-csrf-token x-real-ip x-request-id "
    b"x-requested-with"
).split()
FORWARDING: Final = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto")
)
_ACTED_UPON: Final = FORWARDING | frozenset(
    (b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade")
)
"""Those that the server itself acts upon; never remembered as ordinary."""

_MOST_NAMES: Final = 1024
_LONGEST_NAME_BYTES: Final = 64
"""Names remembered a worker: common spellings beforehand, others as they come, no more than this."""

_HOST_VALUE: Final = re.compile(rb"(?:(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~%!$&'()*+,;=]+)(?::[0-9]*)?)?")
"""uri-host [":" port] of RFC 3986 §3.2. May be empty (RFC 9110 §7.2), but no port without a host (§4.2.1)."""

SLASH: Final = ord("/")
_HASH: Final = ord("#")
"""A number: for `in`, bytes would be tried as a number first, by an exception, at five times the cost."""

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


class RefusedError(Exception):
    """The request is answered with `status` by the server itself, and the connection closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


Target = tuple[str, bytes, bytes]
"""A request target, taken apart: path, raw path, query."""


class NameCache(dict[bytes, bytes]):
    """From a header name as it came to its lower case; those that the server acts upon are never in it."""

    def __init__(self) -> None:
        super().__init__()
        self[b"Host"] = self[HOST] = HOST
        for name in _ORDINARY_NAMES:
            self[name] = name
            self[name.title()] = name

    def lower(self, name: bytes) -> bytes:
        """The lower case of a name that is not in the cache; remembered if there is room."""
        lowered = name.lower()
        known = self.get(lowered, lowered)
        if len(self) < _MOST_NAMES and len(name) <= _LONGEST_NAME_BYTES and known not in _ACTED_UPON:
            self[name] = known
        return known


def is_host(value: bytes) -> bool:
    """Whether this may stand in a Host header."""
    return _HOST_VALUE.fullmatch(value) is not None


def parse_target(raw: bytes) -> Target:
    """Take a target in origin-form apart (RFC 9112 §3.2.1). Raises RefusedError (400) for a fragment."""
    if _HASH in raw:
        raise RefusedError(400)
    raw_path, _, query = raw.partition(b"?")
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, query


def parse_unusual_target(raw: bytes, method: str) -> tuple[Target, bytes | None]:
    """A target in another form, and the host that replaces the Host header (RFC 9112 §3.2.2, §3.2.4).

    Raises RefusedError (400) if it has no form that `method` may have.
    """
    if raw == b"*" and method == "OPTIONS":
        return ("*", b"*", b""), None
    absolute = _ABSOLUTE.fullmatch(raw)
    if absolute is None or not absolute[1] or not is_host(absolute[1]):
        raise RefusedError(400)
    rest = absolute[2]
    return parse_target(rest if rest[:1] == b"/" else b"/" + rest), absolute[1]
