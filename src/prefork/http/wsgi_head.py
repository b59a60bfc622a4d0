"""The head of a WSGI answer: what `start_response` was given, checked, and as bytes (PEP 3333).

Rules:

* Status and headers are native strings that latin-1 can say, without control characters.
* What is between this server and the next hop is not the application's: hop-by-hop headers are refused.
* The reason phrase is sent as the application wrote it.

Not here: everything that holds for a head of either interface (`response`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from prefork.http.response import STATUS_LINES, Composer, Head, ResponseError

_MOST_HEADS: Final = 256
"""Heads remembered a worker, as in `response`."""

_STATUS: Final = re.compile(r"[2-9][0-9]{2}(?: [^\x00-\x1f\x7f]*)?")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)
"""RFC 2616 §13.5.1, to which PEP 3333 refers, with its misprint."""


def compose(composer: Composer, status: Any, headers: tuple[Any, ...]) -> Head:
    """The head for a `start_response`. Raises ResponseError. Any thread."""
    if not isinstance(status, str) or _STATUS.fullmatch(status) is None:
        raise ResponseError(
            f"the status must be a string like '200 OK', of three digits and a phrase, not {status!r}"
        )
    code = int(status[:3])
    pairs = []
    for pair in headers:
        try:
            name, value = pair
        except (TypeError, ValueError) as error:
            raise ResponseError(f"a response header must be a pair of strings, not {pair!r}") from error
        if not isinstance(name, str) or not isinstance(value, str):
            raise ResponseError(f"a response header must be a pair of strings, not {pair!r}")
        if name.lower() in _HOP_BY_HOP:
            raise ResponseError(f"{name!r} is a hop-by-hop header: the server's, not the application's")
        if _CONTROL.search(value) is not None:
            raise ResponseError(f"the response header {name!r} holds a control character")
        pairs.append((_encoded(name), _encoded(value)))
    head = composer.head(code, pairs)
    line = b"HTTP/1.1 " + _encoded(status if len(status) > 3 else status + " ")
    usual = STATUS_LINES.get(code, b"HTTP/1.1 %d " % code)
    return head if line == usual else (line + head[0][len(usual) :], *head[1:])


remembered = lru_cache(_MOST_HEADS)(compose)
"""As `compose`, which is a function of its arguments, and few differ. Raises TypeError for what cannot be looked up."""


def _encoded(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ResponseError(f"{text!r} of a response's head is not latin-1 (PEP 3333)") from error
