"""A status as people read it."""

from __future__ import annotations

from collections.abc import Mapping

from prefork import control
from prefork.system import Meter

_MIB = 1024 * 1024
_COLUMNS = ("SLOT", "PID", "GEN", "STATE", "AGE", "CONNECTIONS", "MEMORY", "")
_RIGHT = frozenset({"SLOT", "PID", "GEN", "AGE", "CONNECTIONS", "MEMORY"})


def measured(report: control.StatusReport) -> dict[int, int]:
    """Memory (PSS) of each worker by pid, in bytes, as far as this process may see it.

    Here, not in the master: the kernel walks the page tables for it, and a master must not wait.
    """
    meter = Meter()
    found = {worker.pid: meter.pss_bytes(worker.pid) for worker in report.workers if worker.pid is not None}
    return {pid: size for pid, size in found.items() if size}


def table(report: control.StatusReport, memory: Mapping[int, int]) -> str:
    """The fleet in a line, and a line for each worker."""
    parts = [
        report.name,
        f"{report.state}, {report.ready} of {report.wanted} workers",
        f"generation {report.generation}"
        + ("" if report.incoming is None else f" (trying out {report.incoming})"),
        " ".join(report.addresses),
        f"master {report.pid}, up {duration(report.uptime_s)}",
    ]
    rows = [_COLUMNS, *(_row(worker, memory) for worker in report.workers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join(_cell(row, i, widths) for i in range(len(_COLUMNS))).rstrip() for row in rows]
    refused = [
        f"refused for {duration(x.left_s)}: {x.what}, which has killed {x.kills} worker{'s' if x.kills > 1 else ''}"
        for x in report.refused
    ]
    return "\n".join(["  ".join(part for part in parts if part), *lines, *refused])


def _cell(row: tuple[str, ...], index: int, widths: list[int]) -> str:
    is_right = _COLUMNS[index] in _RIGHT
    return row[index].rjust(widths[index]) if is_right else row[index].ljust(widths[index])


def _row(worker: control.WorkerReport, memory: Mapping[int, int]) -> tuple[str, ...]:
    size = memory.get(worker.pid or 0)
    return (
        str(worker.slot),
        "-" if worker.pid is None else str(worker.pid),
        str(worker.generation),
        worker.phase,
        "-" if worker.age_s is None else duration(worker.age_s),
        "-" if worker.connections is None else str(worker.connections),
        "-" if size is None else f"{size / _MIB:.0f} MiB",
        worker.worn,
    )


def duration(seconds: float) -> str:
    """A time as people say it: its largest unit, whole."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
