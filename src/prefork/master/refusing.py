"""What the plan does about requests that kill workers: it says who was at work, and has workers refuse who is to blame.

Not here: who that is (`refusals`); what is left of a worker (`recorder`).
"""

from __future__ import annotations

from typing import Final

from prefork.master import commands as c
from prefork.master.draft import Draft
from prefork.master.fleet import Child
from prefork.master.refusals import FORGOTTEN_S, Refusals, after_death, expired, readable
from prefork.recorder import LastWords

_MOST_TOLD: Final = 5
"""Requests that one line of the log tells of."""


def while_what(words: LastWords) -> str:
    """What a worker was at when it died, to be put behind what it died of."""
    if words.running:
        return f", while it ran {_told(words.running)}"
    if words.waiting:
        return f", while {_told(words.waiting)} waited"
    return ""


def died(draft: Draft, child: Child, words: LastWords, *, has_hung: bool = False) -> None:
    """A worker has died of itself, or because it hung: hold it against whoever it is to be put down to."""
    fleet = draft.fleet
    most = fleet.rules.refuse_after_kills
    if not most or child.generation != fleet.generation:
        return
    before = fleet.refusals
    fleet.refusals, refusal = after_death(before, words, most, draft.now_s, has_hung=has_hung)
    if refusal is not None:
        draft.error(
            f"refused from now on: {readable(refusal.name)}, which has killed {refusal.killed}; for {FORGOTTEN_S / 60:.0f} min, "
            "or until a reload"
        )
    if fleet.refusals != before or words.ended:
        _publish(draft)


def forget(draft: Draft) -> int:
    """Other code, or somebody's word: nothing is held against anybody. Says how many refusals that lifts."""
    fleet = draft.fleet
    before, fleet.refusals = fleet.refusals, Refusals()
    if before != fleet.refusals:
        _publish(draft)
    for each in before.refused:
        draft.info(f"refused no longer: {readable(each.name)}")
    return len(before.refused)


def expire(draft: Draft) -> None:
    """Time is over for some of it, perhaps."""
    fleet = draft.fleet
    if fleet.refusals.due_s > draft.now_s:
        return
    fleet.refusals, lifted = expired(fleet.refusals, fleet.rules.refuse_after_kills, draft.now_s)
    for each in lifted:
        draft.info(f"refused no longer, on trial: {readable(each.name)}")
    _publish(draft)


def _told(names: tuple[bytes, ...]) -> str:
    more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    return ", ".join(readable(name) for name in names[:_MOST_TOLD]) + more


def _publish(draft: Draft) -> None:
    draft.commands.append(c.ListSuspects(draft.fleet.refusals.listed()))
