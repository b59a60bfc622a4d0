"""What the master decides: `decide(fleet, event, now_s)` gives the next fleet and the commands to carry out.

A pure function: no clock, no process, no socket, no log. It has two halves. First an event changes what is known (a
worker is ready, a deadline has passed, someone asks for a reload): here, in `children` and in `zygotes`. Then
`reconcile` compares what is known with what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import hangs, looks, recycling, refusing
from prefork.master.admin import (
    admin_due,
    admin_exited,
    admin_failed,
    admin_ready,
    admin_unstarted,
    dismiss_admin,
)
from prefork.master.children import child_event
from prefork.master.commands import Command
from prefork.master.draft import Draft
from prefork.master.fleet import Child, Fleet, Phase, Stopping, ZygotePhase
from prefork.master.happenings import continued
from prefork.master.reconcile import reconcile
from prefork.master.reloads import ask_reload
from prefork.master.requests import asked, client_left, stacks_seen
from prefork.master.waits import answer_waits, end_upgrade, give_stacks_up
from prefork.master.watching import code_changed, lookout_lost, lookout_ready
from prefork.master.zygotes import zygote_exited, zygote_failed, zygote_ready, zygote_unstarted


def decide(fleet: Fleet, event: e.Event, now_s: float) -> tuple[Fleet, tuple[Command, ...]]:
    """The next fleet, and the commands that lead there, in order.

    Args:
        fleet: what is known; not changed.
        event: what has happened.
        now_s: seconds of the monotonic clock.
    """
    draft = Draft(fleet.copy(), now_s)
    if isinstance(event, e.ChildEvent):
        child_event(draft, event)
    else:
        EVENTS[type(event)](draft, event)
    reconcile(draft)
    draft.fleet.chronicle = continued(fleet, event, draft.fleet, now_s)
    if not draft.fleet.finished:
        answer_waits(draft)
    return draft.fleet, tuple(draft.commands)


# -- time ---------------------------------------------------------------------------------------------


def _deadline(draft: Draft, _event: e.DeadlinePassed) -> None:
    fleet, now_s = draft.fleet, draft.now_s
    for child in list(fleet.children.values()):
        if child.deadline_s is not None and child.deadline_s <= now_s:
            _child_due(draft, child)
    for zygote in list(fleet.zygotes.values()):
        if zygote.deadline_s is None or zygote.deadline_s > now_s:
            continue
        if zygote.phase is ZygotePhase.STARTING and zygote.failure is None:
            failure = e.BootFailure(f"the application was not loaded within {fleet.rules.boot_timeout_s:g} s")
            draft.error(f"zygote of generation {zygote.generation}: {failure.summary}: its stacks follow")
            draft.abort_zygote(replace(zygote, failure=failure))
        else:
            draft.kill_zygote(zygote)
    if fleet.upgrade_deadline_s is not None and fleet.upgrade_deadline_s <= now_s:
        fleet.upgrade_deadline_s = None
        draft.commands.append(c.KillUpgrade())
        why = "the new master was not ready in time; this one serves on"
        draft.error(f"upgrade failed: {why}")
        end_upgrade(draft, control.Failed(f"upgrade failed: {why}"))
    looks.look(draft)
    recycling.come_of_age(draft)
    recycling.look_at_memory(draft)
    give_stacks_up(draft)
    refusing.expire(draft)
    admin_due(draft)


def _child_due(draft: Draft, child: Child) -> None:
    fleet = draft.fleet
    if child.phase is Phase.SPAWNING:
        draft.put(child, deadline_s=None)
        zygote = fleet.zygotes.get(child.generation)
        if zygote is not None and zygote.phase is not ZygotePhase.KILLED:
            draft.error(f"zygote of generation {child.generation} does not answer: killing it")
            draft.kill_zygote(zygote)
    elif child.phase is Phase.BOOTING and child.failure is not None:
        draft.kill(child)  # it has said why it cannot start, and does not leave
    elif child.phase is Phase.BOOTING:
        failure = e.BootFailure(f"not ready within {fleet.rules.boot_timeout_s:g} s of its start")
        draft.error(f"{child}: {failure.summary}: its stacks follow")
        draft.abort(child, failure)
    elif child.is_stuck and child.until_s is not None and draft.now_s < child.until_s:
        hangs.stacks_late(draft, child)
    elif child.phase is Phase.STEERED:
        if child.until_s is not None and draft.now_s >= child.until_s:
            draft.drain(
                child
            )  # hung, or too slow: the queue stays the slot's, and the slot gets another worker
        else:
            draft.look_at_queue(child)
    elif child.until_s is not None and draft.now_s < child.until_s:
        draft.drain_again(child)
    else:
        if child.phase is Phase.DRAINING and not child.is_hurried:
            draft.warn(f"{child} did not finish within {fleet.rules.grace_s:g} s: killing it")
        draft.kill(child)


# -- what people ask for ------------------------------------------------------------------------------


def _stop_asked(draft: Draft, event: e.StopAsked) -> None:
    draft.ask_stop(event.how, event.why)


def _broken(draft: Draft, event: e.Broken) -> None:
    if draft.fleet.stopping is None or draft.fleet.stopping.error is None:
        draft.error(f"{event.error}: killing all workers" if draft.fleet.children else str(event.error))
    draft.stop(e.Stop.KILL, event.error)


def _reload_asked(draft: Draft, _event: e.ReloadAsked) -> None:
    if draft.fleet.stopping is not None:
        draft.info("reload ignored: stopping")
        return
    ask_reload(draft)


def _scale_asked(draft: Draft, event: e.ScaleAsked) -> None:
    fleet = draft.fleet
    if fleet.stopping is not None or (fleet.resting and event.delta < 0):
        return
    base = 0 if fleet.resting else fleet.wanted
    fleet.resting = False
    fleet.wanted = max(1, base + event.delta)
    draft.info(f"scale: workers wanted: {fleet.wanted}")


def _rest_asked(draft: Draft, _event: e.RestAsked) -> None:
    if draft.fleet.stopping is None:
        draft.fleet.resting = True
        draft.info("resting: workers stop, sockets stay open; HUP brings all back, TTIN one")


def _reopen_asked(draft: Draft, _event: e.ReopenAsked) -> None:
    draft.commands.append(c.ReopenLogs(draft.fleet.listening_children()))


def _upgrade_asked(draft: Draft, _event: e.UpgradeAsked) -> None:
    fleet = draft.fleet
    if fleet.stopping is not None or fleet.upgrade_deadline_s is not None:
        draft.warn("upgrade ignored: " + ("stopping" if fleet.stopping else "one is under way"))
        return
    draft.begin_upgrade()


def _upgrade_ready(draft: Draft, _event: e.UpgradeReady) -> None:
    fleet = draft.fleet
    was_awaited, fleet.upgrade_deadline_s = fleet.upgrade_deadline_s is not None, None
    if was_awaited and fleet.stopping is None:
        draft.info("upgrade: the new master serves; this one drains and leaves")
        end_upgrade(draft, control.Done("the new master serves; the old one drains and leaves"))
        # Not `draft.stop`: the service goes on, so the service manager is not told of a stop.
        fleet.stopping = Stopping(e.Stop.GRACEFUL)
        dismiss_admin(draft)  # whoever asks is answered by the new one's from now on


def _upgrade_lost(draft: Draft, event: e.UpgradeLost) -> None:
    if draft.fleet.upgrade_deadline_s is not None:
        draft.fleet.upgrade_deadline_s = None
        draft.error(f"upgrade failed: {event.why}; this master serves on")
        end_upgrade(draft, control.Failed(f"upgrade failed: {event.why}; the old master serves on"))


def _started(draft: Draft, _event: e.Started) -> None:
    """`reconcile` does the rest."""


EVENTS: dict[type, Callable[..., None]] = {
    e.Started: _started,
    e.ZygoteReady: zygote_ready,
    e.ZygoteFailed: zygote_failed,
    e.ZygoteUnstarted: zygote_unstarted,
    e.ZygoteExited: zygote_exited,
    e.DeadlinePassed: _deadline,
    e.Broken: _broken,
    e.StopAsked: _stop_asked,
    e.ReloadAsked: _reload_asked,
    e.ScaleAsked: _scale_asked,
    e.RestAsked: _rest_asked,
    e.ReopenAsked: _reopen_asked,
    e.UpgradeAsked: _upgrade_asked,
    e.Asked: asked,
    e.ClientLeft: client_left,
    e.StacksSeen: stacks_seen,
    e.MemorySeen: recycling.memory_seen,
    e.PulsesSeen: looks.seen,
    e.UpgradeReady: _upgrade_ready,
    e.UpgradeLost: _upgrade_lost,
    e.LookoutReady: lookout_ready,
    e.LookoutLost: lookout_lost,
    e.CodeChanged: code_changed,
    e.AdminReady: admin_ready,
    e.AdminFailed: admin_failed,
    e.AdminUnstarted: admin_unstarted,
    e.AdminExited: admin_exited,
}
