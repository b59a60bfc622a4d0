"""What an event of one worker means: a table of phase and event in which every pair has an answer.

"Nothing" is an answer too, so no message that comes late or twice is a surprise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefork.errors import ApplicationError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import hangs, recycling, refusing
from prefork.master.crashes import RETRY_S, crashed
from prefork.master.draft import FAST_STOP_S, Draft
from prefork.master.fleet import Child, Phase
from prefork.master.reloads import abandon, promote
from prefork.master.watching import await_edit, await_edit_no_more

SETTLED_S = 0.5
"""A worker that has been ready for this long did not die of its start."""


def child_event(draft: Draft, event: e.ChildEvent) -> None:
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
    if draft.fleet.stopping is not None and draft.fleet.stopping.error is not None:
        return  # a hook has raised, or the fleet is given up: no more hooks (seed)
    draft.commands.append(c.CallSpawnHook(event.pid))
    if child.replaces is not None:
        draft.commands.append(c.CallRecoverHook(child.replaces, event.pid))


def _unspawned(draft: Draft, child: Child, event: e.SpawnFailed) -> None:
    draft.drop(child)
    fleet = draft.fleet
    if fleet.stopping is not None or child.generation not in (fleet.generation, fleet.incoming):
        return  # not needed any more
    if recycling.failed(draft, child, f"its successor cannot be spawned: {event.why}"):
        return
    if child.generation == draft.fleet.incoming:
        abandon(draft, f"its first worker could not be spawned: {event.why}")
        return
    seat = draft.fleet.seat(child.slot)
    failures = seat.spawn_failures + 1
    seat = replace(seat, spawn_failures=failures, crashed_pid=child.replaces or seat.crashed_pid)
    draft.fleet.seats[child.slot] = draft.back_off(seat, RETRY_S, failures)
    draft.warn(f"worker {child.slot}: cannot be spawned, will be tried again: {event.why}")


def _ready(draft: Draft, child: Child, _event: e.ChildReady) -> None:
    fleet = draft.fleet
    child = draft.put(
        child,
        phase=Phase.READY,
        ready_at_s=draft.now_s,
        deadline_s=None,
        wears_at_s=recycling.wears_at_s(draft),
    )
    fleet.proven = True
    await_edit_no_more(draft)
    fleet.seats[child.slot] = replace(fleet.seat(child.slot), crashed_pid=None)
    draft.info(f"{child} ready")
    if child.renews is not None:
        recycling.succeeded(draft)
    if child.generation == fleet.incoming and fleet.canary is None:
        promote(draft)


def _ready_late(draft: Draft, child: Child, _event: e.ChildReady) -> None:
    """It was told to leave in the moment when it began to accept: what it has taken up has the whole grace."""
    if not child.is_hurried:
        until_s = draft.now_s + draft.fleet.rules.grace_s
        draft.put(child, deadline_s=until_s, until_s=until_s)


def _failed(draft: Draft, child: Child, event: e.ChildFailed) -> None:
    # Its end follows at once, or is made to: a thread of the application's may hold it up for ever.
    draft.put(child, failure=event.failure, deadline_s=draft.now_s + FAST_STOP_S)


def _died_in_boot(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    fleet = draft.fleet
    failure = child.failure or e.BootFailure(f"{event.status} before it was ready", is_final=False)
    draft.tell_failure(
        child.generation, failure, f"{child} ({event.status})" if child.failure else str(child)
    )
    if fleet.stopping is not None:
        return
    if child.generation == fleet.incoming:
        abandon(draft, failure.summary)
    elif recycling.failed(draft, child, failure.summary):
        pass
    elif failure.is_final and not fleet.proven:
        if not await_edit(draft):
            draft.stop(e.Stop.GRACEFUL, ApplicationError(failure.summary, failure.details))
    else:
        crashed(draft, child)


def _died_in_service(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    assert child.ready_at_s is not None
    has_settled = draft.now_s - child.ready_at_s >= SETTLED_S
    if event.status.is_clean and has_settled:
        draft.info(f"{child} left by itself: {event.status}")
        return
    draft.error(
        f"{child} crashed: {event.status}"
        + ("" if has_settled else ", right after its start")
        + refusing.while_what(event.words)
    )
    refusing.died(draft, child, event.words)
    if child.generation == draft.fleet.incoming:
        abandon(draft, f"one of its workers crashed: {event.status}")
        return
    if has_settled:
        draft.fleet.seats[child.slot] = replace(draft.fleet.seat(child.slot), streak=0)
    crashed(draft, child, delayed=not has_settled)


def _died_as_asked(draft: Draft, child: Child, event: e.ChildExited) -> None:
    draft.drop(child)
    if event.status.is_clean or child.phase is Phase.KILLED:
        draft.info(f"{child} stopped: {event.status}")
    else:
        draft.warn(f"{child} stopped: {event.status}")


def _queue_seen(draft: Draft, child: Child, event: e.QueueSeen) -> None:
    """Connections go elsewhere for long enough, and nobody waits any more: it may leave, and its socket be closed."""
    if event.depth == 0:
        draft.fleet.seats[child.slot] = replace(draft.fleet.seat(child.slot), has_queue=False)
        draft.drain(child)


def _worn(draft: Draft, child: Child, event: e.ChildWorn) -> None:
    recycling.wear(draft, child, event.why)


def _died_hung(draft: Draft, child: Child, event: e.ChildExited) -> None:
    """A worker that was killed: because it hung, in its boot or in service, or at the end of its grace period."""
    if child.is_stuck:
        hangs.died(draft, child, event.status)
        refusing.died(draft, child, event.words, has_hung=True)
    elif child.is_hung:
        _died_in_boot(draft, child, event)
    else:
        _died_as_asked(draft, child, event)


_ROWS: dict[Phase, tuple[Callable[..., None], ...]] = {
    #                ChildSpawned SpawnFailed ChildReady ChildFailed ChildExited QueueSeen ChildWorn ChildAwake
    Phase.SPAWNING: (_spawned, _unspawned, _nothing, _nothing, _nothing, _nothing, _nothing, _nothing),
    Phase.BOOTING: (_nothing, _nothing, _ready, _failed, _died_in_boot, _nothing, _nothing, _nothing),
    Phase.READY: (_nothing, _nothing, _nothing, _nothing, _died_in_service, _nothing, _worn, hangs.awake),
    Phase.STEERED: (
        _nothing,
        _nothing,
        _nothing,
        _nothing,
        _died_in_service,
        _queue_seen,
        _nothing,
        hangs.awake,
    ),
    Phase.DRAINING: (
        _nothing,
        _nothing,
        _ready_late,
        _nothing,
        _died_as_asked,
        _nothing,
        _nothing,
        hangs.awake,
    ),
    Phase.ABORTED: (_nothing, _nothing, _nothing, _nothing, _died_hung, _nothing, _nothing, _nothing),
    Phase.KILLED: (_nothing, _nothing, _nothing, _nothing, _died_hung, _nothing, _nothing, _nothing),
}
CHILD_EVENTS = (
    e.ChildSpawned,
    e.SpawnFailed,
    e.ChildReady,
    e.ChildFailed,
    e.ChildExited,
    e.QueueSeen,
    e.ChildWorn,
    e.ChildAwake,
)
CHILD: dict[tuple[Phase, type], Callable[..., None]] = {
    (phase, event): handler
    for phase, row in _ROWS.items()
    for event, handler in zip(CHILD_EVENTS, row, strict=True)
}
