"""Crashes: counted in a sliding window against the threshold, and answered with growing delays.

A crash is an exit that nobody asked for. A failed fork is none: it is tried again, as often as it takes.
"""

from __future__ import annotations

import math
from dataclasses import replace

from prefork.errors import OverRecoveryError
from prefork.master import events as e
from prefork.master.draft import MAX_DELAY_S, Draft
from prefork.master.fleet import LIVE, Child

RETRY_S = 0.1
"""First delay before a failed fork is tried again; doubles."""
ZYGOTE_DELAY_S = 60.0
"""Longest back-off before a zygote is tried again: workers serve meanwhile, and an import is not cheap."""


def crashed(draft: Draft, child: Child, *, delayed: bool = True) -> None:
    """Count a crash, and say when the slot may be filled again."""
    fleet = draft.fleet
    count_crash(draft)
    seat = replace(fleet.seat(child.slot), crashed_pid=child.pid)
    if delayed:
        seat = replace(seat, streak=seat.streak + 1)
        seat = draft.back_off(seat, fleet.rules.recover_interval_s, seat.streak)
        if fleet.stopping is None and seat.not_before_s > draft.now_s:
            draft.warn(f"worker {child.slot}: next start in {seat.not_before_s - draft.now_s:.2f} s")
    fleet.seats[child.slot] = seat
    waiting = fleet.zygote_seat
    if not _is_served(draft) and draft.now_s + MAX_DELAY_S < waiting.not_before_s < math.inf:
        fleet.zygote_seat = replace(waiting, not_before_s=draft.now_s + MAX_DELAY_S)  # it is missed now


def count_crash(draft: Draft) -> None:
    """Count one crash of this moment; more than the threshold within the window end the fleet."""
    fleet, rules = draft.fleet, draft.fleet.rules
    since_s = draft.now_s - rules.recover_window_s
    fleet.crashes_s = (*(at for at in fleet.crashes_s if at > since_s), draft.now_s)
    if len(fleet.crashes_s) > rules.recover_threshold and fleet.stopping is None:
        text = (
            f"{len(fleet.crashes_s)} crashes within {rules.recover_window_s:g} s exceed "
            f"the recover threshold of {rules.recover_threshold:g}: giving up"
        )
        draft.error(text)
        draft.stop(e.Stop.GRACEFUL, OverRecoveryError(text))


def delay_zygote(draft: Draft, base_s: float) -> None:
    """Say when the current generation's zygote may be started again."""
    seat = draft.fleet.zygote_seat
    seat = replace(seat, streak=seat.streak + 1)
    most_s = ZYGOTE_DELAY_S if _is_served(draft) else MAX_DELAY_S
    draft.fleet.zygote_seat = draft.back_off(seat, base_s, seat.streak, most_s)


def _is_served(draft: Draft) -> bool:
    return any(x.phase in LIVE for x in draft.fleet.children.values())
