"""A control group for one fleet, with a bound of memory. Version 2 of the hierarchy, or 1."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos.fault import LeftOutError
from tests.process.harness import wait_until

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A group that was made here. Put a process into it, and all that it makes from then on is in it."""

    def __init__(self, folder: Path, limit_file: str) -> None:
        self._folder = folder
        self._limit = folder / limit_file

    def take(self, pids: Iterator[int] | list[int]) -> None:
        """Put processes into it. Raises OSError."""
        for pid in pids:
            (self._folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def limit(self, size_bytes: int) -> None:
        """What all of them may use together. Raises OSError."""
        self._limit.write_text(str(size_bytes), encoding="ascii")
        # Version 1 counts what is swapped apart; without this, the fleet would swap and never be short.
        with contextlib.suppress(OSError):
            (self._folder / "memory.memsw.limit_in_bytes").write_text(str(size_bytes), encoding="ascii")
        with contextlib.suppress(OSError):
            (self._folder / "memory.swap.max").write_text("0", encoding="ascii")

    def is_empty(self) -> bool:
        """Whether all who were in it have left."""
        return not (self._folder / "cgroup.procs").read_text(encoding="ascii").strip()


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group of our own, removed at the end. Raises LeftOutError where none may be made."""
    is_second = "memory" in _read(ROOT / "cgroup.controllers").split()
    parent = ROOT if is_second else ROOT / "memory"
    limit_file = "memory.max" if is_second else "memory.limit_in_bytes"
    folder = parent / f"prefork-chaos-{uuid.uuid4().hex[:12]}"
    try:
        if not parent.is_dir():
            raise LeftOutError("there is no memory controller of control groups here")
        folder.mkdir()
        if not os.access(folder / limit_file, os.W_OK):
            folder.rmdir()
            raise LeftOutError(f"{folder / limit_file} cannot be written: no memory controller for this user")
    except OSError as error:
        raise LeftOutError(f"no control group can be made here: {error}") from error
    group = MemoryGroup(folder, limit_file)
    try:
        yield group
    finally:
        wait_until(group.is_empty, "the control group is empty")
        folder.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
