"""WebSocket control frames and close codes (RFC 6455 §5.5, §7.4)."""

from __future__ import annotations

import struct
from typing import Final

CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
ABNORMAL: Final = 1006
BAD_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
RESTART: Final = 1012
"""Close codes: RFC 6455 §7.4.1, and for 1012 IANA's registry. 1005 and 1006 never stand in a frame."""

_CODE: Final = struct.Struct("!H")


class FrameError(Exception):
    """The client has broken the protocol, or a bound: the connection is closed with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """A whole control frame; `payload` has 125 bytes at most."""
    return bytes((0x80 | opcode, len(payload))) + payload


def is_close_code(code: int) -> bool:
    """Whether this may stand in a close frame (RFC 6455 §7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_frame(code: int, reason: str = "") -> bytes:
    """A whole close frame. Raises ValueError for a code that may not be sent, and a reason above 123 bytes."""
    payload = _CODE.pack(code) + reason.encode() if is_close_code(code) else b""
    if not 0 < len(payload) <= 125:
        raise ValueError(f"no close frame can say {code} {reason!r}")
    return control_frame(CLOSE, payload)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame's payload. Raises FrameError, UnicodeDecodeError."""
    if not payload:
        return NO_CODE, ""
    code = _CODE.unpack_from(payload)[0] if len(payload) > 1 else 0
    if not is_close_code(code):
        raise FrameError(PROTOCOL_ERROR, "bad close code")
    return code, str(payload[2:], "utf-8")
