"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): files that the kernel can send by itself.

A `fileno` does not say that the file has the bytes that `read` gives: that of a GzipFile has the compressed ones, that of
a text file another encoding. So only Python's plain binary files count, and what holds one as its `file`, as
`tempfile.NamedTemporaryFile` and Django's `File` do. All others are read a block at a time.

Not here: the sending (`files.send_range`).
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from typing import Any, Final

BLOCK_BYTES: Final = 64 * 1024
"""What is read at once, unless the application says how much."""

_MOST_HOLDERS: Final = 3
"""Django's File around tempfile's wrapper around the file."""


class FileWrapper:
    """An iterable over `filelike` in blocks of `block_size` bytes, for whoever looks into it; the server does not."""

    def __init__(self, filelike: Any, block_size: int = BLOCK_BYTES) -> None:
        self.filelike = filelike
        self.block_size = block_size
        close: Callable[[], object] | None = getattr(filelike, "close", None)
        if close is not None:
            self.close = close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if block:
            return block
        raise StopIteration

    def extent(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and count of what is left of a regular file; None for anything else. Raises OSError."""
        file = self.filelike
        for _ in range(_MOST_HOLDERS):
            if _is_plain(file):
                break
            file = getattr(file, "file", None)
        if not _is_plain(file) or file.closed:
            return None
        fd: int = file.fileno()
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        offset: int = file.tell()
        return fd, offset, max(0, found.st_size - offset)


def _is_plain(file: Any) -> bool:
    kind = type(file)
    if kind is io.BufferedReader or kind is io.BufferedRandom:
        return type(file.raw) is io.FileIO
    return kind is io.FileIO
