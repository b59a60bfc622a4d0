"""How a reload begins, and how it is given up. That it goes on, slot by slot, is `reconcile`'s."""

from __future__ import annotations

import math
from dataclasses import replace

from prefork.master import commands as c
from prefork.master import refusing
from prefork.master.draft import Draft
from prefork.master.fleet import Canary, Seat
from prefork.master.waits import fail_reload


def ask_reload(draft: Draft, canary: Canary | None = None) -> None:
    """Somebody wants the application loaded anew: now, or when the reload that is under way is over."""
    fleet = draft.fleet
    if fleet.resting:
        fleet.resting, fleet.wanted = False, fleet.configured
    if fleet.incoming is not None:
        fleet.reload_again = True
        draft.info("reload: one is under way; another follows it")
        return
    begin_reload(draft, canary)


def begin_reload(draft: Draft, canary: Canary | None = None) -> None:
    """Try out the next generation, beside the current one."""
    fleet = draft.fleet
    fleet.reload_again = False
    fleet.canary = canary
    fleet.last_generation += 1
    fleet.incoming = fleet.last_generation
    draft.info(f"reload: starting generation {fleet.incoming}")
    draft.commands.append(c.Announce("reloading", f"loading generation {fleet.incoming}"))


def promote(draft: Draft) -> None:
    """The incoming generation works: it is the current one from now on, and replaces the others."""
    fleet = draft.fleet
    assert fleet.incoming is not None
    fleet.generation, fleet.incoming, fleet.canary = fleet.incoming, None, None
    fleet.rolling = True
    fleet.zygote_seat = Seat()
    # The back-off was earned by the old code.
    fleet.seats = {
        slot: replace(seat, streak=0, not_before_s=-math.inf) for slot, seat in fleet.seats.items()
    }
    draft.info(f"reload: generation {fleet.generation} works, replacing the other workers")
    refusing.forget(draft)
    if fleet.reload_again:
        begin_reload(draft)


def abandon(draft: Draft, why: str) -> None:
    """The incoming generation does not work: the old one serves on, and says so."""
    fleet = draft.fleet
    outcome = f"generation {fleet.generation} serves on" if fleet.proven else "nothing serves yet"
    draft.error(f"reload failed: {why}; {outcome}")
    if (
        fleet.all_ready
    ):  # a reload asked for in the first boot: nothing serves yet, and no old master may leave
        draft.commands.append(c.Announce("ready", f"reload failed, generation {fleet.generation} serves on"))
    fail_reload(draft, fleet.incoming, f"{why}; {outcome}")
    fleet.incoming = fleet.canary = None
    if fleet.reload_again and fleet.stopping is None:
        begin_reload(draft)
