"""What goes into the chronicle: read off the fleet before and after a decision, like `waits`. Pure.

No handler has to remember to write it down, and what an interrupted reload and two crashes lead to at once is told as what
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from prefork.master import events as e
from prefork.master.chronicle import CAUSES, KEPT, Chronicle, Happening
from prefork.master.fleet import Child, Fleet, Phase
from prefork.master.refusals import shown


def continued(before: Fleet, event: e.Event, after: Fleet, now_s: float) -> Chronicle:
    """The chronicle with what this decision adds to it."""
    chronicle = after.chronicle
    causes = list(_causes(before, event, after))
    if causes:
        replaced = tuple(n + causes.count(cause) for cause, n in chronicle.counts().items())
        chronicle = replace(chronicle, replaced=replaced)
    found = list(_happenings(before, event, after))
    if found:
        number = chronicle.happenings[-1].number if chronicle.happenings else 0
        new = [Happening(number + i, now_s, kind, text) for i, (kind, text) in enumerate(found, 1)]
        chronicle = replace(chronicle, happenings=(*chronicle.happenings, *new)[-KEPT:])
    return chronicle


def _causes(before: Fleet, event: e.Event, after: Fleet) -> Iterator[str]:
    """Why workers are replaced by this decision. Those that crash are counted as they do, the others with their successor."""
    if isinstance(event, e.ChildExited) and event.child in before.children and before.stopping is None:
        kind = _end(before.children[event.child], event.status)[0]
        if kind in CAUSES:
            yield kind
    for serial in after.children.keys() - before.children.keys():
        child = after.children[serial]
        if child.renews is not None:
            yield "recycle"
        elif after.incoming == child.generation or (after.rolling and child.replaces is None):
            yield "reload"


def _happenings(before: Fleet, event: e.Event, after: Fleet) -> Iterator[tuple[str, str]]:
    if isinstance(event, e.ChildExited) and event.child in before.children:
        kind, text = _end(before.children[event.child], event.status)
        if kind and before.stopping is None:
            yield kind, text
    if isinstance(event, e.AdminExited) and before.stopping is None:
        yield "admin", f"the admin process ended: {event.status}"
    for refusal in after.refusals.refused:
        if refusal not in before.refusals.refused:
            yield "refused", f"{shown(refusal.name)} is refused: it has killed {refusal.killed}"
    yield from _reload(before, after)
    for serial in after.children.keys() - before.children.keys():
        worn = before.children.get(after.children[serial].renews or 0)
        if worn is not None:
            yield "recycle", f"{worn} is recycled: {after.children[worn.serial].worn}"
    if after.all_ready and not before.all_ready:
        yield "start", f"{after.wanted} workers serve"
    if after.wanted != before.wanted:
        yield "scale", f"{before.wanted} → {after.wanted} workers"
    if after.resting and not before.resting:
        yield "rest", "the workers rest"
    if isinstance(event, e.UpgradeReady) and after.stopping is not None and before.stopping is None:
        yield "upgrade", "a new master serves"
    elif after.stopping is not None and before.stopping is None:
        yield (
            "stop",
            "the fleet stops" + ("" if after.stopping.error is None else f": {after.stopping.error}"),
        )


def _reload(before: Fleet, after: Fleet) -> Iterator[tuple[str, str]]:
    tried = before.incoming
    if tried is not None and tried not in (after.incoming, after.generation):
        yield "failed", f"reload failed, generation {after.generation} serves on"
    if before.rolling and not after.rolling and after.stopping is None:
        yield "reload", f"generation {after.generation} serves"
    if after.incoming is not None and after.incoming != tried:
        yield "reload", f"generation {after.incoming} is loaded"


def _end(child: Child, status: e.ExitStatus) -> tuple[str, str]:
    """What it was that ended, and how; ("", "") where it was told to."""
    if child.is_hung or child.is_stuck:
        return "hung", f"{child} hung and was killed: {child.failure.summary if child.failure else status}"
    if child.phase in (Phase.SPAWNING, Phase.BOOTING):
        why = child.failure.summary if child.failure else str(status)
        return "crash", f"{child} did not start: {why}"
    if child.phase in (Phase.READY, Phase.STEERED):
        if status.is_clean:
            return "left", f"{child} left by itself"
        return "crash", f"{child} crashed: {status}"
    return "", ""
