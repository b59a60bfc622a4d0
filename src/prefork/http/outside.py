"""What comes from outside, in our words: an address as ASGI wants it, a parser's complaint as a status."""

from __future__ import annotations

from typing import Any, Final

import httptools

from prefork.http.exchange import logger

_H2_PREFACE: Final = "Pause on PRI/Upgrade"
_BAD_VERSION: Final = "Invalid HTTP version"
"""llhttp's reasons that are about the version."""


def address_of(address: Any, *, is_ours: bool = False) -> tuple[str, int | None] | None:
    """An end of a connection as ASGI wants it: host and port; for a Unix socket of ours its path."""
    if isinstance(address, tuple):
        return (address[0], address[1])
    if is_ours and isinstance(address, str) and address:
        return (address, None)
    return None


def status_for(error: Exception) -> int:
    """The status that answers what the parser could not read (RFC 9110 §15.5, 15.6)."""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return 501
    if isinstance(error, httptools.HttpParserError) and not isinstance(
        error, httptools.HttpParserCallbackError
    ):
        return 505 if str(error) in (_H2_PREFACE, _BAD_VERSION) else 400
    logger.error("a request could not be read: a defect of prefork", exc_info=error)
    return 500
