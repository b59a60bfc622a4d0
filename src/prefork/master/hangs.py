"""Workers whose loop is blocked: how they are found, and what is done with them.

A worker that is awake tells once a second that its loop turns. One that has not for `hang_timeout_s` is looked at once more,
`CONFIRM_S` later; if it is silent still, another is spawned in its place at once, its stacks and the requests in flight are
logged, and it is killed.

* Nobody is asked, and no timer runs, while all are at rest: a worker says once when it wakes up.
* Time in which the master did not run itself (SIGSTOP, a frozen container, a suspended machine) counts for nobody. The clock
  stands still in suspend (CLOCK_MONOTONIC), and nobody's wall clock is asked.
* A worker that imports, boots or warms up is not watched: the boot time-out is its bound.
* A server that says nothing (a foreign one) is not watched.
* It counts as a crash, with the same threshold: a fleet that only hangs is given up some day.
"""

from __future__ import annotations

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.crashes import crashed
from prefork.master.draft import Draft
from prefork.master.fleet import WATCHED, Child, Phase
from prefork.master.pulse import Pulse
from prefork.master.reloads import abandon

STACKS_S = 0.5
"""Time for the worker's own interpreter to say where it stands; one that runs does within milliseconds."""
DUMP_S = 2.0
"""Time for faulthandler to say it, where the interpreter is stuck in C. It needs a CPU for that, on a machine that may have none to
spare; and nobody waits: another serves in its place by then."""
LATE_S = 1.0
"""A master that wakes up so much too late has not run meanwhile, and neither have the others, perhaps."""
NOBODY = 0
"""The client who asks for stacks that are for the log only: `channel`'s, which this pure part does not know."""


def awake(draft: Draft, child: Child, _event: e.ChildAwake) -> None:
    """It has woken up: from now on its loop has to turn."""
    if draft.fleet.look_due_s() is None:
        draft.fleet.looked_at_s = draft.now_s
    draft.put(child, beat_s=draft.now_s, suspected_s=None)


def forgive_if_late(draft: Draft) -> None:
    """If the master itself has not run until now, nobody knows who has: everybody has the whole time again."""
    fleet = draft.fleet
    due_s = [x.look_due_s(fleet.rules.hang_timeout_s) for x in fleet.children.values()]
    if not any(at is not None and draft.now_s - at > LATE_S for at in due_s):
        return
    for child in list(fleet.children.values()):
        if child.beat_s is not None:
            draft.put(child, beat_s=draft.now_s, suspected_s=None)


def seen(draft: Draft, pulses: tuple[Pulse, ...]) -> None:
    """A look has come: who turns, who rests, who is silent."""
    by_serial = {pulse.child: pulse for pulse in pulses}
    for child in list(draft.fleet.children.values()):
        if child.beat_s is None or child.phase not in WATCHED:
            continue
        pulse = by_serial.get(child.serial)
        if pulse is None or not pulse.is_awake:
            draft.put(child, beat_s=None, suspected_s=None)
            continue
        beat_s = max(child.beat_s, pulse.tick_s)
        due_s = child.look_due_s(draft.fleet.rules.hang_timeout_s)
        if draft.now_s - beat_s < draft.fleet.rules.hang_timeout_s:
            draft.put(child, beat_s=beat_s, suspected_s=None)
        elif child.suspected_s is None or beat_s > child.beat_s:
            draft.put(child, beat_s=beat_s, suspected_s=draft.now_s)
        elif due_s is not None and due_s <= draft.now_s:
            _hung(draft, child, draft.now_s - beat_s)


def _hung(draft: Draft, child: Child, silent_s: float) -> None:
    fleet = draft.fleet
    draft.error(
        f"{child} is hung: its loop has not turned for {silent_s:.1f} s; its stacks follow, then it is killed"
    )
    was_serving = child.phase is not Phase.DRAINING
    now_s = draft.now_s
    until_s = now_s + STACKS_S + LATE_S + DUMP_S  # the master may be late, and is to ask all the same
    stuck = draft.put(
        child,
        phase=Phase.ABORTED,
        deadline_s=now_s + STACKS_S,
        until_s=until_s,
        is_stuck=True,
        beat_s=None,
    )
    draft.commands.append(c.AskStacks(NOBODY, child.serial))
    if not was_serving or fleet.stopping is not None:
        return
    if child.generation == fleet.incoming:
        abandon(draft, "one of its workers is hung")
    else:
        crashed(draft, stuck, delayed=False)


def stacks_late(draft: Draft, child: Child) -> None:
    """Its interpreter has not answered: the C library has to, on its standard error."""
    draft.put(child, deadline_s=draft.now_s + DUMP_S, until_s=draft.now_s + DUMP_S)
    draft.warn(
        f"{child} does not answer, its interpreter is stuck: its stacks are on its standard error, and its requests "
        "cannot be told"
    )
    draft.commands.append(c.DumpStacks(child.serial))


def stacks_told(draft: Draft, child: Child, text: str) -> None:
    """It has said where it stands: no reason to wait any longer."""
    draft.error(f"stacks of {child}, which is hung:\n{text.rstrip()}")
    draft.kill(child)


def died(draft: Draft, child: Child, status: e.ExitStatus) -> None:
    """It is gone. It was counted, and replaced, when it was found."""
    draft.drop(child)
    draft.error(f"{child} was hung, and is gone: {status}")
