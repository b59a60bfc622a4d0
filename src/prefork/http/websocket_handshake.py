"""The opening handshake of a WebSocket (RFC 6455 §4.2): the request checked, the scope, the answer.

Not here: whose turn it is to answer (`websocket`), what compression is agreed on (`websocket_deflate`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from prefork.http.response import STATUS_LINES, Composer, ResponseError
from prefork.http.websocket_deflate import Agreement, agree

SPEC_VERSION: Final = "2.4"
"""Of the ASGI WebSocket protocol: with it came the OSError of a `send` to nobody."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""

_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
)
_ASK_VERSION: Final = b"\r\nupgrade: websocket\r\nsec-websocket-version: 13"
"""RFC 6455 §4.4, RFC 9110 §15.5.22."""

_RESERVED: Final = (b"upgrade", b"content-length")

Headers = Iterable[tuple[bytes, bytes]]


class HandshakeError(Exception):
    """The request is answered with `status` and the header `lines`, each with its line break in front."""

    def __init__(self, status: int, lines: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that may be accepted."""

    accept: bytes
    """The value of `sec-websocket-accept`."""
    subprotocols: list[str]
    agreement: Agreement | None

    def answer(self, message: MutableMapping[str, Any], composer: Composer) -> bytes:
        """The head for an ASGI `websocket.accept`. Raises ResponseError."""
        parts = [_SWITCHING, self.accept]
        if self.agreement is not None:
            parts += b"\r\nsec-websocket-extensions: ", self.agreement.answer
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            if (
                subprotocol not in self.subprotocols
            ):  # a client gives up over one that it did not ask for (§4.1)
                raise ResponseError(
                    f"subprotocol {subprotocol!r} is none of those offered: {self.subprotocols}"
                )
            parts += b"\r\nsec-websocket-protocol: ", subprotocol.encode("latin-1")
        headers = [(bytes(name).lower(), value) for name, value in message.get("headers") or ()]
        for name, _ in headers:
            if name in _RESERVED or name.startswith(b"sec-websocket-"):
                raise ResponseError(f"websocket.accept cannot set the header {name!r}; see `subprotocol`")
        if headers:
            parts.append(composer.head(200, headers)[0].removeprefix(STATUS_LINES[200]))
        parts.append(b"\r\n\r\n")
        return b"".join(parts)


def check(scope: MutableMapping[str, Any], *, compresses: bool) -> Handshake:
    """Check a request to upgrade. Raises HandshakeError: 426 for another version (RFC 6455 §4.4), else 400."""
    headers: Headers = scope["headers"]
    versions = _values(headers, b"sec-websocket-version")
    if versions and versions != [b"13"]:
        raise HandshakeError(426, _ASK_VERSION)
    keys = _values(headers, b"sec-websocket-key")
    if (
        not versions
        or len(keys) != 1
        or not _is_key(keys[0])
        or scope.get("method") != "GET"
        or scope.get("http_version") != "1.1"
        or b"websocket" not in _tokens(headers, b"upgrade")
        or b"upgrade" not in _tokens(headers, b"connection")
    ):
        raise HandshakeError(400)
    subprotocols = b",".join(_values(headers, b"sec-websocket-protocol")).decode("latin-1").split(",")
    return Handshake(
        base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()),
        [stripped for each in subprotocols if (stripped := each.strip())],
        agree(_values(headers, b"sec-websocket-extensions")) if compresses else None,
    )


def websocket_scope(scope: MutableMapping[str, Any], handshake: Handshake) -> dict[str, Any]:
    """The scope for an application, from the one of the HTTP request."""
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    if "tls" in scope.get("extensions", ()):
        extensions["tls"] = scope["extensions"]["tls"]
    changed = {
        **scope,
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "scheme": "wss" if scope["scheme"] == "https" else "ws",
        "subprotocols": handshake.subprotocols,
        "extensions": extensions,
    }
    del changed["method"]
    return changed


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _tokens(headers: Headers, name: bytes) -> set[bytes]:
    return {token.strip().lower() for token in b",".join(_values(headers, name)).split(b",")}


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
