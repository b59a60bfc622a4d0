"""What Linux says about a process, read from /proc: ancestry, memory, context switches.

A process is known by pid *and* start time, because pids are used again; whoever signals one goes
through a pidfd, checked after it is open. A zombie counts as gone: it runs no code, and nobody reaps
orphans for us in a container.

Every reader returns nothing, zero or False for a process that is gone; a race with an exit is normal.

Not here: deciding what to do with the processes (harness.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)
_HIDDEN = (*_GONE, PermissionError)


class Process(NamedTuple):
    """One process, told apart from a later one with the same pid by its start time."""

    pid: int
    start_ticks: int


class ContextSwitches(NamedTuple):
    """How often a process went to sleep by itself (each is a wake-up later) and was taken off its CPU."""

    voluntary: int
    involuntary: int


class _Stat(NamedTuple):
    state: str
    parent_pid: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except _HIDDEN:
        return None
    # The name, second, is in parentheses and may hold anything, ")" too: fields are counted behind the last.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], parent_pid=int(fields[1]), start_ticks=int(fields[19]))


def identify(pid: int) -> Process | None:
    """The process that has `pid` now; None where there is none, or a zombie only."""
    stat = _stat(pid)
    if stat is None or stat.state in "ZX":
        return None
    return Process(pid, stat.start_ticks)


def is_alive(process: Process) -> bool:
    """Whether exactly this process still runs (a zombie does not)."""
    return identify(process.pid) == process


def state(pid: int) -> str:
    """The state letter of `pid`, as in `ps`: R, S, D, T (stopped), Z (zombie); "" where it is gone."""
    stat = _stat(pid)
    return "" if stat is None else stat.state


def parent_pid(pid: int) -> int:
    """The pid of the parent of `pid`; 0 where it is gone."""
    stat = _stat(pid)
    return 0 if stat is None else stat.parent_pid


def all_pids() -> Iterator[int]:
    """Every pid that can be seen now."""
    for entry in os.listdir(PROC):
        if entry.isdigit():
            yield int(entry)


def children(pid: int) -> list[int]:
    """The live children of `pid`, in the order of their pids; zombies left out."""
    stats = ((candidate, _stat(candidate)) for candidate in all_pids())
    return sorted(
        child for child, stat in stats if stat and stat.parent_pid == pid and stat.state not in "ZX"
    )


def descendants(pid: int) -> list[int]:
    """The live children of `pid`, theirs, and so on; zombies left out."""
    family: dict[int, list[int]] = {}
    for candidate in all_pids():
        stat = _stat(candidate)
        if stat is not None:
            family.setdefault(stat.parent_pid, []).append(candidate)
    found: list[int] = []
    pending = [pid]
    while pending:
        offspring = family.get(pending.pop(), [])
        found += offspring
        pending += offspring
    return sorted(found_pid for found_pid in found if state(found_pid) not in {"", "Z", "X"})


def pids_with_environment(entry: str) -> list[int]:
    """The live processes started with `entry` ("NAME=value") in their environment, and all their forks.

    The kernel keeps what a program was started with, and a fork copies it: so this finds orphans that
    no walk from parent to child finds any more.
    """
    wanted = entry.encode()
    found = []
    for pid in all_pids():
        with contextlib.suppress(*_HIDDEN):  # gone meanwhile, or another user's: not ours either way
            if wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return sorted(found)


def command_line(pid: int) -> list[str]:
    """The arguments `pid` was started with; empty where it is gone or a zombie."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except _HIDDEN:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False where it is gone. Safe against a pid used again."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except _GONE:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def pss_bytes(pid: int) -> int:
    """Proportional set size of `pid` in bytes: each page counted 1/n where n processes share it."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except _HIDDEN:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def context_switches(pid: int) -> ContextSwitches:
    """Context switches of `pid` since its start, summed over its threads that still live."""
    voluntary = involuntary = 0
    try:
        tasks = os.listdir(PROC / str(pid) / "task")
    except _GONE:
        return ContextSwitches(0, 0)
    for task in tasks:
        with contextlib.suppress(*_GONE):  # the thread ended meanwhile
            for line in (PROC / str(pid) / "task" / task / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "voluntary_ctxt_switches":
                    voluntary += int(value)
                elif name == "nonvoluntary_ctxt_switches":
                    involuntary += int(value)
    return ContextSwitches(voluntary, involuntary)


def open_descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of `pid`: number to target ("socket:[123]", "/dev/null", …)."""
    found: dict[int, str] = {}
    with contextlib.suppress(*_HIDDEN):  # gone: nothing is open
        for entry in os.listdir(PROC / str(pid) / "fd"):
            with contextlib.suppress(*_GONE):  # closed meanwhile
                found[int(entry)] = str((PROC / str(pid) / "fd" / entry).readlink())
    return found
