"""A request's body for a WSGI application: read to its end before the application is called.

Rules:

* Nothing blocks on a slow client: whoever reads `wsgi.input` finds all of the body there.
* Up to `MEMORY_BYTES` it is kept in memory, beyond that in an unnamed temporary file.

What the application gets is Python's own: `io.BytesIO`, or the file. Both read in every way there is.

Rejected: `tempfile.SpooledTemporaryFile`, each of whose reads passes through Python code.

Not here: how much may come, and how long that may take (`limits`, `reader`, `protocol`).
"""

from __future__ import annotations

import io
import tempfile
from typing import IO, Any, Final

MEMORY_BYTES: Final = 1024 * 1024
"""nginx keeps 8 or 16 KiB, gunicorn none, waitress 512 KiB, SpooledTemporaryFile's users in Django 2.5 MiB."""


class _Empty(io.BytesIO):
    """The input of all requests that have no body: it can be neither closed nor filled."""

    def close(self) -> None:
        """Leave it to the next request."""

    def write(self, _data: Any) -> int:
        raise io.UnsupportedOperation("not writable")

    def writelines(self, _lines: Any) -> None:
        raise io.UnsupportedOperation("not writable")


EMPTY: Final = _Empty()


class BodyBuffer:
    """Gathers a body. Runs on the loop's thread: a temporary file is written to memory, mostly, by the kernel."""

    __slots__ = ("_file", "_is_in_memory")

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._is_in_memory = True

    def add(self, piece: bytes, whole_bytes: int) -> None:
        """Append a piece, with which the body has `whole_bytes`. Raises OSError: no room, or no temporary files."""
        if self._is_in_memory and whole_bytes > MEMORY_BYTES:
            self._spool()
        self._file.write(piece)

    def _spool(self) -> None:
        memory = self._file
        assert isinstance(memory, io.BytesIO)
        file = tempfile.TemporaryFile(prefix="prefork-body-")  # noqa: SIM115  (closed with the request)
        try:
            with memory.getbuffer() as view:
                file.write(view)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._is_in_memory = False

    def finished(self) -> IO[bytes]:
        """All of it, from the beginning. Raises OSError: what a file has buffered may find no room."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Let go of it. Never raises: what could not be written is not wanted any more."""
        try:
            self._file.close()
        except OSError:  # no room for what was buffered; the descriptor is closed
            self._file = io.BytesIO()
