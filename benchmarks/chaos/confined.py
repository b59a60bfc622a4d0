"""Limits that one fleet feels and nobody else: of a running process, of a user of its own, of a file system of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.chaos.fault import LeftOutError
from benchmarks.chaos.stage import is_root

# The checkout and its Python may be readable by their owner only; no other right of root's is kept.
_AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    *(f"--{kind}-caps=-all,+dac_read_search,+dac_override" for kind in ("inh", "ambient")),
)


@contextlib.contextmanager
def limited(pid: int, which: int, soft: int) -> Iterator[None]:
    """Lower one soft limit (resource.RLIMIT_…) of a running process of ours, and raise it again."""
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            resource.prlimit(pid, which, before)


@contextlib.contextmanager
def without_processes(pid: int, as_user: Sequence[str]) -> Iterator[None]:
    """Let `pid` make no process, then let it again; as its user, whom alone the kernel may permit it. LeftOutError."""
    command = [*as_user, sys.executable, "-c", _LIMIT_PROCESSES, str(pid)]
    subprocess.run([*command, "1"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "-1"], check=True)


_LIMIT_PROCESSES = """
import resource, sys
pid, soft = map(int, sys.argv[1:])
hard = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
resource.prlimit(pid, resource.RLIMIT_NPROC, (soft if soft > 0 else hard, hard))
"""


def more_descriptors() -> int:
    """Let this process open as many descriptors as it may: how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def without_roots_rights() -> tuple[str, ...]:
    """The command that runs another as a user whom RLIMIT_NPROC holds (root is above it). Raises LeftOutError."""
    if not is_root():
        return ()
    return (_path("setpriv"), *_AS_NOBODY[1:])


def on_small_disk(folder: Path, size_kb: int) -> tuple[str, ...]:
    """The command that runs another with a tiny file system at `folder`, that it alone sees. Raises LeftOutError."""
    if not is_root():
        raise LeftOutError("a file system of its own needs root")
    script = 'mount -t tmpfs -o size="$1",mode=0755 prefork-chaos "$2" && shift 2 && exec "$@"'
    return (_path("unshare"), "--mount", _path("sh"), "-c", script, "sh", f"{size_kb}k", str(folder))


def at_another_time(ahead_s: int) -> tuple[str, ...]:
    """The command that runs another in a time namespace whose monotonic clock is ahead. Raises LeftOutError."""
    if not is_root() or not Path("/proc/self/ns/time").exists():
        raise LeftOutError("a time namespace needs root and Linux 5.6")
    return (_path("unshare"), "--time", "--monotonic", str(ahead_s), "--boottime", str(ahead_s))


def virtual_bytes(pid: int) -> int:
    """The address space that a process takes now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGESIZE")


def _path(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise LeftOutError(f"there is no program {program} here (util-linux)")
    return found
