"""What an event of a zygote means."""

from __future__ import annotations

from dataclasses import replace

from prefork.errors import ApplicationError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.crashes import RETRY_S, count_crash, delay_zygote
from prefork.master.draft import RETIRE_S, Draft
from prefork.master.fleet import LIVE, Phase, Seat, ZygotePhase
from prefork.master.reloads import abandon
from prefork.master.watching import await_edit


def zygote_ready(draft: Draft, event: e.ZygoteReady) -> None:
    """It forks from now on."""
    zygote = draft.fleet.zygotes.get(event.generation)
    if zygote is not None and zygote.phase is ZygotePhase.STARTING:
        draft.put_zygote(zygote, ZygotePhase.READY, None)
        if event.generation == draft.fleet.generation:
            draft.fleet.zygote_seat = Seat()


def zygote_failed(draft: Draft, event: e.ZygoteFailed) -> None:
    """It has said why it cannot load the application; what follows from that comes with its end."""
    zygote = draft.fleet.zygotes.get(event.generation)
    if zygote is not None:
        # Its end follows at once, or is made to: a thread of the application's may hold it up for ever.
        draft.fleet.zygotes[event.generation] = replace(
            zygote, failure=event.failure, deadline_s=draft.now_s + RETIRE_S
        )


def zygote_unstarted(draft: Draft, event: e.ZygoteUnstarted) -> None:
    """There was no process to be had: tried again, or the reload is given up."""
    draft.fleet.zygotes.pop(event.generation, None)
    if draft.fleet.stopping is not None:
        return
    draft.warn(f"zygote of generation {event.generation}: cannot be started: {event.why}")
    if event.generation == draft.fleet.incoming:
        abandon(draft, event.why)
    else:
        delay_zygote(draft, RETRY_S)


def zygote_exited(draft: Draft, event: e.ZygoteExited) -> None:
    """It is gone: as asked, or with the reload that it stood for, or it is to be replaced."""
    fleet = draft.fleet
    zygote = fleet.zygotes.pop(event.generation, None)
    if zygote is None:
        return
    for child in list(fleet.of_generation(event.generation)):
        if child.phase is Phase.SPAWNING:
            draft.drop(child)
            draft.commands.append(c.Forget(child.serial))
            if child.replaces is not None and child.generation >= fleet.generation:
                fleet.seats[child.slot] = replace(fleet.seat(child.slot), crashed_pid=child.replaces)
    is_needed = event.generation in (fleet.generation, fleet.incoming)
    if fleet.stopping is not None or zygote.phase is ZygotePhase.RETIRING or not is_needed:
        return
    failure = zygote.failure
    if failure is None and zygote.phase is ZygotePhase.STARTING:
        # Killed from outside (memory, an operator) it says nothing of the code, once that has served.
        is_final = event.status.signal is None or not fleet.proven
        failure = e.BootFailure(f"{event.status} while the application was loaded", is_final=is_final)
    who = f"zygote of generation {event.generation}"
    if failure is None:
        draft.error(f"{who} crashed: {event.status}")
    else:
        # At the first start there are no generations yet to tell apart.
        who = f"{who} ({event.status})" if fleet.proven else f"start failed ({event.status})"
        draft.tell_failure(event.generation, failure, who)
    is_missed = not fleet.resting and not any(x.phase in LIVE for x in fleet.children.values())
    if event.generation == fleet.incoming:
        abandon(draft, failure.summary if failure else str(event.status))
    elif failure is not None and failure.is_final and is_missed:
        # Nobody serves and the application cannot be loaded: a start that failed, late or early.
        if not await_edit(draft):
            draft.stop(e.Stop.GRACEFUL, ApplicationError(failure.summary, failure.details))
    else:
        # Code that cannot be loaded any more is no crash while the workers that have it loaded serve on.
        if failure is None or is_missed:
            count_crash(draft)
        delay_zygote(draft, max(RETRY_S, fleet.rules.recover_interval_s))
