"""What the master decides: `decide(fleet, event, now_s)` gives the next fleet and the commands to carry out.

A pure function: no clock, no process, no socket, no log. It has two halves. Here, an event changes what is
known (a worker is ready, a deadline has passed, someone asks for a reload). In `reconcile`, what is known is
compared with what is wanted. Events about one worker go through `CHILD`, a table of phase and event in which
every pair has an answer, "nothing" included, so no message that comes late or twice is a surprise.

A crash is an exit that nobody asked for. It counts against `recover_threshold` within a sliding window, and
delays the next worker of that slot, unless the crashed one had settled: that one is replaced at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefork.errors import ApplicationError, OverRecoveryError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Command
from prefork.master.draft import Draft
from prefork.master.fleet import LIVE, Child, Fleet, Phase, Seat, Stopping, ZygotePhase
from prefork.master.reconcile import reconcile

SETTLED_S = 1.0
"""A worker that has been ready for this long did not die of its start."""
RETRY_S = 0.1
"""First delay before a failed fork is tried again; doubles."""


def decide(fleet: Fleet, event: e.Event, now_s: float) -> tuple[Fleet, tuple[Command, ...]]:
    """The next fleet, and the commands that lead there, in order.

    Args:
        fleet: what is known; not changed.
        event: what has happened.
        now_s: seconds of the monotonic clock.
    """
    draft = Draft(fleet.copy(), now_s)
    if isinstance(event, e.ChildEvent):
        _child_event(draft, event)
    else:
        EVENTS[type(event)](draft, event)
    reconcile(draft)
    return draft.fleet, tuple(draft.commands)


# -- one worker ---------------------------------------------------------------------------------------


def _child_event(draft: Draft, event: e.ChildEvent) -> None:
    """An event of one worker; a child that is no longer known has nothing left to say."""
    child = draft.fleet.children.get(event.child)
    if child is not None:
        CHILD[child.phase, type(event)](draft, child, event)


def _nothing(_draft: Draft, _child: Child, _event: e.ChildEvent) -> None:
    """An event that changes nothing in this phase: late, or seen already."""


def _spawned(draft: Draft, child: Child, event: e.ChildSpawned) -> None:
    due_s = draft.now_s + draft.fleet.rules.boot_timeout_s
    draft.put(child, phase=Phase.BOOTING, pid=event.pid, deadline_s=due_s)
    seat = draft.fleet.seat(child.slot)
    draft.fleet.seats[child.slot] = replace(seat, spawn_failures=0)
    draft.commands.append(c.CallSpawnHook(event.pid))
    if child.replaces is not None:
        draft.commands.append(c.CallRecoverHook(child.replaces, event.pid))


def _unspawned(draft: Draft, child: Child, event: e.SpawnFailed) -> None:
    draft.drop(child)
    if child.generation == draft.fleet.incoming:
        _abandon(draft, f"its first worker could not be spawned: {event.why}")
        return
    seat = draft.fleet.seat(child.slot)
    failures = seat.spawn_failures + 1
    seat = replace(seat, spawn_failures=failures, crashed_pid=child.replaces)
    draft.fleet.seats[child.slot] = draft.back_off(seat, RETRY_S, failures)
    draft.warn(f"worker {child.slot}: cannot be spawned, will be tried again: {event.why}")


def _ready(draft: Draft, child: Child, _event: e.ChildReady) -> None:
    fleet = draft.fleet
    child = draft.put(child, phase=Phase.READY, ready_at_s=draft.now_s, deadline_s=None)
    fleet.proven = True
    draft.info(f"{child} ready")
    if child.generation == fleet.incoming:
        fleet.generation, fleet.incoming = child.generation, None
        fleet.rolling = True
        fleet.zygote_seat = Seat()
        draft.info(f"reload: generation {child.generation} works, replacing the other workers")
        if fleet.reload_again:
            _begin_reload(draft)


def _failed(draft: Draft, child: Child, event: e.ChildFailed) -> None:
    draft.put(child, failure=event.failure)


def _died_in_boot(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    fleet = draft.fleet
    failure = child.failure or e.BootFailure(f"{event.status} before it was ready", is_final=False)
    draft.tell_failure(child.generation, failure, str(child))
    if fleet.stopping is not None:
        return
    if child.generation == fleet.incoming:
        _abandon(draft, failure.summary)
    elif failure.is_final and not fleet.proven:
        draft.stop(e.Stop.GRACEFUL, ApplicationError(failure.summary, failure.details))
    else:
        _crashed(draft, child)


def _died_in_service(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    assert child.ready_at_s is not None
    has_settled = draft.now_s - child.ready_at_s >= SETTLED_S
    if event.status.is_clean and has_settled:
        draft.info(f"{child} left by itself: {event.status}")
        return
    draft.error(f"{child} crashed: {event.status}" + ("" if has_settled else ", right after its start"))
    if has_settled:
        draft.fleet.seats[child.slot] = replace(draft.fleet.seat(child.slot), streak=0)
    _crashed(draft, child, delayed=not has_settled)


def _died_as_asked(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    if event.status.is_clean or child.phase is Phase.KILLED:
        draft.info(f"{child} stopped: {event.status}")
    else:
        draft.warn(f"{child} stopped: {event.status}")


def _died_hung(draft: Draft, child: Child, event: e.ChildExited) -> None:
    """A worker that was killed: because it hung in its boot, or at the end of its grace period."""
    if child.failure is not None:
        _died_in_boot(draft, child, event)
    else:
        _died_as_asked(draft, child, event)


def _crashed(draft: Draft, child: Child, *, delayed: bool = True) -> None:
    """Count a crash, and say when the slot may be filled again."""
    fleet = draft.fleet
    _count_crash(draft)
    seat = replace(fleet.seat(child.slot), crashed_pid=child.pid)
    if delayed:
        seat = replace(seat, streak=seat.streak + 1)
        seat = draft.back_off(seat, fleet.rules.recover_interval_s, seat.streak)
        if fleet.stopping is None and seat.not_before_s > draft.now_s:
            draft.warn(f"worker {child.slot}: next start in {seat.not_before_s - draft.now_s:.2f} s")
    fleet.seats[child.slot] = seat


def _count_crash(draft: Draft) -> None:
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


_ROWS: dict[Phase, tuple[Callable[..., None], ...]] = {
    #                 ChildSpawned SpawnFailed  ChildReady ChildFailed ChildExited
    Phase.SPAWNING: (_spawned, _unspawned, _nothing, _nothing, _nothing),
    Phase.BOOTING: (_nothing, _nothing, _ready, _failed, _died_in_boot),
    Phase.READY: (_nothing, _nothing, _nothing, _nothing, _died_in_service),
    Phase.STEERED: (_nothing, _nothing, _nothing, _nothing, _died_as_asked),
    Phase.DRAINING: (_nothing, _nothing, _nothing, _nothing, _died_as_asked),
    Phase.ABORTED: (_nothing, _nothing, _nothing, _nothing, _died_hung),
    Phase.KILLED: (_nothing, _nothing, _nothing, _nothing, _died_hung),
}
CHILD_EVENTS = (e.ChildSpawned, e.SpawnFailed, e.ChildReady, e.ChildFailed, e.ChildExited)
CHILD: dict[tuple[Phase, type], Callable[..., None]] = {
    (phase, event): handler
    for phase, row in _ROWS.items()
    for event, handler in zip(CHILD_EVENTS, row, strict=True)
}


# -- a zygote -----------------------------------------------------------------------------------------


def _zygote_ready(draft: Draft, event: e.ZygoteReady) -> None:
    zygote = draft.fleet.zygotes.get(event.generation)
    if zygote is not None and zygote.phase is ZygotePhase.STARTING:
        draft.put_zygote(zygote, ZygotePhase.READY, None)
        if event.generation == draft.fleet.generation:
            draft.fleet.zygote_seat = Seat()


def _zygote_failed(draft: Draft, event: e.ZygoteFailed) -> None:
    zygote = draft.fleet.zygotes.get(event.generation)
    if zygote is not None:
        draft.fleet.zygotes[event.generation] = replace(zygote, failure=event.failure)


def _zygote_unstarted(draft: Draft, event: e.ZygoteUnstarted) -> None:
    draft.fleet.zygotes.pop(event.generation, None)
    draft.warn(f"zygote of generation {event.generation}: cannot be started: {event.why}")
    if event.generation == draft.fleet.incoming:
        _abandon(draft, event.why)
    else:
        _delay_zygote(draft, RETRY_S)


def _zygote_exited(draft: Draft, event: e.ZygoteExited) -> None:
    fleet = draft.fleet
    zygote = fleet.zygotes.pop(event.generation, None)
    if zygote is None:
        return
    for child in list(fleet.of_generation(event.generation)):
        if child.phase is Phase.SPAWNING:
            draft.drop(child)
            draft.commands.append(c.Forget(child.serial))
            fleet.seats[child.slot] = replace(fleet.seat(child.slot), crashed_pid=child.replaces)
    is_needed = event.generation in (fleet.generation, fleet.incoming)
    if fleet.stopping is not None or zygote.phase is ZygotePhase.RETIRING or not is_needed:
        return
    failure = zygote.failure
    if failure is None and zygote.phase is ZygotePhase.STARTING:
        failure = e.BootFailure(f"{event.status} while the application was loaded")
    who = f"zygote of generation {event.generation}"
    if failure is None:
        draft.error(f"{who} crashed: {event.status}")
    else:
        draft.tell_failure(event.generation, failure, who)
    if event.generation == fleet.incoming:
        _abandon(draft, failure.summary if failure else str(event.status))
    elif failure is not None and not any(x.phase in LIVE for x in fleet.children.values()):
        # Nobody serves and the application cannot be loaded: a start that failed, late or early.
        draft.stop(e.Stop.GRACEFUL, ApplicationError(failure.summary, failure.details))
    else:
        _count_crash(draft)
        _delay_zygote(draft, fleet.rules.recover_interval_s)


def _delay_zygote(draft: Draft, base_s: float) -> None:
    seat = draft.fleet.zygote_seat
    seat = replace(seat, streak=seat.streak + 1)
    draft.fleet.zygote_seat = draft.back_off(seat, base_s, seat.streak)


# -- time ---------------------------------------------------------------------------------------------


def _deadline(draft: Draft, _event: e.DeadlinePassed) -> None:
    fleet, now_s = draft.fleet, draft.now_s
    for child in list(fleet.children.values()):
        if child.deadline_s is not None and child.deadline_s <= now_s:
            _child_due(draft, child)
    for zygote in list(fleet.zygotes.values()):
        if zygote.deadline_s is None or zygote.deadline_s > now_s:
            continue
        if zygote.phase is ZygotePhase.STARTING:
            failure = e.BootFailure(f"the application was not loaded within {fleet.rules.boot_timeout_s:g} s")
            draft.error(f"zygote of generation {zygote.generation}: {failure.summary}: its stacks follow")
            draft.abort_zygote(replace(zygote, failure=failure))
        else:
            draft.kill_zygote(zygote)
    if fleet.upgrade_deadline_s is not None and fleet.upgrade_deadline_s <= now_s:
        fleet.upgrade_deadline_s = None
        draft.commands.append(c.KillUpgrade())
        draft.error("upgrade failed: the new master was not ready in time; this one serves on")


def _child_due(draft: Draft, child: Child) -> None:
    fleet = draft.fleet
    if child.phase is Phase.SPAWNING:
        draft.put(child, deadline_s=None)
        zygote = fleet.zygotes.get(child.generation)
        if zygote is not None and zygote.phase is not ZygotePhase.KILLED:
            draft.error(f"zygote of generation {child.generation} does not answer: killing it")
            draft.kill_zygote(zygote)
    elif child.phase is Phase.BOOTING:
        failure = e.BootFailure(f"not ready within {fleet.rules.boot_timeout_s:g} s of its start")
        draft.error(f"{child}: {failure.summary}: its stacks follow")
        draft.abort(child, failure)
    elif child.phase is Phase.STEERED:
        draft.drain(child)
    else:
        if child.phase is Phase.DRAINING and not child.is_hurried:
            draft.warn(f"{child} did not finish within {fleet.rules.grace_s:g} s: killing it")
        draft.kill(child)


# -- what people ask for ------------------------------------------------------------------------------


def _stop_asked(draft: Draft, event: e.StopAsked) -> None:
    was = draft.fleet.stopping
    if was is None or event.how > was.how:
        draft.info(f"stopping ({event.how.name.lower()}): {event.why}")
    draft.stop(event.how)


def _broken(draft: Draft, event: e.Broken) -> None:
    if draft.fleet.stopping is None or draft.fleet.stopping.error is None:
        draft.error(f"{event.error}: killing all workers")
    draft.stop(e.Stop.KILL, event.error)


def _reload_asked(draft: Draft, _event: e.ReloadAsked) -> None:
    fleet = draft.fleet
    if fleet.stopping is not None:
        draft.info("reload ignored: stopping")
        return
    if fleet.resting:
        fleet.resting, fleet.wanted = False, fleet.configured
    if fleet.incoming is not None:
        fleet.reload_again = True
        draft.info("reload: one is under way; another follows it")
        return
    _begin_reload(draft)


def _begin_reload(draft: Draft) -> None:
    fleet = draft.fleet
    fleet.reload_again = False
    fleet.last_generation += 1
    fleet.incoming = fleet.last_generation
    draft.info(f"reload: starting generation {fleet.incoming}")
    draft.commands.append(c.Announce("reloading", f"loading generation {fleet.incoming}"))


def _abandon(draft: Draft, why: str) -> None:
    """The incoming generation does not work: the old one serves on, and says so."""
    fleet = draft.fleet
    draft.error(f"reload failed: {why}; generation {fleet.generation} serves on")
    draft.commands.append(c.Announce("ready", f"reload failed, generation {fleet.generation} serves on"))
    fleet.incoming = None
    if fleet.reload_again and fleet.stopping is None:
        _begin_reload(draft)


def _scale_asked(draft: Draft, event: e.ScaleAsked) -> None:
    fleet = draft.fleet
    if fleet.stopping is not None:
        return
    base = 0 if fleet.resting else fleet.wanted
    fleet.resting = False
    fleet.wanted = max(1, base + event.delta)
    draft.info(f"scale: {fleet.wanted} workers wanted")


def _rest_asked(draft: Draft, _event: e.RestAsked) -> None:
    if draft.fleet.stopping is None:
        draft.fleet.resting = True
        draft.info("resting: workers stop, sockets stay open; HUP brings all back, TTIN one")


def _reopen_asked(draft: Draft, _event: e.ReopenAsked) -> None:
    live = tuple(x.serial for x in draft.fleet.children.values() if x.phase is Phase.READY)
    draft.commands.append(c.ReopenLogs(live))


def _upgrade_asked(draft: Draft, _event: e.UpgradeAsked) -> None:
    fleet = draft.fleet
    if fleet.stopping is not None or fleet.upgrade_deadline_s is not None:
        draft.warn("upgrade ignored: " + ("stopping" if fleet.stopping else "one is under way"))
        return
    # The new master has a whole start before it: its zygote's and its workers' boot.
    fleet.upgrade_deadline_s = draft.now_s + 2 * fleet.rules.boot_timeout_s
    draft.info("upgrade: starting the new master")
    draft.commands.append(c.StartUpgrade())


def _upgrade_ready(draft: Draft, _event: e.UpgradeReady) -> None:
    fleet = draft.fleet
    fleet.upgrade_deadline_s = None
    if fleet.stopping is None:
        draft.info("upgrade: the new master serves; this one drains and leaves")
        # Not `draft.stop`: the service goes on, so the service manager is not told of a stop.
        fleet.stopping = Stopping(e.Stop.GRACEFUL)
        fleet.replaced = True


def _upgrade_lost(draft: Draft, event: e.UpgradeLost) -> None:
    if draft.fleet.upgrade_deadline_s is not None:
        draft.fleet.upgrade_deadline_s = None
        draft.error(f"upgrade failed: {event.why}; this master serves on")


def _started(draft: Draft, _event: e.Started) -> None:
    """`reconcile` does the rest."""


EVENTS: dict[type, Callable[..., None]] = {
    e.Started: _started,
    e.ZygoteReady: _zygote_ready,
    e.ZygoteFailed: _zygote_failed,
    e.ZygoteUnstarted: _zygote_unstarted,
    e.ZygoteExited: _zygote_exited,
    e.DeadlinePassed: _deadline,
    e.Broken: _broken,
    e.StopAsked: _stop_asked,
    e.ReloadAsked: _reload_asked,
    e.ScaleAsked: _scale_asked,
    e.RestAsked: _rest_asked,
    e.ReopenAsked: _reopen_asked,
    e.UpgradeAsked: _upgrade_asked,
    e.UpgradeReady: _upgrade_ready,
    e.UpgradeLost: _upgrade_lost,
}
