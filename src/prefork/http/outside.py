"""What is outside, in our words: an address as ASGI wants it, a parser's complaint as a status, the end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, Final

import httptools

from prefork.http.exchange import logger

_H2_PREFACE: Final = "Pause on PRI/Upgrade"
_BAD_VERSION: Final = "Invalid HTTP version"
"""llhttp's reasons that are about the version."""


_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER (socket(7)): on, for no time."""

_OF_TCP: Final = (socket.AF_INET, socket.AF_INET6)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Have the close reset the connection, which otherwise ends as if all were said.

    A client that waits for the close as the end of its answer would take a part for the whole (RFC 9112 §8); and the
    kernel would go on offering the rest to one that takes nothing. Does nothing for what is no socket of TCP's.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0 and connection.family in _OF_TCP:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def plain_fd(transport: asyncio.BaseTransport) -> int:
    """The descriptor that bytes can be written to as they are; -1 if there is none, as over TLS."""
    if transport.get_extra_info("sslcontext") is not None:
        return -1
    connection = transport.get_extra_info("socket")
    return -1 if connection is None else int(connection.fileno())


def end_writing(transport: asyncio.WriteTransport) -> None:
    """Half-close. Never raises: of a client that has reset meanwhile the transport tells at its next read."""
    with contextlib.suppress(OSError):  # asyncio's own transport calls shutdown(2) here and now: ENOTCONN
        transport.write_eof()


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
