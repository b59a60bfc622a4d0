"""Memory that is freed stays with the worker while it works, and goes back to the kernel when it rests.

glibc gives memory back as soon as 128 KiB are free at the end of its heap, and asks for it again a moment later, page fault
by page fault. Bodies come and go in pieces of up to 256 KiB (libuv's read), so of an upload of 1 MB a third of the CPU time
was the kernel's, clearing pages: 568 µs, and 325 so (Linux 6.18, glibc 2.36, 64 connections; 71 faults a request, and 1).

Not here: when a worker rests (`clock`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

KEPT_BYTES: Final = 64 * 1024 * 1024
"""Freed memory at the end of the heap that is kept for the next requests: 256 reads of the largest size."""

MAPPED_BYTES: Final = 4 * 1024 * 1024
"""From this size on a block is mapped by itself, and given back when it is freed."""

_M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_M_MMAP_THRESHOLD: Final = -3


def keep_freed(environ: Mapping[str, str] = os.environ) -> None:
    """Keep what is freed, for as long as this process runs. Worker. Does nothing where there is no glibc.

    Nor does it where somebody has set glibc's own tunables: they know better.
    """
    libc = _libc()
    is_told = "GLIBC_TUNABLES" in environ or any(name.startswith("MALLOC_") for name in environ)
    if libc is not None and not is_told:
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def give_back() -> None:
    """Give the kernel what is free in the heap (malloc_trim(3)). Takes some milliseconds where it is much."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def _libc() -> Any:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None  # musl has neither
