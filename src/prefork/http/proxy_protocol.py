"""The preface of HAProxy's PROXY protocol, versions 1 and 2: who is at the other end of a proxied connection.

Specification: `doc/proxy-protocol.txt` in HAProxy's sources; the sections below are its.

Rules:

* Sans-IO: `read_preface` looks at what has come so far. Whatever the pieces, it says "not yet" or what it would say of
  the whole; what can be no preface is refused at the first byte that shows it.
* Where the protocol is on, each connection begins with a preface (§2: "MUST not try to guess"), before TLS if there is
  any; bytes behind it (`Preface.size_bytes`) belong to the connection.
* Only connections of trusted proxies may be read so: the preface is taken at its word.
* LOCAL, UNKNOWN and UNSPEC mean the connection's own addresses: `source` and `destination` are None.

Not here: the deadline for the preface, and what is done with a connection that has none.
"""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_V1_BYTES: Final = 107
"""The longest line with its CR LF (§2.1)."""

MOST_V2_BYTES: Final = 4096
"""Header, addresses and TLVs. Addresses take 232 at most; a proxy that sends the client's certificate (§2.2.6) sends 1
to 2 KiB of it. Precedent: nginx takes 4096 bytes."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD_BYTES: Final = 16

_PORT: Final = r"(0|[1-9][0-9]{0,4})"
_TCP: Final = re.compile(rf"TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {_PORT} {_PORT}")
_UNKNOWN: Final = "UNKNOWN"

_LOCAL: Final = 0x20
_PROXY: Final = 0x21
"""Version 2 with its commands."""

_FAMILIES: Final = 0x3
_TRANSPORTS: Final = 0x2
"""The highest that are assigned: AF_UNIX, DGRAM."""

_INET: Final = {0x1: (socket.AF_INET, 4), 0x2: (socket.AF_INET6, 16)}
_UNIX_BYTES: Final = 108

_ALPN: Final = 0x01
_CRC32C: Final = 0x03
_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01
_SSL_FIXED_BYTES: Final = 5

Address = tuple[str, int | None]
"""Host and port; for a Unix socket its path ("@name" if abstract) and None."""


class PrefaceError(Exception):
    """What came is no valid preface. The connection is to be aborted; the message is for the log."""


class Preface(NamedTuple):
    """What a proxy says of a connection. `size_bytes` of what came were the preface."""

    size_bytes: int
    source: Address | None = None
    """The client; None for the connection's own peer, and for a Unix socket without a name."""
    destination: Address | None = None
    is_tls: bool = False
    """The client spoke TLS, and the proxy took it off."""
    alpn: bytes | None = None
    """The protocol that client and proxy have agreed on, as "h2" or "http/1.1"."""


def read_preface(data: bytes) -> Preface | None:
    """Read the preface that `data`, all that came so far, begins with; None if more is needed. Any process.

    Raises PrefaceError. No more than 4096 bytes are ever needed.
    """
    if data[:6] == _V1:
        return _read_v1(data)
    if data[:12] == _V2:
        return _read_v2(data)
    if _V1.startswith(data[:6]) or _V2.startswith(data[:12]):
        return None
    raise PrefaceError("it begins with neither form of the PROXY protocol")


# -- version 1: a line of text (§2.1) ------------------------------------------------------------------


def _read_v1(data: bytes) -> Preface | None:
    end = data.find(b"\n", 0, MOST_V1_BYTES)
    if end < 0:
        if len(data) >= MOST_V1_BYTES:
            raise PrefaceError(f"no line ends within {MOST_V1_BYTES} bytes")
        return None
    line = data[len(_V1) : end + 1].decode("latin-1")
    if line.find("\r") != len(line) - 2:
        raise PrefaceError("CR and LF may only end the line, together")
    line = line[:-2]
    if line == _UNKNOWN or line.startswith(_UNKNOWN + " "):
        return Preface(end + 1)
    match = _TCP.fullmatch(line)
    if match is None:
        raise PrefaceError("the line is malformed")
    family = socket.AF_INET if match[1] == "4" else socket.AF_INET6
    return Preface(
        end + 1, _text_address(family, match[2], match[4]), _text_address(family, match[3], match[5])
    )


def _text_address(family: socket.AddressFamily, host: str, port: str) -> Address:
    try:
        packed = socket.inet_pton(family, host)
    except OSError as error:
        raise PrefaceError("an address does not suit its family") from error
    if int(port) > 0xFFFF:
        raise PrefaceError("a port is out of range")
    return socket.inet_ntop(family, packed), int(port)


# -- version 2: binary (§2.2) --------------------------------------------------------------------------


def _read_v2(data: bytes) -> Preface | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise PrefaceError(f"version and command are {data[12]:#04x}, not 0x20 or 0x21")
    if len(data) < _V2_HEAD_BYTES:
        return None
    size_bytes = _V2_HEAD_BYTES + int.from_bytes(data[14:16])
    if size_bytes > MOST_V2_BYTES:
        raise PrefaceError(f"it has {size_bytes} bytes, and the limit is {MOST_V2_BYTES}")
    if len(data) < size_bytes:
        return None
    if data[12] == _LOCAL:  # "discard the protocol block including the family", TLVs and all
        return Preface(size_bytes)
    family, transport = divmod(data[13], 16)
    if family > _FAMILIES or transport > _TRANSPORTS:
        raise PrefaceError(f"family and transport are {data[13]:#04x}, which means nothing")
    block = memoryview(data)[_V2_HEAD_BYTES:size_bytes]
    if not family or not transport:
        return Preface(size_bytes)
    # A proxy that took HTTP/3 off may say DGRAM; its addresses are as good.
    source, destination, address_bytes = _inet(family, block) if family in _INET else _unix(block)
    is_tls, alpn = _read_tlvs(data[:size_bytes], _V2_HEAD_BYTES + address_bytes)
    return Preface(size_bytes, source, destination, is_tls, alpn)


def _inet(family: int, block: memoryview) -> tuple[Address, Address, int]:
    kind, width = _INET[family]
    if len(block) < 2 * width + 4:
        raise PrefaceError("it is too short for its addresses")
    ports = block[2 * width : 2 * width + 4]
    source = socket.inet_ntop(kind, block[:width]), int.from_bytes(ports[:2])
    destination = socket.inet_ntop(kind, block[width : 2 * width]), int.from_bytes(ports[2:])
    return source, destination, 2 * width + 4


def _unix(block: memoryview) -> tuple[Address | None, Address | None, int]:
    if len(block) < 2 * _UNIX_BYTES:
        raise PrefaceError("it is too short for its addresses")
    return (
        _path(bytes(block[:_UNIX_BYTES])),
        _path(bytes(block[_UNIX_BYTES : 2 * _UNIX_BYTES])),
        2 * _UNIX_BYTES,
    )


def _path(field: bytes) -> Address | None:
    """A `sun_path` (unix(7)): ended by NUL; one that begins with NUL is abstract; all NUL is no name."""
    if field[:1] == b"\x00":
        name = field.rstrip(b"\x00")
        return ("@" + os.fsdecode(name[1:]), None) if name else None
    return os.fsdecode(field.partition(b"\x00")[0]), None


def _read_tlvs(preface: bytes, start: int) -> tuple[bool, bytes | None]:
    """Check all TLVs (§2.2) behind `start`: whether the client came by TLS, and with what ALPN."""
    is_tls, alpn = False, None
    for kind, begin, end in _tlvs(preface, start, len(preface)):
        if kind == _SSL:
            if end - begin < _SSL_FIXED_BYTES:
                raise PrefaceError("the SSL TLV is too short")
            is_tls = bool(preface[begin] & _CLIENT_SSL)
            for _ in _tlvs(preface, begin + _SSL_FIXED_BYTES, end):
                pass  # only their lengths are checked
        elif kind == _ALPN:
            alpn = preface[begin:end]
        elif kind == _CRC32C:
            if end - begin != 4:
                raise PrefaceError("the CRC32C TLV is not 4 bytes long")
            zeroed = preface[:begin] + bytes(4) + preface[end:]
            if crc32c(zeroed) != int.from_bytes(preface[begin:end]):
                raise PrefaceError("its checksum is wrong")
    return is_tls, alpn


def _tlvs(preface: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each value; they must fill the space up to `stop`."""
    while start < stop:
        begin = start + 3
        end = begin + int.from_bytes(preface[start + 1 : begin])
        if begin > stop or end > stop:
            raise PrefaceError("a TLV is longer than what holds it")
        yield preface[start], begin, end
        start = end


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B (Castagnoli). For prefaces: 0.2 µs a byte."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
