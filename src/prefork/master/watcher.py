"""Reads what the plan wants to know of the workers while they work: the scoreboard, their CPU time, the queue."""

from __future__ import annotations

from typing import Protocol

from prefork.latency import total_s
from prefork.master import events as e
from prefork.master.household import Household
from prefork.master.pulse import Pulse
from prefork.net.listeners import ListenerSet
from prefork.scoreboard import Scoreboard


class Meter(Protocol):
    """What the operating system says of a process; 0 of one that is gone. `system.Meter`."""

    def busy_s(self, pid: int) -> float: ...


class Watcher:
    """One for each master, used by its loop only."""

    def __init__(
        self, household: Household, scoreboard: Scoreboard | None, listeners: ListenerSet, meter: Meter
    ) -> None:
        self._household = household
        self._scoreboard = scoreboard
        self._listeners = listeners
        self._meter = meter

    def look(self, *, with_load: bool) -> e.PulsesSeen:
        """What there is to see. Costs some microseconds a worker, and 20 more with its CPU time."""
        board = self._scoreboard
        if board is None:
            return e.PulsesSeen(())
        pulses = []
        for serial, (pid, entry) in self._household.entries().items():
            told = board.told(entry)
            pulses.append(
                Pulse(
                    child=serial,
                    is_awake=told.is_awake,
                    tick_s=told.tick_ms / 1000,
                    in_flight=told.in_flight,
                    connections=told.connections or 0,
                    capacity=told.capacity,
                    served_s=total_s(told.latencies) if with_load else 0.0,
                    cpu_s=self._meter.busy_s(pid) if with_load else 0.0,
                    statuses=told.statuses,
                    latencies=told.latencies,
                )
            )
        return e.PulsesSeen(tuple(pulses), self._listeners.waiting() if with_load else 0)
