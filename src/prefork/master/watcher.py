"""Reads what the plan wants to know: the scoreboard, CPU time, memory, and what waits in the listeners' queues.

And tells workers, over the same scoreboard, what is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Protocol

from prefork.latency import total_s
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.deeds import Deeds
from prefork.master.gauge import Gauge
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
        self,
        household: Household,
        scoreboard: Scoreboard | None,
        listeners: ListenerSet,
        meter: Meter,
        gauge: Gauge | None,
        *,
        helpers: Callable[[], set[int]],
    ) -> None:
        """helpers: pids that count in the fleet's memory, besides the household's and our own."""
        self._household = household
        self._scoreboard = scoreboard
        self._listeners = listeners
        self._meter = meter
        self._gauge = gauge
        self._helpers = helpers

    def deeds(self) -> Deeds:
        return {
            c.LookAtPulses: self._look_at_pulses,
            c.LookAtMemory: self._look_at_memory,
            c.LookAtQueue: self._look_at_queue,
            c.ListSuspects: self._list_suspects,
        }

    def _look_at_pulses(self, command: c.LookAtPulses) -> Iterable[e.Event]:
        """Costs some microseconds a worker, and 20 more with its CPU time."""
        return (self._pulses(with_load=command.with_load),)

    def _look_at_memory(self, _command: c.LookAtMemory) -> Iterable[e.Event]:
        if self._gauge is None:
            return ()
        children, others = self._household.pids()
        return (self._gauge.read(children, [os.getpid(), *others, *self._helpers()]),)

    def _look_at_queue(self, command: c.LookAtQueue) -> Iterable[e.Event]:
        try:
            depth = self._listeners.queue_depth(command.slot)
        except (OSError, ValueError):  # the kernel cannot tell, or its socket could never be opened
            depth = 0
        return (e.QueueSeen(command.child, depth),)

    def _list_suspects(self, command: c.ListSuspects) -> None:
        if self._scoreboard is not None and self._scoreboard.recorders is not None:
            self._scoreboard.recorders.publish(command.listed)

    def _pulses(self, *, with_load: bool) -> e.PulsesSeen:
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
