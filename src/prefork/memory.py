"""How much memory this process and its children may have: the control group's limit, or what the machine has."""

from __future__ import annotations

from pathlib import Path

_KIB = 1024
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "none" as the highest multiple of a page below 2**63."""


def memory_limit_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The tightest limit on the way from our group to the root, and the machine's memory; None if nothing is known.

    Args:
        proc: where procfs is mounted.
        cgroup: where the control groups (version 2, or version 1's `memory`) are mounted.
    """
    return min([*_limits(proc, cgroup), *_machine(proc)], default=None)


def _limits(proc: Path, cgroup: Path) -> list[int]:
    limits: list[int] = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroup / "memory" if controllers else cgroup
        group = root / path.lstrip("/")
        while True:
            limits += _limit_of(group)
            if group == root or root not in group.parents:
                break
            group = group.parent
    return limits


def _limit_of(group: Path) -> list[int]:
    text = _read(group / "memory.max").strip() or _read(group / "memory.limit_in_bytes").strip()
    if not text.isdecimal() or int(text) >= _NO_LIMIT_BYTES:  # "max", or not there
        return []
    return [int(text)]


def _machine(proc: Path) -> list[int]:
    for line in _read(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return [int(rest.split()[0]) * _KIB]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not mounted, or not ours to read: no limit is known
        return ""
