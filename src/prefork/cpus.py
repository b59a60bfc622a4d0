"""How many CPUs this process may really use: its affinity, and its control group's quota.

`os.cpu_count()` sees the machine, not the container: a pod with a quota of two CPUs on a 64-CPU host would get
64 workers. Nothing here is cached; it is read once, at start.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cpus(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use, at least 1: the smaller of affinity and control-group quota (rounded up).

    Args:
        proc: where procfs is mounted.
        cgroup: where the control groups (version 2, or version 1's `cpu`) are mounted.
    """
    quota = _quota_cpus(proc, cgroup)
    return max(1, min(_affinity_cpus(), math.ceil(quota) if quota else 1 << 30))


def _affinity_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota_cpus(proc: Path, cgroup: Path) -> float | None:
    """The tightest quota on the way from our group to the root, in CPUs; None if there is none."""
    quotas: list[float] = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        root = cgroup if not controllers else cgroup / "cpu"
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / path.lstrip("/")
        while True:
            quotas += _quota_of(group)
            if group == root or root not in group.parents:
                break
            group = group.parent
    return min(quotas, default=None)


def _quota_of(group: Path) -> list[float]:
    fields = _read(group / "cpu.max").split()  # cgroups(7), version 2: "max 100000" or "200000 100000"
    if not fields:  # version 1: two files; -1 is no quota
        fields = [*_read(group / "cpu.cfs_quota_us").split(), *_read(group / "cpu.cfs_period_us").split()]
    if len(fields) != 2 or fields[0] in ("max", "-1"):
        return []
    return [int(fields[0]) / int(fields[1])]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not mounted, or not ours to read: no quota is known
        return ""
