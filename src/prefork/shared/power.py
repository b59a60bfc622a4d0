"""Whether the files of a lasting store can have lost what was written to them: the machine stopped while they were in use.

Without `sync` the kernel writes pages to the disk when and in which order it likes. That survives the end of any
process, and an orderly stop of the machine, and nothing else; and a database of which some pages are old may crash
whoever reads it. So a file `boot` says in which life of the machine the store was opened; who leaves it last has all
of it written to the disk, and removes the file. Who finds the file of another life takes the store for damaged.

Runs in the master too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_FILES: Final = ("data.mdb", "usage", "cells")


def boot_id() -> str:
    """Names this life of the machine; "" where it has no name (not Linux): then nothing is found out."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def is_suspect(folder: Path, boot: str) -> bool:
    """Whether the machine stopped while the store was in use."""
    with contextlib.suppress(OSError):  # not in use when it stopped, or never
        return (folder / "boot").read_text() not in {boot, ""}
    return False


def enter(folder: Path, boot: str) -> None:
    """From now on pages may be in memory alone. Raises OSError."""
    fd = os.open(folder / "boot", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, boot.encode())
    finally:
        os.close(fd)


def settle(folder: Path) -> None:
    """Have everything written to the disk. Nobody else uses the store. Blocks for as long as the disk takes. Raises OSError."""
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):  # it was never opened
            fd = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    (folder / "boot").unlink(missing_ok=True)
