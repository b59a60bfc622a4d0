"""A canary reload, as the plan does it: some workers of the incoming generation serve beside the old ones, none of which leaves.

When all of them are ready the time begins, and once a second what both have served is compared (`canary`). Worse: the incoming
generation is abandoned, and its workers are drained where an old one serves in their slot. Not worse: the reload goes on as any other.
A worker of it that crashes, or hangs, ends the trial at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from prefork.master import events as e
from prefork.master.canary import Served, judge
from prefork.master.draft import Draft
from prefork.master.fleet import Canary, Fleet, Phase
from prefork.master.pulse import Pulse
from prefork.master.reloads import abandon, promote

_Counts = tuple[tuple[int, ...], tuple[int, ...]]


def canary_of(wanted: int, share: float, for_s: float) -> Canary:
    """A canary of that share of the workers, one at least."""
    return Canary(min(wanted, max(1, math.ceil(wanted * share - 1e-9))), for_s)


def slots_of(fleet: Fleet) -> range:
    """The slots in which the incoming generation has a worker, too."""
    return range(1 if fleet.canary is None else min(fleet.canary.slots, fleet.wanted))


def watch(draft: Draft) -> None:
    """Begin the time when all are ready; begin anew behind a rest."""
    fleet = draft.fleet
    canary = fleet.canary
    if canary is None or fleet.incoming is None:
        return
    if fleet.resting:
        fleet.canary = replace(canary, until_s=None, base=None)
        return
    ready = {x.slot for x in fleet.of_generation(fleet.incoming) if x.phase is Phase.READY}
    if canary.until_s is None and ready >= set(slots_of(fleet)):
        fleet.canary = replace(canary, until_s=draft.now_s + canary.for_s)
        fleet.looked_at_s = draft.now_s
        count = f"{len(slots_of(fleet))} of {fleet.wanted}"
        draft.info(
            f"reload: generation {fleet.incoming} serves beside the old one as a canary ({count}) for {canary.for_s:g} s"
        )


def seen(draft: Draft, event: e.PulsesSeen) -> None:
    """A look has come: compare."""
    fleet = draft.fleet
    canary = fleet.canary
    if canary is None or canary.until_s is None or fleet.incoming is None or fleet.stopping is not None:
        return
    old = [x for x in event.pulses if _generation(fleet, x) == fleet.generation]
    new = [x for x in event.pulses if _generation(fleet, x) == fleet.incoming]
    if canary.base is None:
        canary = replace(canary, base=tuple((x.child, x.statuses, x.latencies) for x in old))
        fleet.canary = canary
    assert canary.base is not None
    base = {serial: (statuses, latencies) for serial, statuses, latencies in canary.base}
    is_over = canary.until_s is not None and canary.until_s <= draft.now_s
    verdict = judge(_served(old, base), _served(new, {}), is_over=is_over)
    if verdict.what == "roll back":
        abandon(draft, verdict.why)
    elif verdict.what == "go on":
        draft.info(f"reload: the canary has done as well as the old generation: {verdict.why}")
        promote(draft)


def _generation(fleet: Fleet, pulse: Pulse) -> int | None:
    child = fleet.children.get(pulse.child)
    return None if child is None else child.generation


def _served(pulses: Iterable[Pulse], base: dict[int, _Counts]) -> Served:
    statuses: tuple[int, ...] = ()
    latencies: tuple[int, ...] = ()
    for pulse in pulses:
        before = base.get(pulse.child, ((), ()))
        statuses = _plus(statuses, _minus(pulse.statuses, before[0]))
        latencies = _plus(latencies, _minus(pulse.latencies, before[1]))
    return Served(statuses, latencies)


def _plus(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one else other


def _minus(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(one, other, strict=True)) if other else one
