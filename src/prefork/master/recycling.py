"""Workers that are worn: too old, too large, have served enough, or somebody asks. What makes one worn, and what follows.

That a worn worker's successor is spawned beside it, and when it is told to stop, is `reconcile`'s. Here: a successor that does
not become ready is no crash. The worn worker serves on, and another try comes later, with a growing delay: a fleet that
serves must not end because new workers cannot start.

Memory is looked at every `MEMORY_EVERY_S`, and only where a bound is set: the one timer that an idle fleet may have.
"""

from __future__ import annotations

import math
from dataclasses import replace

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.draft import Draft
from prefork.master.fleet import Child, Phase, Seat
from prefork.master.waits import fail_recycle

MEMORY_EVERY_S = 5.0
"""Between two looks at memory. granian: 30 s; a leak of 100 MB/s leaves less time than that."""
HEAVY_SAMPLES = 3
"""Looks in a row that must show too much: a peak of one request is no reason (granian's rule)."""
SETTLED_S = 60.0
"""A worker that is younger is not recycled for the fleet's sake: where all are large from the start, it would not help."""
RENEWAL_RETRY_S = 1.0
LONGEST_RENEWAL_DELAY_S = 60.0
"""Back-off of a recycling that failed: nobody is missing meanwhile."""
_MIB = 1024 * 1024


def wear(draft: Draft, child: Child, why: str) -> None:
    """This worker is to be recycled; once is enough."""
    if child.phase is Phase.READY and not child.worn:
        draft.put(child, worn=why, worn_at_s=draft.now_s)
        draft.info(f"{child} is to be recycled: {why}")


def succeeded(draft: Draft) -> None:
    """A successor is ready."""
    draft.fleet.renewal_seat = Seat()


def failed(draft: Draft, child: Child, why: str) -> bool:
    """Whether `child`, which has not become ready, was to take the place of one that still serves; if so, say so."""
    fleet = draft.fleet
    worn = None if child.renews is None else fleet.children.get(child.renews)
    if worn is None or worn.phase is not Phase.READY:
        return False
    base_s = max(RENEWAL_RETRY_S, fleet.rules.recover_interval_s)
    streak = fleet.renewal_seat.streak + 1
    fleet.renewal_seat = draft.back_off(
        replace(fleet.renewal_seat, streak=streak), base_s, streak, LONGEST_RENEWAL_DELAY_S
    )
    delay_s = fleet.renewal_seat.not_before_s - draft.now_s
    draft.error(f"recycling {worn} failed: {why}; it serves on, next try in {delay_s:.1f} s")
    fail_recycle(draft, worn.serial, f"{why}; {worn} serves on, next try in {delay_s:.1f} s")
    return True


# -- age ----------------------------------------------------------------------------------------------


def wears_at_s(draft: Draft) -> float | None:
    """When a worker that becomes ready now is too old; None for never."""
    age_s = draft.fleet.rules.max_age_s
    return None if math.isinf(age_s) else draft.now_s + draft.shortened(age_s)


def come_of_age(draft: Draft) -> None:
    """Time has passed: those that are too old by now are worn."""
    for child in list(draft.fleet.children.values()):
        if child.wears_at_s is not None and child.wears_at_s <= draft.now_s and child.ready_at_s is not None:
            wear(draft, child, f"it has served for {draft.now_s - child.ready_at_s:.0f} s")


# -- memory -------------------------------------------------------------------------------------------


def watch_memory(draft: Draft) -> None:
    """Look at memory while somebody serves, and only if a bound is set."""
    fleet = draft.fleet
    is_served = any(child.phase is Phase.READY for child in fleet.children.values())
    if not (fleet.rules.watches_memory and is_served):
        fleet.memory_due_s = None
    elif fleet.memory_due_s is None:
        fleet.memory_due_s = draft.now_s + MEMORY_EVERY_S


def look_at_memory(draft: Draft) -> None:
    """Time has passed: have a look, if it is time for one."""
    if draft.fleet.memory_due_s is not None and draft.fleet.memory_due_s <= draft.now_s:
        draft.fleet.memory_due_s = None  # `watch_memory` says when next
        draft.commands.append(c.LookAtMemory())


def memory_seen(draft: Draft, event: e.MemorySeen) -> None:
    """Who has had too much for long enough is worn; if all together have, the largest is."""
    fleet, rules = draft.fleet, draft.fleet.rules
    serving = {serial: size for serial, size in event.children if _is_serving(fleet.children.get(serial))}
    bound = rules.max_memory_bytes
    if bound is not None:
        for serial, size in serving.items():
            child = fleet.children[serial]
            child = draft.put(child, heavy=child.heavy + 1 if size > bound else 0)
            if child.heavy >= HEAVY_SAMPLES:
                wear(draft, child, f"it has {size // _MIB} MiB, more than {bound // _MIB}")
    total = fleet.memory_bytes = sum(size for _, size in event.children) + event.others_bytes
    budget = rules.max_fleet_bytes
    if budget is None:
        return
    fleet.heavy = fleet.heavy + 1 if total > budget else 0
    if fleet.heavy >= HEAVY_SAMPLES and fleet.may_recycle and fleet.worn_child() is None:
        _wear_largest(draft, serving, f"the fleet has {total // _MIB} MiB, more than {budget // _MIB}")


def _wear_largest(draft: Draft, serving: dict[int, int], why: str) -> None:
    children = [draft.fleet.children[serial] for serial in serving]
    settled = [x for x in children if x.ready_at_s is not None and draft.now_s - x.ready_at_s >= SETTLED_S]
    if settled:
        largest = max(settled, key=lambda child: (serving[child.serial], -child.serial))
        draft.fleet.heavy = 0
        wear(draft, largest, f"{why}, and it is the largest ({serving[largest.serial] // _MIB} MiB)")


def _is_serving(child: Child | None) -> bool:
    return child is not None and child.phase is Phase.READY
