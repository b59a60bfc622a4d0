"""WebSocket frames: bytes to messages, and back (RFC 6455 §5).

Rules:

* A message is read whole, however it is fragmented. Its size is bounded by the frame's own word for it, before anything
  of it is kept; of a compressed one by what comes out.
* Reading stops at `HIGH_WATER_BYTES` of messages that nobody has taken. What is behind them waits as it came, in its own
  bytes: a read of 256 KiB may hold 40,000 frames.
* Nothing here writes or waits. Control frames are laid down for the connection: `pings`, `close`.

Why not a library: `websockets` (sans I/O) under the same connection makes an echo through uvloop dearer by 3 to 11 µs of
15 to 48, a factor of 1.2 to 1.7, most for short messages (docs/design.md). Compressed messages gain little: zlib is the
cost. Its C routine for masks is used where it is installed.

Not here: control frames (`websocket_control`), compression (`websocket_deflate`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from prefork.http.websocket_control import CLOSE, PING, PROTOCOL_ERROR, TOO_BIG, FrameError
from prefork.http.websocket_deflate import Inflater

_TEXT: Final = 0x1
_FIN: Final = 0x80

WHOLE_TEXT: Final = 0x81
WHOLE_BINARY: Final = 0x82
COMPRESSED: Final = 0x40
"""First bytes of frames that are whole messages, and what is added if they are compressed (RSV1)."""

HIGH_WATER_BYTES: Final = 128 * 1024
"""Messages that are held for an application; above it nothing more is read. Pieces of 64 KiB, a usual size, stop nothing."""

_MESSAGE_BYTES: Final = 1024
"""What a message counts beside its bytes: its objects, and so that there are 128 at most."""

_VIEW_BYTES: Final = 2 * 1024
"""From here on a view of what was read is cheaper than a copy."""

_UINT16: Final = struct.Struct("!H")
_UINT64: Final = struct.Struct("!Q")
_HEAD_16: Final = struct.Struct("!BBH")
_HEAD_64: Final = struct.Struct("!BBQ")
_SHORT_HEADS: Final = {
    first: tuple(bytes((first, size)) for size in range(126))
    for first in (WHOLE_TEXT, WHOLE_BINARY, WHOLE_TEXT | COMPRESSED, WHOLE_BINARY | COMPRESSED)
}


def _xor(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """XOR with a mask of four bytes, by integers: at 64 KiB 80 to 130 times the C routine, but no dependency."""
    size = len(data)
    masks = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(masks, "little")).to_bytes(size, "little")


def _find_mask() -> Callable[[bytes | bytearray | memoryview, bytes | bytearray], bytes]:
    try:
        from websockets.speedups import apply_mask  # noqa: PLC0415  (optional: the extra `websocket`)
    except ImportError:
        return _xor
    return apply_mask


_unmask: Final = _find_mask()


def frame_head(first: int, size: int) -> bytes:
    """What stands before `size` bytes of payload, from the server: never masked."""
    if size < 126:
        return _SHORT_HEADS[first][size]
    return _HEAD_16.pack(first, 126, size) if size < 0x10000 else _HEAD_64.pack(first, 127, size)


class FrameReader:
    """Reads what one client sends. Messages are added to `messages`, in the shape of ASGI's `websocket.receive`."""

    __slots__ = (
        "_inflater",
        "_is_compressed",
        "_limit",
        "_message",
        "_needed",
        "_opcode",
        "_room",
        "_tail",
        "calls",
        "close",
        "messages",
        "pings",
    )

    def __init__(self, messages: list[dict[str, Any]], limit_bytes: int, inflater: Inflater | None) -> None:
        self.messages = messages
        self.pings: list[bytes] = []
        """Payloads of pings that have come."""
        self.close: bytes | None = None
        """The payload of the client's close frame; nothing behind it is read."""
        self.calls = False
        """There are pings, a close, or no room: the connection looks, and clears it."""
        self._inflater = inflater
        self._limit = limit_bytes
        self._tail = bytearray()
        self._needed = 0  # bytes of the tail before there is anything to do
        self._room = HIGH_WATER_BYTES
        self._opcode = 0  # of the fragmented message that is under way
        self._message = bytearray()  # and what there is of it
        self._is_compressed = False

    @property
    def is_full(self) -> bool:
        """Nothing more is read until `messages` is empty, and `feed` is called."""
        return self._room <= 0

    def feed(self, data: bytes) -> None:
        """Read as far as there is room. Raises FrameError, UnicodeDecodeError; not to be called after either."""
        tail = self._tail
        if tail:
            tail += data
            if len(tail) >= self._needed:
                del tail[: self._read(tail)]
            return
        used = self._read(data)
        if used < len(data):
            tail += memoryview(data)[used:]

    def _read(self, data: bytes | bytearray) -> int:
        messages = self.messages
        room = self._room if messages else HIGH_WATER_BYTES
        position, size = 0, len(data)
        while room > 0:
            start = position + 6
            if start > size:
                self._needed = self._needed_for_head(data, position)
                break
            first = data[position]
            length = data[position + 1] - 0x80
            if not 0 <= length <= 125:
                start, length = self._long_head(data, position)
            end = start + length
            if end > size:
                self._needed = end - position
                break
            mask = data[start - 4 : start]
            if length < _VIEW_BYTES:
                payload = _unmask(data[start:end], mask)
            else:
                payload = _unmask(memoryview(data)[start:end], mask)
            position = end
            if length > self._limit or self._opcode:
                room -= self._take(first, payload)
            elif first == WHOLE_TEXT:
                messages.append({"type": "websocket.receive", "text": str(payload, "utf-8")})
                room -= length + _MESSAGE_BYTES
            elif first == WHOLE_BINARY:
                messages.append({"type": "websocket.receive", "bytes": payload})
                room -= length + _MESSAGE_BYTES
            else:
                room -= self._take(first, payload)
            if self.close is not None:
                return size
        self._room = room
        if room <= 0:
            self.calls = True
            self._needed = 0
        return position

    def _needed_for_head(self, data: bytes | bytearray, position: int) -> int:
        if len(data) - position < 2:
            return 2
        self._check_head(data[position], data[position + 1])
        return 6

    def _check_head(self, first: int, second: int) -> None:
        """What can be said before the frame is there. Raises FrameError."""
        opcode = first & 0x0F
        if not second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "frame without a mask")
        if opcode & 0x7 > 2:
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        if opcode >= CLOSE:
            if first & 0xF0 != _FIN or second & 0x7F > 125:
                raise FrameError(PROTOCOL_ERROR, "control frame fragmented or too long")
        elif first & 0x30 or (first & COMPRESSED and (self._inflater is None or not opcode)):
            raise FrameError(PROTOCOL_ERROR, "reserved bit set")
        elif bool(opcode) == bool(self._opcode):
            raise FrameError(PROTOCOL_ERROR, "continuation of nothing, or none of a fragmented message")

    def _long_head(self, data: bytes | bytearray, position: int) -> tuple[int, int]:
        """Start and length of a payload above 125 bytes; if it is not known yet, where it will be. Raises FrameError."""
        first, second = data[position], data[position + 1]
        self._check_head(first, second)
        is_16_bit = second == 0xFE
        start = position + (8 if is_16_bit else 14)
        if start - 4 > len(data):
            return start - 4, 0
        length: int = (_UINT16 if is_16_bit else _UINT64).unpack_from(data, position + 2)[0]
        if length < (126 if is_16_bit else 0x10000):
            raise FrameError(PROTOCOL_ERROR, "length in more bytes than it needs")
        if first & COMPRESSED or self._is_compressed:
            # zlib's deflateBound: no message within the limit gets longer by compression.
            most = self._limit + (self._limit + 7 >> 3) + (self._limit + 63 >> 6) + 11
        else:
            most = self._limit - len(self._message)
        if length > most:
            raise FrameError(TOO_BIG, "message too big")
        return start, length

    def _take(self, first: int, payload: bytes) -> int:
        """Take any other frame than a whole plain message; how much room it took. Raises FrameError."""
        self._check_head(first, 0x80)
        opcode = first & 0x0F
        if opcode >= CLOSE:
            self.calls = True
            if opcode == CLOSE:
                self.close = payload
            elif opcode == PING:
                self.pings.append(payload)
            return 0
        if opcode:
            self._opcode = opcode
            self._is_compressed = bool(first & COMPRESSED)
        message = self._message
        is_last = bool(first & _FIN)
        if self._is_compressed:
            assert self._inflater is not None
            inflated = self._inflater.inflate(payload, self._limit - len(message), is_last=is_last)
            if inflated is None:
                raise FrameError(PROTOCOL_ERROR, "bad compressed data")
            payload = inflated
        if len(message) + len(payload) > self._limit:
            raise FrameError(TOO_BIG, "message too big")
        if not is_last:
            message += payload
            return 0
        if message:
            payload = bytes(message + payload)
            self._message = bytearray()
        if self._opcode == _TEXT:
            self.messages.append({"type": "websocket.receive", "text": str(payload, "utf-8")})
        else:
            self.messages.append({"type": "websocket.receive", "bytes": payload})
        self._opcode = 0
        self._is_compressed = False
        return len(payload) + _MESSAGE_BYTES
