"""Orphans that are left to the master: processes that its workers started and did not wait for.

The master is a subreaper, and often process 1 of a container, so every orphan below it becomes its child, and stays a
zombie until it is reaped. In the command's own master all of them are ours to reap. In a program's process some may be
the program's own, which it will wait for itself; there only a zombie that nobody has waited for is reaped.
"""

from __future__ import annotations

from prefork import system

PATIENCE_S = 10.0
"""A program that waits for its own children does so within this time."""


class Strangers:
    """Zombies that are none of our own. Looks only when a child has ended, so it never wakes the master up."""

    def __init__(self, patience_s: float | None = None) -> None:
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._seen_s: dict[int, float] = {}

    def reap(self, known: set[int], *, is_birth_near: bool, now_s: float) -> None:
        """Reap the strangers among the zombies.

        Args:
            known: pids that are ours, reaped elsewhere.
            is_birth_near: a worker may be our child already without our knowing its pid: reap nobody now.
            now_s: seconds of the monotonic clock.
        """
        zombies = [pid for pid in system.zombie_children() if pid not in known]
        self._seen_s = {pid: self._seen_s.get(pid, now_s) for pid in zombies}
        if is_birth_near:
            return
        for pid, since_s in self._seen_s.items():
            if now_s - since_s >= self._patience_s:
                system.reap(pid)
