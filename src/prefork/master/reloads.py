"""How a reload begins, and how it is given up. That it goes on, slot by slot, is `reconcile`'s."""

from __future__ import annotations

from prefork.master import commands as c
from prefork.master.draft import Draft
from prefork.master.waits import fail_reload


def ask_reload(draft: Draft) -> None:
    """Somebody wants the application loaded anew: now, or when the reload that is under way is over."""
    fleet = draft.fleet
    if fleet.resting:
        fleet.resting, fleet.wanted = False, fleet.configured
    if fleet.incoming is not None:
        fleet.reload_again = True
        draft.info("reload: one is under way; another follows it")
        return
    begin_reload(draft)


def begin_reload(draft: Draft) -> None:
    """Try out the next generation, beside the current one."""
    fleet = draft.fleet
    fleet.reload_again = False
    fleet.last_generation += 1
    fleet.incoming = fleet.last_generation
    draft.info(f"reload: starting generation {fleet.incoming}")
    draft.commands.append(c.Announce("reloading", f"loading generation {fleet.incoming}"))


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
    fleet.incoming = None
    if fleet.reload_again and fleet.stopping is None:
        begin_reload(draft)
