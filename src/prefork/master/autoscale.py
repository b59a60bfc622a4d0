"""Autoscaling, as the plan does it: from what a look shows to a number of workers, and who leaves. The policy is `scaling`'s.

Nothing is decided during a reload, a recycling or a rest. Growth is forbidden where the fleet, with one worker more, would have
more memory than its budget (`max_fleet_bytes`).

Who leaves is the one that has run for longest of those that have nothing to do; its slot number is taken by the last one, because
slots are counted from 0. Not so under `reuseport`: a socket belongs to its slot, and only the last may be closed.
"""

from __future__ import annotations

from dataclasses import replace

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.draft import Draft
from prefork.master.fleet import Child, Phase
from prefork.master.pulse import Pulse
from prefork.master.scaling import Load, busyness, size

_IDLE = 0.05
"""Who is busy for less of its time has nothing to do."""


def seen(draft: Draft, event: e.PulsesSeen, since_s: float) -> None:
    """A look has come. `since_s`: when the one before was."""
    fleet = draft.fleet
    bounds = fleet.rules.bounds
    if bounds is None or fleet.stopping is not None or fleet.resting:
        return
    busy = _busy(draft, event.pulses, since_s)
    serving = [x for x in fleet.children.values() if x.phase is Phase.READY and x.slot < fleet.wanted]
    if not busy or not serving or not fleet.may_recycle:
        return
    mean = sum(busy.get(x.serial, 0.0) for x in serving) / len(serving)
    load = Load(fleet.ready_slots(), mean, event.queue)
    found = size(bounds, fleet.trend, fleet.wanted, load, draft.now_s, may_grow=_may_grow(draft))
    fleet.trend = found.trend
    if found.wanted == fleet.wanted:
        return
    leaver = None
    if found.wanted == fleet.wanted - 1 and not fleet.rules.reuseport:
        leaver = _longest_idle(serving, busy, {pulse.child: pulse for pulse in event.pulses})
    draft.info(f"autoscale: from {fleet.wanted} to {found.wanted} workers: {found.why}")
    if leaver is not None:
        _be_last(draft, leaver)
    fleet.wanted = found.wanted


def _busy(draft: Draft, pulses: tuple[Pulse, ...], since_s: float) -> dict[int, float]:
    """How busy each is, by serial number; only those that have been looked at before."""
    fleet = draft.fleet
    passed_s = draft.now_s - since_s
    before = fleet.trend
    cpu_s, served_s = dict(before.cpu_s), dict(before.served_s)
    fleet.trend = replace(
        before,
        cpu_s=tuple((pulse.child, pulse.cpu_s) for pulse in pulses),
        served_s=tuple((pulse.child, pulse.served_s) for pulse in pulses),
    )
    if passed_s <= 0:
        return {}
    return {
        pulse.child: busyness(
            cpu=(pulse.cpu_s - cpu_s[pulse.child]) / passed_s,
            at_work=max(pulse.in_flight, (pulse.served_s - served_s[pulse.child]) / passed_s),
            capacity=pulse.capacity,
            silent_s=draft.now_s - pulse.tick_s if pulse.is_awake else 0.0,
        )
        for pulse in pulses
        if pulse.child in cpu_s
    }


def _may_grow(draft: Draft) -> bool:
    fleet = draft.fleet
    budget = fleet.rules.max_fleet_bytes
    if budget is None:
        return True
    return 0 < fleet.memory_bytes * (fleet.wanted + 1) <= budget * fleet.wanted  # not before it is known


def _longest_idle(serving: list[Child], busy: dict[int, float], pulses: dict[int, Pulse]) -> Child | None:
    """Of those that have nothing to do, the one that has run for longest; else of those with the fewest connections."""

    def rank(child: Child) -> tuple[bool, int, float]:
        pulse = pulses.get(child.serial)
        connections = pulse.connections if pulse is not None else 0
        is_busy = busy.get(child.serial, 1.0) >= _IDLE or (pulse is not None and pulse.in_flight > 0)
        return is_busy, connections if is_busy else 0, child.ready_at_s or 0.0

    return min(serving, key=rank, default=None)


def _be_last(draft: Draft, leaver: Child) -> None:
    """Have the last slot and the leaver's change numbers, where there is nobody else in either."""
    fleet = draft.fleet
    last = fleet.wanted - 1
    there = list(fleet.in_slot(last))
    if leaver.slot == last or len(there) != 1 or len(list(fleet.in_slot(leaver.slot))) != 1:
        return
    for child, slot in ((there[0], leaver.slot), (leaver, last)):
        draft.put(child, slot=slot)
        draft.commands.append(c.Renumber(child.serial, slot))
    seats = fleet.seat(last), fleet.seat(leaver.slot)
    fleet.seats[leaver.slot], fleet.seats[last] = seats
