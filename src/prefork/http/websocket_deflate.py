"""permessage-deflate (RFC 7692): what is agreed on, and the two streams.

Rules:

* Both windows are 4 KiB where the client lets us choose: a stream each way costs 44 KiB, in place of 300, and up to 9 %
  more bytes. A stream is made when the first compressed message needs it: who never sends one pays nothing.
* Never more comes out of a message than it may have, whatever goes in: `inflate` is told the bound.
* Short messages go as they are: what they would save is less than the headers of their packet.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LEAST_BYTES: Final = 128
"""Below this a message is not compressed: 4 µs for less than one TCP/IP header."""

_WINDOW_BITS: Final = 12
_MEMORY_LEVEL: Final = 5
"""As websockets has them: (1 << 12 + 2) + (1 << 5 + 9) bytes to compress, 1 << 12 and 7 KiB to decompress."""

_LEVEL: Final = 2
"""Messages of 1 KiB of JSON: 12 µs and 15.5 % of their size; zlib's usual 6 takes 16 µs for 13.3 %, and at 64 KiB
345 µs against 611."""

_TAIL: Final = b"\x00\x00\xff\xff"
"""Ends every message, and is not sent (RFC 7692 §7.2.1)."""

_ENDS: Final = (_TAIL, b"\x00" + _TAIL)
"""What may follow a final block: RFC 7692 §7.2.3.4."""

_NAME: Final = "permessage-deflate"
_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_BITS: Final = {str(bits): bits for bits in range(8, 16)}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How both sides compress. `bits` are the sizes of windows, as powers of two."""

    server_bits: int
    client_bits: int
    server_forgets: bool
    client_forgets: bool
    is_client_bits_told: bool

    @property
    def answer(self) -> bytes:
        """The value of `sec-websocket-extensions`."""
        parts = [_NAME]
        if self.server_forgets:
            parts.append(_FLAGS[0])
        if self.client_forgets:
            parts.append(_FLAGS[1])
        parts.append(f"server_max_window_bits={self.server_bits}")
        if self.is_client_bits_told:
            parts.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(parts).encode("ascii")


def agree(offers: Iterable[bytes]) -> Agreement | None:
    """The first of the client's offers (values of `sec-websocket-extensions`) that can be kept."""
    for offer in b",".join(offers).decode("latin-1").split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == _NAME:
            agreement = _accept(parameters)
            if agreement is not None:
                return agreement
    return None


def _accept(parameters: list[str]) -> Agreement | None:
    """RFC 7692 §7.1: an offer with a parameter that is unknown, doubled or out of range is declined as a whole."""
    said: dict[str, str | None] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        name = name.strip()
        if name in said:
            return None
        said[name] = value.strip().strip('"') if equals else None
    is_client_bits_told = "client_max_window_bits" in said
    flags = [name for name in _FLAGS if name in said]
    if any(said.pop(name) is not None for name in flags):
        return None
    server_bits = said.pop("server_max_window_bits", "15")
    client_bits = said.pop("client_max_window_bits", None) or "15"  # a client may leave its value to us
    if said or server_bits not in _BITS or client_bits not in _BITS:
        return None
    server = min(_BITS[server_bits], _WINDOW_BITS)
    if server == 8:  # zlib cannot (github.com/madler/zlib, issue 171)
        return None
    client = min(_BITS[client_bits], _WINDOW_BITS) if is_client_bits_told else 15
    return Agreement(server, client, _FLAGS[0] in flags, _FLAGS[1] in flags, is_client_bits_told)


class Deflater:
    """Compresses what is sent."""

    __slots__ = ("_bits", "_forgets", "_stream")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.server_bits
        self._forgets = agreement.server_forgets
        self._stream: zlib._Compress | None = None

    def deflate(self, payload: bytes) -> bytes:
        """One whole message."""
        stream = self._stream
        if stream is None:
            stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._bits, _MEMORY_LEVEL)
            self._stream = None if self._forgets else stream
        compressed = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        return compressed[: -len(_TAIL)]


class Inflater:
    """Decompresses what is read."""

    __slots__ = ("_bits", "_forgets", "_stream")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.client_bits
        self._forgets = agreement.client_forgets
        self._stream: zlib._Decompress | None = None

    def inflate(self, piece: bytes, limit_bytes: int, *, is_last: bool) -> bytes | None:
        """One fragment of a message; no more than `limit_bytes` + 1 of it. None if it is no deflated data."""
        stream = self._stream
        if stream is None:
            stream = self._stream = zlib.decompressobj(-self._bits)
        try:
            inflated = stream.decompress(piece + _TAIL if is_last else piece, limit_bytes + 1)
        except zlib.error:
            return None
        if stream.eof and (not is_last or stream.unused_data not in _ENDS):
            return None
        if is_last and (self._forgets or stream.eof):
            self._stream = None
        return inflated
