"""The page on which readers leave a mark, so that a `get` never writes to the database.

A header, then one byte for each of many numbers of entries: 1 if an entry of that number was read since it came, or
last went to the end of the queue. Nobody takes a lock: a store of one byte is whole, and a mark that is lost or
shared by two entries costs a little of the hit rate and nothing else. Only the holder of LMDB's write lock touches
the header.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from prefork.errors import StoreDamagedError
from prefork.shared.local.files import Files

_VERSION: Final = 1
_HEADER_BYTES: Final = 64
BYTES_A_MARK: Final = 128
"""One mark for so many bytes of the store: few entries are smaller with all that LMDB adds, so few share a mark."""

# Words of the header, 64 bits each.
_VERSION_WORD: Final = 0
NEXT: Final = 1
"""The number of the next new entry."""


class Usage:
    """The page, as this process maps it."""

    def __init__(self, files: Files) -> None:
        """Map it, making it first if need be; the caller is setting up. Raises SharedError."""
        self.count = max(1024, files.map_bytes // BYTES_A_MARK)
        fd = files.open_file("usage")
        try:
            size = os.fstat(fd).st_size
            files.reserve(fd, 0, max(size, _HEADER_BYTES + self.count))
            self._map = mmap.mmap(fd, 0)
        finally:
            os.close(fd)
        view = memoryview(self._map)
        self.words = view[:_HEADER_BYTES].cast("Q")
        self.marks = view[_HEADER_BYTES:]
        self.count = len(self.marks)
        if self.words[_VERSION_WORD] not in {0, _VERSION}:
            raise StoreDamagedError(
                f"shared store {files.path}: its usage page is of another version: remove the store"
            )
        self.words[_VERSION_WORD] = _VERSION
