"""What is, brought one step nearer to what is wanted.

Runs after every event. It looks only at the fleet, never at the event, so there is one place that says
who is spawned and who is told to stop, and the rules are few:

1. While stopping, nothing is spawned; everything that lives is told to leave, as hard as was asked.
2. Each wanted slot has one live child of the current generation. A reload adds one live child of the
   incoming generation, in one slot, until that one is ready or has failed.
3. An older child is told to stop only when a newer one in its slot is ready.
4. A child in a slot that is not wanted is steered away from (reuseport), then drained; slots are closed from
   the last one down, each when nobody is left in it.
5. A worn child (too old, too large, or asked for) is told to stop when the one that was spawned beside it is ready. One
   at a time: the next one waits until this one is gone.
6. A zygote stays while a child of its generation lives: the two may share what the application made at
   import (a temporary directory, say), and the zygote's exit handlers would take it away.
"""

from __future__ import annotations

from dataclasses import replace

from prefork.master import commands as c
from prefork.master.admin import dismiss_admin, keep_admin, kill_admin
from prefork.master.draft import Draft
from prefork.master.events import Stop
from prefork.master.fleet import Child, Phase, ZygotePhase
from prefork.master.recycling import watch_memory
from prefork.master.waits import tell_end
from prefork.master.watching import keep_lookout


def reconcile(draft: Draft) -> None:
    """Append the commands that bring the fleet nearer to what is wanted. Pure but for `draft`."""
    if draft.fleet.finished:
        return
    keep_lookout(draft)
    if draft.fleet.stopping is not None:
        _wind_down(draft, draft.fleet.stopping.how)
        return
    keep_admin(draft)
    _start_zygotes(draft)
    _call_ready_hook(draft)
    _announce(draft)
    may_steer = draft.fleet.rules.reuseport and draft.fleet.all_ready and not draft.fleet.resting
    if may_steer:
        _steer(draft)
    _dismiss_unwanted(draft)
    _fill_slots(draft)
    _replace_older(draft)
    # Behind it: the end of a reload lets the next one be recycled, and no other event may come.
    _renew_worn(draft)
    if may_steer:
        _close_slots(draft)
    _retire_zygotes(draft)
    watch_memory(draft)


def _wind_down(draft: Draft, how: Stop) -> None:
    fleet = draft.fleet
    for child in list(fleet.children.values()):
        _dismiss(draft, child, how)
    for zygote in list(fleet.zygotes.values()):
        if zygote.phase is ZygotePhase.STARTING:
            draft.kill_zygote(zygote)
        elif zygote.phase is ZygotePhase.READY and (
            how > Stop.GRACEFUL or not any(fleet.of_generation(zygote.generation))
        ):
            # Never killed: in the middle of a fork it would leave a process that nobody knows the pid of.
            draft.retire_zygote(zygote)
    if fleet.upgrade_deadline_s is not None:
        fleet.upgrade_deadline_s = None
        draft.commands.append(c.KillUpgrade())
    if how is Stop.KILL:
        kill_admin(draft)
    elif not fleet.children and not fleet.zygotes:
        dismiss_admin(draft)
    if not fleet.children and not fleet.zygotes and fleet.admin is None:
        fleet.finished = True
        assert fleet.stopping is not None
        tell_end(draft)
        draft.commands.append(c.Finish(fleet.stopping.error))


def _dismiss(draft: Draft, child: Child, how: Stop) -> None:
    """Tell one child to leave as hard as `how` says, unless it has been told so already."""
    if child.phase in (Phase.SPAWNING, Phase.KILLED):
        return
    if how is Stop.KILL:
        draft.kill(child)
    elif how is Stop.FAST:
        if child.phase in (Phase.BOOTING, Phase.ABORTED):
            draft.kill(child)
        elif not child.is_hurried:
            draft.quit(child)
    elif child.phase in (Phase.BOOTING, Phase.READY, Phase.STEERED):
        draft.drain(child)


def _start_zygotes(draft: Draft) -> None:
    fleet = draft.fleet
    if not fleet.rules.uses_zygote:
        return
    if fleet.generation not in fleet.zygotes and fleet.zygote_seat.not_before_s <= draft.now_s:
        draft.start_zygote(fleet.generation)
    if fleet.incoming is not None and fleet.incoming not in fleet.zygotes:
        draft.start_zygote(fleet.incoming)


def _can_fork(draft: Draft, generation: int) -> bool:
    if not draft.fleet.rules.uses_zygote:
        return True
    zygote = draft.fleet.zygotes.get(generation)
    return zygote is not None and zygote.phase is ZygotePhase.READY


def _dismiss_unwanted(draft: Draft) -> None:
    fleet = draft.fleet
    for child in list(fleet.children.values()):
        is_stale = child.generation not in (fleet.generation, fleet.incoming) and child.phase is Phase.BOOTING
        if child.slot < fleet.wanted and not fleet.resting and not is_stale:
            continue
        if child.phase is Phase.READY and fleet.rules.reuseport and not fleet.resting:
            if child.slot >= fleet.steered:
                draft.steer_away(child)
        elif (
            child.phase is Phase.BOOTING
            and fleet.seat(child.slot).has_queue
            and not fleet.resting
            and not is_stale
        ):
            continue
        elif child.phase in (Phase.BOOTING, Phase.READY):
            draft.drain(child)


def _fill_slots(draft: Draft) -> None:
    fleet = draft.fleet
    if fleet.resting:
        return
    for slot in range(fleet.wanted):
        if fleet.seat(slot).not_before_s <= draft.now_s:
            _fill(draft, slot, fleet.generation)
    for slot in list(fleet.deserted_slots()):
        if fleet.seat(slot).not_before_s <= draft.now_s:
            _fill(draft, slot, fleet.generation)
    if fleet.incoming is not None:
        _fill(draft, 0, fleet.incoming)


def _fill(draft: Draft, slot: int, generation: int) -> None:
    taken = any(x.holds_slot and x.generation == generation for x in draft.fleet.in_slot(slot))
    if not taken and _can_fork(draft, generation):
        draft.spawn(slot, generation)


def _renew_worn(draft: Draft) -> None:
    fleet = draft.fleet
    if fleet.resting or not fleet.may_recycle or fleet.renewal_seat.not_before_s > draft.now_s:
        return
    worn = fleet.worn_child()
    if worn is not None and _can_fork(draft, worn.generation):
        draft.info(f"recycling {worn}")
        draft.spawn(worn.slot, worn.generation, renews=worn.serial)


def _replace_older(draft: Draft) -> None:
    fleet = draft.fleet
    succeeded = {x.renews for x in fleet.children.values() if x.phase is Phase.READY}
    renewed = {x.slot for x in fleet.of_generation(fleet.generation) if x.phase is Phase.READY}
    for child in list(fleet.children.values()):
        is_older = child.generation < fleet.generation and child.phase is Phase.READY
        is_succeeded = child.serial in succeeded and child.phase is Phase.READY
        if (is_older and child.slot in renewed) or is_succeeded:
            draft.drain(child)
    renewed = {slot for slot in renewed if slot < fleet.wanted}
    is_mixed = any(x.generation != fleet.generation for x in fleet.children.values())
    if fleet.rolling and not is_mixed and len(renewed) >= fleet.wanted:
        _end_reload(draft)


def _end_reload(draft: Draft) -> None:
    fleet = draft.fleet
    fleet.rolling = False
    draft.info(f"reload done: generation {fleet.generation} serves")
    draft.commands.append(c.Announce("ready", f"serving, generation {fleet.generation}"))


def _steer(draft: Draft) -> None:
    """New connections go to the slots that have, or have had, a worker that accepts."""
    fleet = draft.fleet
    ready = {x.slot for x in fleet.children.values() if x.phase is Phase.READY}
    count = min(fleet.steered, fleet.wanted)
    while count < fleet.wanted and count in ready:
        count += 1
    if count != fleet.steered:
        for slot in range(count, fleet.steered):
            fleet.seats[slot] = replace(fleet.seat(slot), has_queue=True)
        fleet.steered = count
        draft.commands.append(c.Steer(count))


def _close_slots(draft: Draft) -> None:
    fleet = draft.fleet
    while fleet.slots_open > max(1, fleet.wanted):
        last = fleet.slots_open - 1
        if last < fleet.steered or any(fleet.in_slot(last)) or fleet.seat(last).has_queue:
            break
        fleet.seats.pop(last, None)  # opened again, it starts afresh: slots are opened in order
        fleet.slots_open -= 1
        draft.commands.append(c.CloseSlot(fleet.slots_open))


def _retire_zygotes(draft: Draft) -> None:
    fleet = draft.fleet
    for zygote in list(fleet.zygotes.values()):
        if zygote.generation in (fleet.generation, fleet.incoming) or any(
            fleet.of_generation(zygote.generation)
        ):
            continue
        if zygote.phase is ZygotePhase.STARTING:
            draft.kill_zygote(zygote)
        elif zygote.phase is ZygotePhase.READY:
            draft.retire_zygote(zygote)


def _call_ready_hook(draft: Draft) -> None:
    fleet = draft.fleet
    if fleet.announced:
        return
    spawned = {x.slot: x.pid for x in fleet.children.values() if x.pid is not None}
    pids = tuple(pid for slot, pid in sorted(spawned.items()) if slot < fleet.wanted)
    if len(pids) >= fleet.wanted:
        fleet.announced = True
        draft.commands.append(c.CallReadyHook(pids))


def _announce(draft: Draft) -> None:
    fleet = draft.fleet
    if not fleet.all_ready and fleet.ready_slots() >= fleet.wanted and not fleet.resting:
        fleet.all_ready = True
        count = f"{fleet.wanted} worker{'s' if fleet.wanted > 1 else ''}"
        draft.info(f"ready: {count}")
        draft.commands.append(c.Announce("ready", f"serving with {count}"))
