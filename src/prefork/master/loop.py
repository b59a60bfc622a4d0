"""The supervisor's loop. Start reading here.

    wait for something to happen -> make it an event -> let `plan.decide` decide -> carry out its commands

The loop waits for the next deadline and not a moment sooner; with no deadline it waits for ever. So an idle master
never wakes up.
"""

from __future__ import annotations

from collections import deque

from prefork import system
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.fleet import Fleet
from prefork.master.plan import decide
from prefork.master.shell import Shell

HOOKS = (c.CallSpawnHook, c.CallReadyHook, c.CallRecoverHook)
"""After a hook has raised no other is called (seed)."""


LONGEST_WAIT_S = 1e6
"""epoll_wait(2) counts milliseconds in 31 bits, 24 days, and Python raises OverflowError above."""


def supervise(fleet: Fleet, shell: Shell) -> None:
    """Run the fleet until it has been stopped. Runs in the master, in the thread that called; blocks.

    Raises what the plan gave up with: OverRecoveryError, ApplicationError, CommandProducerError, or whatever a
    hook raised.
    """
    fleet = _feed(fleet, shell, e.Started())
    while not shell.is_finished:
        for event in shell.wait(_timeout_s(fleet)):
            fleet = _feed(fleet, shell, event)
        deadline_s = fleet.next_deadline_s()
        if deadline_s is not None and deadline_s <= system.now_s() and not shell.is_finished:
            fleet = _feed(fleet, shell, e.DeadlinePassed())
    if shell.error is not None:
        raise shell.error


def _feed(fleet: Fleet, shell: Shell, event: e.Event) -> Fleet:
    """Decide on one event, and on all that the decision itself leads to."""
    events = deque([event])
    while events:
        fleet, commands = decide(fleet, events.popleft(), system.now_s())
        is_broken = False
        for command in sorted(commands, key=_turn):
            if is_broken and isinstance(command, HOOKS):
                continue
            led_to = list(shell.execute(command))
            if any(isinstance(x, e.Broken) for x in led_to):
                is_broken = True
                events.extendleft(reversed(led_to))  # before any more hooks are called
            else:
                events.extend(led_to)
    return fleet


def _turn(command: c.Command) -> int:
    """What is said comes after what is done, for to write a line takes longer than to ask for a worker.

    Stacks come last: a child writes them in pieces, to what may be the same pipe, and a line of ours would stand in the
    midst of one of its.
    """
    match command:
        case (
            c.DumpStacks()
            | c.NudgeChild(nudge=c.Nudge.DUMP_STACKS)
            | c.NudgeZygote(nudge=c.Nudge.DUMP_STACKS)
        ):
            return 2
        case c.Log():
            return 1
    return 0


def _timeout_s(fleet: Fleet) -> float | None:
    deadline_s = fleet.next_deadline_s()
    return None if deadline_s is None else min(max(0.0, deadline_s - system.now_s()), LONGEST_WAIT_S)
