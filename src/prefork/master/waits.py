"""Who waits for what on the control socket, and when it has come.

What is waited for is read off the fleet after each decision, never off the event that brought it; only failures, which the
fleet does not remember, are told where they happen. Whoever waits hears meanwhile all that is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from prefork import control
from prefork.master import commands as c
from prefork.master.draft import Draft
from prefork.master.fleet import Fleet, Phase, Wait

STACKS_WAIT_S = 2.0
"""A worker whose interpreter runs answers within milliseconds."""


def await_outcome(draft: Draft, wait: Wait) -> None:
    """This client is answered when what it waits for has come."""
    draft.fleet.waits = (*draft.fleet.waits, wait)


def answer(draft: Draft, client: int, final: control.Answer) -> None:
    """Give a client its last answer."""
    draft.fleet.waits = tuple(wait for wait in draft.fleet.waits if wait.client != client)
    draft.commands.append(c.Answer(client, final))


def answer_waits(draft: Draft) -> None:
    """Tell everybody who waits what has been logged; and those for whom it has come, that it has."""
    if not draft.fleet.waits:
        return
    texts = [command.text for command in draft.commands if isinstance(command, c.Log)]
    said = [
        c.Answer(wait.client, control.Progress(text))
        for text in texts
        for wait in draft.fleet.waits
        if not isinstance(wait.request, control.Stacks)
    ]
    draft.commands += said
    for wait in draft.fleet.waits:
        final = _outcome(draft.fleet, wait)
        if final is not None:
            answer(draft, wait.client, final)


def _outcome(fleet: Fleet, wait: Wait) -> control.Answer | None:
    if fleet.stopping is not None and not isinstance(wait.request, (control.Stop, control.Stacks)):
        why = f": {fleet.stopping.error}" if fleet.stopping.error is not None else ""
        return control.Failed(f"the fleet is stopping{why}")
    if fleet.resting and isinstance(wait.request, (control.Reload, control.Recycle, control.Scale)):
        return control.Failed("the workers have been told to rest (WINCH)")
    match wait.request:
        case control.Reload() if fleet.generation >= wait.target and not fleet.rolling:
            return control.Done(f"generation {fleet.generation} serves")
        case control.Scale(workers) if fleet.wanted != workers:
            return control.Failed(f"another size has been asked for: {fleet.wanted}")
        case control.Scale(workers) if _is_of_size(fleet, workers):
            return control.Done(f"{workers} workers serve" if workers > 1 else "1 worker serves")
        case control.Recycle():
            return _recycled(fleet, wait.target)
        case _:
            return None


def _is_of_size(fleet: Fleet, workers: int) -> bool:
    surplus = [x for x in fleet.children.values() if x.slot >= workers]
    return fleet.ready_slots() >= workers and not surplus


def _recycled(fleet: Fleet, serial: int) -> control.Answer | None:
    worn = fleet.children.get(serial)
    if worn is not None and worn.phase is Phase.READY:
        return None
    successor = next((x for x in fleet.children.values() if x.renews == serial), None)
    if successor is not None:
        return control.Done(f"{successor} serves in its place")
    return control.Done("it has left")


# -- failures, where they happen ----------------------------------------------------------------------


def fail_reload(draft: Draft, generation: int | None, why: str) -> None:
    """The generation that was tried out does not work."""
    _end(
        draft, control.Reload, lambda wait: wait.target == generation, control.Failed(f"reload failed: {why}")
    )


def fail_recycle(draft: Draft, serial: int, why: str) -> None:
    """The successor of this worker did not become ready."""
    _end(
        draft, control.Recycle, lambda wait: wait.target == serial, control.Failed(f"recycling failed: {why}")
    )


def end_upgrade(draft: Draft, final: control.Answer) -> None:
    """An upgrade has come to its end, whichever."""
    _end(draft, control.Upgrade, lambda _: True, final)


def _end(
    draft: Draft, kind: type[control.Request], which: Callable[[Wait], bool], final: control.Answer
) -> None:
    for wait in draft.fleet.waits:
        if isinstance(wait.request, kind) and which(wait):
            answer(draft, wait.client, final)


def tell_end(draft: Draft) -> None:
    """The fleet has come to its end: who asked for that is told, as is everybody else."""
    answer_waits(draft)
    for wait in draft.fleet.waits:
        is_asked_for = isinstance(wait.request, control.Stop)
        final = control.Done("stopped") if is_asked_for else control.Failed("the fleet has stopped")
        answer(draft, wait.client, final)


def give_stacks_up(draft: Draft) -> None:
    """Time has passed: a worker that has not said where it stands cannot, so the C library has to."""
    for wait in _due(draft):
        child = draft.fleet.children.get(wait.target)
        if child is None:
            answer(draft, wait.client, control.Failed("it is gone"))
        elif draft.fleet.rules.uses_zygote or child.phase is not Phase.BOOTING:
            draft.commands.append(c.DumpStacks(child.serial))
            text = f"{child} does not answer, its interpreter is stuck: its stacks are on its standard error"
            draft.warn(text)
            answer(draft, wait.client, control.Failed(text))
        else:
            answer(draft, wait.client, control.Failed(f"{child} still starts its interpreter"))


def _due(draft: Draft) -> Iterable[Wait]:
    return [x for x in draft.fleet.waits if x.due_s is not None and x.due_s <= draft.now_s]


def until(draft: Draft, wait: Wait, bound_s: float) -> Wait:
    """A wait with an end."""
    return replace(wait, due_s=draft.now_s + bound_s)
