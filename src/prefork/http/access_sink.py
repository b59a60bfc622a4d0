"""Where the lines of the access log go: a file, a pipe, a socket, standard output, none of which ever blocks us.

Not here: lines (`access`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from typing import Final

STANDARD_OUTPUT: Final = "-"

_PIPE_BUF: Final = getattr(select, "PIPE_BUF", 512)
"""Writes up to this are atomic (pipe(7)); POSIX promises 512."""

# Without O_NONBLOCK the opening of a FIFO that nobody reads, and each write to one that is full, would block.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class Sink:
    """A descriptor for lines. `write` raises OSError, a BlockingIOError where it would have to wait."""

    def __init__(self, target: str) -> None:
        self._socket: socket.socket | None = None
        self._is_blocking = False
        self._fd = _standard_output() if target == STANDARD_OUTPUT else _open(target)
        mode = os.fstat(self._fd).st_mode
        self.piece_bytes = 0 if stat.S_ISREG(mode) else _PIPE_BUF
        """The longest write; 0 for no bound."""
        if stat.S_ISSOCK(mode):  # as of a service of systemd's, for its journal
            self._socket = socket.socket(fileno=self._fd)
        elif not stat.S_ISREG(mode):
            self._is_blocking = os.get_blocking(self._fd)

    def write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        # Room for one byte is room for PIPE_BUF (pipe(7)), unless another process is quicker.
        if self._is_blocking and not self.is_ready(0):
            raise BlockingIOError
        return os.write(self._fd, data)

    def is_ready(self, limit_s: float) -> bool:
        """Whether something can be written, or has failed for good, within `limit_s` seconds."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(limit_s * 1000))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)


def _open(path: str) -> int:
    return os.open(path, _FLAGS | os.O_CREAT, 0o666)


def _standard_output() -> int:
    """A descriptor of our own for standard output, that does not block if it can be helped.

    O_NONBLOCK belongs to the open file, which others share (the shell, the application's prints). A pipe or a terminal
    can be opened anew; a file must not be: its shared offset would not move, and others would write over our lines.
    """
    shared = os.dup(1)
    mode = os.fstat(shared).st_mode
    if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
        return shared
    try:
        own = os.open(f"/proc/self/fd/{shared}", _FLAGS)
    except OSError:  # no Linux; or a pipe of another user's, from before we became who we are
        return shared
    os.close(shared)
    return own


def end_of_piece(unsent: bytearray, piece_bytes: int) -> int:
    """How much to write at once: lines up to the bound, or one that is longer."""
    if not piece_bytes or len(unsent) <= piece_bytes:
        return len(unsent)
    return (unsent.rfind(b"\n", 0, piece_bytes) + 1) or (unsent.find(b"\n", piece_bytes) + 1)


def reason(error: OSError) -> str:
    """Why a write, or the opening, has failed, in words for whoever runs the server."""
    if isinstance(error, FileNotFoundError):
        return "its directory does not exist"
    if isinstance(error, BlockingIOError) or error.errno == errno.ENXIO:
        return "nobody reads it"
    return error.strerror or str(error)
