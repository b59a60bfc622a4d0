"""Writing to standard error without waiting for its reader.

A pipe whose reader has stopped (`docker logs` on a slow terminal, a log shipper that hangs) fills up, and the next write
would halt the process that writes: a master that can be halted by its log answers no signal and replaces no worker.
So what cannot be written within `PATIENCE_MS` is dropped, and from then on nothing is waited for until there is room.

Not by O_NONBLOCK: it belongs to the open file, which the shell and the application's own prints share.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Final, TextIO

PATIENCE_MS: Final = 100
_PIECE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""A pipe with room for one byte has room for this much (pipe(7)), unless another process is quicker."""


class Patience:
    """Of one process with one stream. `lost` counts messages since the last that was written."""

    def __init__(self) -> None:
        self.lost = 0

    def write(self, stream: TextIO, text: str) -> bool:
        """Write it all, or as much as there is room for; whether it was all. Raises what the stream raises."""
        fd = stream.fileno()
        data = text.encode(stream.encoding or "utf-8", "backslashreplace")
        stream.flush()
        while data:
            if not _has_room(fd, 0 if self.lost else PATIENCE_MS):
                self.lost += 1
                return False
            data = data[os.write(fd, data[:_PIECE_BYTES]) :]
        return True


def may_halt(stream: TextIO) -> bool:
    """Whether a write to it may wait for a reader: a pipe, a terminal, a socket; not a file, nor what is none."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed; a text in memory; None
        return False
    return not stat.S_ISREG(mode) and hasattr(select, "poll")


def _has_room(fd: int, within_ms: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(within_ms))
