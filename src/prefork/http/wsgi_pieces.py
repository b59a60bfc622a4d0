"""The pieces of a WSGI answer's body: what they must be, and which are one."""

from __future__ import annotations

from typing import Final

from prefork.http.response import ResponseError

_JOINED_BYTES: Final = 1024 * 1024
"""The pieces of a list are joined up to this; above it the copy is dearer than a write for each."""


def joined(body: list[bytes] | tuple[bytes, ...]) -> list[bytes] | tuple[bytes, ...]:
    """All pieces as one, if that is small; nothing is delayed by that, since all are there. Raises ResponseError."""
    try:
        if len(body) > 1 and sum(map(len, body)) <= _JOINED_BYTES:
            return (b"".join(body),)
    except TypeError as error:
        raise ResponseError(f"the pieces of the body must be bytes: {error}") from error
    return body


def only(body: list[bytes] | tuple[bytes, ...]) -> bytes:
    """The one piece that there is, or none. Raises ResponseError."""
    piece = body[0] if body else b""
    check(piece)
    return piece


def check(piece: object) -> None:
    """Raise ResponseError for what is no piece of a body."""
    if not isinstance(piece, bytes):
        raise ResponseError(f"a piece of the body must be bytes, not {type(piece).__qualname__}")
