"""Reload on change, as far as it is decided: a lookout is kept alive, and what it sees is a reload. Pure.

A first start that fails is no end here, as it is elsewhere: who edits code will mend it, and the edit is the next try.
"""

from __future__ import annotations

import math
from dataclasses import replace

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.draft import Draft
from prefork.master.fleet import Lookout, Seat
from prefork.master.reloads import ask_reload

RESTART_S = 1.0
"""First delay before a lookout that ended is started again; doubles."""
LONGEST_S = 60.0


def keep_lookout(draft: Draft) -> None:
    """Have one while the fleet is to go on, and none when it stops. A step of `reconcile`."""
    fleet = draft.fleet
    is_wanted = fleet.rules.watches_code and fleet.stopping is None
    if is_wanted and not fleet.lookout.is_running and fleet.lookout.not_before_s <= draft.now_s:
        fleet.lookout = replace(fleet.lookout, is_running=True)
        draft.commands.append(c.StartLookout())
    elif not is_wanted and fleet.lookout.is_running:
        fleet.lookout = Lookout()
        draft.commands.append(c.EndLookout())


def lookout_ready(draft: Draft, event: e.LookoutReady) -> None:
    """It sees changes from now on."""
    draft.fleet.lookout = replace(draft.fleet.lookout, streak=0)
    draft.info(f"reload on change: watching {event.what}")


def lookout_lost(draft: Draft, event: e.LookoutLost) -> None:
    """It ended, which nobody asked for: another one, after a while."""
    fleet = draft.fleet
    if not fleet.lookout.is_running:
        return
    draft.commands.append(c.EndLookout())
    streak = fleet.lookout.streak + 1
    delay_s = draft.delay_s(RESTART_S, streak, LONGEST_S)
    fleet.lookout = Lookout(streak=streak, not_before_s=draft.now_s + delay_s)
    if fleet.stopping is None:
        draft.error(f"reload on change: nobody watches, {event.why}; next try in {delay_s:.0f} s")


def code_changed(draft: Draft, event: e.CodeChanged) -> None:
    """Somebody has edited the code: as if a reload had been asked for, but never out of a rest."""
    fleet = draft.fleet
    if fleet.stopping is not None or fleet.resting:
        return
    draft.info(f"changed: {event.what}")
    ask_reload(draft)


def await_edit(draft: Draft) -> bool:
    """The application cannot be started, and nobody serves: whether an edit is waited for, in place of the end."""
    fleet = draft.fleet
    if not fleet.rules.watches_code:
        return False
    if fleet.zygote_seat.not_before_s < math.inf:
        draft.info("nothing serves: waiting for an edit that mends it")
    fleet.zygote_seat = Seat(not_before_s=math.inf)
    for slot in range(fleet.wanted):
        fleet.seats[slot] = replace(fleet.seat(slot), not_before_s=math.inf)
    return True


def await_edit_no_more(draft: Draft) -> None:
    """A worker is ready: it was not the code, or that has been mended. Who waits for an edit is tried again."""
    fleet = draft.fleet
    if fleet.zygote_seat.not_before_s == math.inf:
        fleet.zygote_seat = Seat()
    for slot, seat in fleet.seats.items():
        if seat.not_before_s == math.inf:
            fleet.seats[slot] = replace(seat, not_before_s=-math.inf)
