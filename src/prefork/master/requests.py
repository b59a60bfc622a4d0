"""What a request on the control socket means: one handler for each, and nothing beside them."""

from __future__ import annotations

import math
from collections.abc import Callable

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import hangs, recycling, refusing, trial
from prefork.master.draft import Draft
from prefork.master.fleet import Child, Fleet, Phase, Wait
from prefork.master.refusals import shown
from prefork.master.reloads import ask_reload
from prefork.master.waits import STACKS_WAIT_S, answer, await_outcome, until
from prefork.options import LOG_LEVELS

MOST_WORKERS = 1024
"""A slip of the finger must not take the machine down."""


def asked(draft: Draft, event: e.Asked) -> None:
    """Somebody asks for something."""
    if draft.fleet.finished:  # in the very moment of the end
        answer(draft, event.client, control.Failed("the fleet has stopped"))
        return
    REQUESTS[type(event.request)](draft, event.client, event.request)


def client_left(draft: Draft, event: e.ClientLeft) -> None:
    """Nobody is there to be told; what was asked for goes on."""
    draft.fleet.waits = tuple(wait for wait in draft.fleet.waits if wait.client != event.client)


def stacks_seen(draft: Draft, event: e.StacksSeen) -> None:
    """Into the log, and back to who asked."""
    child = draft.fleet.children.get(event.child)
    if child is not None and child.is_stuck and child.phase is Phase.ABORTED and event.client == hangs.NOBODY:
        hangs.stacks_told(draft, child, event.text)
        return
    draft.info(f"stacks of {child or 'a worker that is gone'}:\n{event.text.rstrip()}")
    if any(wait.client == event.client for wait in draft.fleet.waits):
        answer(draft, event.client, control.StacksReport(event.text))


# -- the handlers -------------------------------------------------------------------------------------


def _status(draft: Draft, client: int, _request: control.Status) -> None:
    answer(draft, client, report(draft.fleet, draft.now_s))


def _reload(draft: Draft, client: int, request: control.Reload) -> None:
    if _refuse_stopping(draft, client):
        return
    canary = None
    if request.canary:
        why = _why_no_canary(draft.fleet, request)
        if why:
            answer(draft, client, control.Failed(why))
            return
        wanted = draft.fleet.configured if draft.fleet.resting else draft.fleet.wanted
        canary = trial.canary_of(wanted, request.canary, request.canary_s)
    target = draft.fleet.last_generation + 1
    ask_reload(draft, canary)
    await_outcome(draft, Wait(client, request, target))


def _why_no_canary(fleet: Fleet, request: control.Reload) -> str:
    if not 0 < request.canary <= 1:
        return f"canary must be a share from 0 to 1, not {request.canary!r}"
    if not 0 < request.canary_s < math.inf:
        return f"canary_s must be more than 0 seconds, not {request.canary_s!r}"
    if fleet.incoming is not None:
        return "a reload is under way: ask for a canary when it is over"
    return ""


def _scale(draft: Draft, client: int, request: control.Scale) -> None:
    if _refuse_stopping(draft, client):
        return
    if not 1 <= request.workers <= MOST_WORKERS:
        answer(
            draft, client, control.Failed(f"workers must be from 1 to {MOST_WORKERS}, not {request.workers}")
        )
        return
    draft.fleet.resting = False
    draft.fleet.wanted = request.workers
    draft.info(f"scale: workers wanted: {request.workers}")
    await_outcome(draft, Wait(client, request))


def _recycle(draft: Draft, client: int, request: control.Recycle) -> None:
    child = _worker(draft, client, request.worker)
    if child is None or _refuse_stopping(draft, client):
        return
    if child.phase is not Phase.READY:
        answer(
            draft, client, control.Failed(f"{child} is {child.phase.value}: only one that serves is recycled")
        )
        return
    recycling.wear(draft, child, "somebody asked for it")
    await_outcome(draft, Wait(client, request, child.serial))


def _stacks(draft: Draft, client: int, request: control.Stacks) -> None:
    child = _worker(draft, client, request.worker)
    if child is None:
        return
    if child.phase in (Phase.SPAWNING, Phase.ABORTED, Phase.KILLED):
        answer(draft, client, control.Failed(f"{child} is {child.phase.value}"))
        return
    draft.commands.append(c.AskStacks(client, child.serial))
    await_outcome(draft, until(draft, Wait(client, request, child.serial), STACKS_WAIT_S))


def _upgrade(draft: Draft, client: int, request: control.Upgrade) -> None:
    if _refuse_stopping(draft, client):
        return
    if draft.fleet.upgrade_deadline_s is not None:
        answer(draft, client, control.Failed("an upgrade is under way"))
        return
    draft.begin_upgrade()
    await_outcome(draft, Wait(client, request))


def _stop(draft: Draft, client: int, request: control.Stop) -> None:
    how = e.Stop.FAST if request.is_fast else e.Stop.GRACEFUL
    draft.ask_stop(how, "preforkctl")
    await_outcome(draft, Wait(client, request))


def _log_level(draft: Draft, client: int, request: control.LogLevel) -> None:
    if request.level not in LOG_LEVELS:
        levels = ", ".join(LOG_LEVELS)
        answer(draft, client, control.Failed(f"log level must be one of {levels}, not {request.level!r}"))
        return
    draft.commands.append(c.SetLogLevel(request.level, draft.fleet.listening_children()))
    draft.info(f"log level: {request.level}")
    answer(draft, client, control.Done(f"logging from {request.level} on"))


def _forgive(draft: Draft, client: int, _request: control.Forgive) -> None:
    count = refusing.forget(draft)
    text = f"{count} refused before; nothing is any more" if count else "nothing was refused"
    answer(draft, client, control.Done(text))


REQUESTS: dict[type, Callable[..., None]] = {
    control.Status: _status,
    control.Reload: _reload,
    control.Scale: _scale,
    control.Recycle: _recycle,
    control.Stacks: _stacks,
    control.Upgrade: _upgrade,
    control.Stop: _stop,
    control.LogLevel: _log_level,
    control.Forgive: _forgive,
}


def _refuse_stopping(draft: Draft, client: int) -> bool:
    if draft.fleet.stopping is None:
        return False
    answer(draft, client, control.Failed("the fleet is stopping"))
    return True


def _worker(draft: Draft, client: int, text: str) -> Child | None:
    """The worker that a slot or a pid names: of several in a slot the newest. If there is none, the client is told."""
    kind, _, number = text.rpartition(":")
    if kind not in ("", "slot", "pid") or not (number.isascii() and number.isdecimal()):
        why = f"{text!r} names no worker: write its slot or its pid, such as 0, slot:0 or pid:4711"
        answer(draft, client, control.Failed(why))
        return None
    children = list(draft.fleet.children.values())
    by_slot = [x for x in children if x.slot == int(number) and kind != "pid" and x.phase is not Phase.KILLED]
    by_pid = [x for x in children if x.pid == int(number) and kind != "slot"]
    if by_slot and by_pid and by_pid[0] not in by_slot:
        why = f"{number} is a slot and a pid: write slot:{number} or pid:{number}"
        answer(draft, client, control.Failed(why))
        return None
    found = max([*by_pid, *by_slot], key=lambda child: child.serial, default=None)
    if found is None:
        answer(draft, client, control.Failed(f"there is no worker {text}: `preforkctl status` shows them"))
    return found


# -- what a status says -------------------------------------------------------------------------------


def report(fleet: Fleet, now_s: float) -> control.StatusReport:
    """All that can be said of a fleet without looking outside; the shell adds what it sees."""
    children = sorted(fleet.children.values(), key=lambda child: (child.slot, child.serial))
    return control.StatusReport(
        state=_state(fleet),
        generation=fleet.generation,
        incoming=fleet.incoming,
        wanted=fleet.wanted,
        ready=fleet.ready_slots(),
        workers=tuple(_worker_report(child, now_s) for child in children),
        replaced=fleet.chronicle.counts(),
        events=tuple(
            control.EventReport(x.number, round(now_s - x.at_s, 3), x.kind, x.text)
            for x in fleet.chronicle.happenings
        ),
        refused=tuple(
            control.RefusalReport(shown(x.name), x.deaths, round(x.until_s - now_s, 3))
            for x in fleet.refusals.refused
        ),
    )


def _worker_report(child: Child, now_s: float) -> control.WorkerReport:
    age_s = None if child.ready_at_s is None else round(now_s - child.ready_at_s, 3)
    return control.WorkerReport(
        serial=child.serial,
        slot=child.slot,
        pid=child.pid,
        generation=child.generation,
        phase=child.phase.value,
        age_s=age_s,
        worn=child.worn,
    )


def _state(fleet: Fleet) -> str:
    if fleet.stopping is not None:
        return "stopping"
    if fleet.resting:
        return "resting"
    if fleet.upgrade_deadline_s is not None:
        return "upgrading"
    if fleet.incoming is not None or fleet.rolling:
        return "reloading"
    return "serving" if fleet.ready_slots() >= fleet.wanted else "starting"
