"""Nothing is left without an answer: every event, every phase of a worker with each of its events, every command."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.assembly import assemble
from prefork.master.children import CHILD, CHILD_EVENTS
from prefork.master.fleet import Child, Fleet, Phase, Zygote, ZygotePhase
from prefork.master.hooks import Hooks
from prefork.master.means import Means
from prefork.master.plan import EVENTS, decide
from prefork.master.premises import Premises
from prefork.master.pulse import Pulse
from prefork.master.rules import Rules
from prefork.master.shell import Shell
from prefork.recorder import LastWords

SAMPLES: dict[str, Any] = {
    "depth": 0,
    "pulses": (Pulse(1, is_awake=True, tick_s=0.0),),
    "queue": 0,
    "client": 1,
    "request": control.Status(),
    "text": "a test",
    "children": ((1, 1),),
    "others_bytes": 1,
    "generation": 1,
    "child": 1,
    "pid": 501,
    "why": "a test",
    "what": "app.py",
    "delta": 1,
    "how": e.Stop.GRACEFUL,
    "status": e.ExitStatus(code=1),
    "words": LastWords((b"GET /",)),
    "failure": e.BootFailure("a test"),
    "error": RuntimeError("a test"),
}


def sample(kind: type[Any]) -> Any:
    return kind(**{field.name: SAMPLES[field.name] for field in fields(kind)})


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell that holds nothing."""
    nothing: Any = SimpleNamespace(fileno=lambda: -1, close=lambda: None, waiting=lambda: 0)
    means = Means(nothing, True, lambda generation: True, None, lambda: None, True)
    shell = assemble(Premises(nothing, None, None, None, -1), nothing, nothing, Hooks(), means)
    yield shell
    shell.close()


def test_every_phase_answers_every_event_of_a_worker() -> None:
    """The table is whole, and has nothing beside it."""
    assert set(CHILD) == {(phase, event) for phase in Phase for event in typing.get_args(e.ChildEvent)}


def test_the_columns_of_the_table_are_its_events() -> None:
    """Its rows are written by position: one column for each event of a worker."""
    assert set(CHILD_EVENTS) == set(typing.get_args(e.ChildEvent))
    assert len(CHILD_EVENTS) == len(set(CHILD_EVENTS))


def test_every_event_has_a_handler_and_only_one() -> None:
    """By type in the plan, or by phase in the table."""
    assert set(EVENTS) | set(CHILD_EVENTS) == set(typing.get_args(e.Event))
    assert not set(EVENTS) & set(CHILD_EVENTS)


def test_every_command_is_carried_out(shell: Shell) -> None:
    """By one part of the shell each, and none is there for what nobody commands."""
    assert set(shell._deeds) == set(typing.get_args(c.Command))


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", CHILD_EVENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_stopping", [False, True])
def test_every_pair_can_be_decided(phase: Phase, event: type[Any], *, is_stopping: bool) -> None:
    """Also those that never come: a fleet comes back, the given one is untouched, time stays finite."""
    child = Child(1, 0, 1, phase, pid=501, ready_at_s=0.0, deadline_s=60.0)
    fleet = Fleet(Rules(recover_threshold=5), configured=1, wanted=1, next_serial=2, children={1: child})
    fleet.zygotes[1] = Zygote(1, ZygotePhase.READY)
    if is_stopping:
        fleet, _ = decide(fleet, e.StopAsked(e.Stop.GRACEFUL, "TERM"), 1.0)
    before = fleet.copy()
    after, commands = decide(fleet, sample(event), 2.0)
    assert fleet == before
    assert all(isinstance(command, typing.get_args(c.Command)) for command in commands)
    assert (1 in after.children) == (event not in (e.ChildExited, e.SpawnFailed) or _is_kept(phase, event))


def _is_kept(phase: Phase, event: type[Any]) -> bool:
    """Who has no process yet cannot end; who has one was spawned."""
    return (phase is Phase.SPAWNING) == (event is e.ChildExited)


@pytest.mark.parametrize("kind", list(EVENTS), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", list(ZygotePhase))
def test_every_other_event_can_be_decided(kind: type[Any], phase: ZygotePhase) -> None:
    """Whatever the zygote is at."""
    fleet = Fleet(Rules(recover_threshold=5), configured=1, wanted=1)
    fleet.zygotes[1] = Zygote(1, phase)
    before = fleet.copy()
    decide(fleet, sample(kind), 2.0)
    assert fleet == before


@pytest.mark.parametrize("event", CHILD_EVENTS, ids=lambda kind: kind.__name__)
def test_a_worker_that_is_not_known_any_more_says_nothing(event: type[Any]) -> None:
    """Its messages may still be in a channel."""
    fleet = Fleet(Rules(recover_threshold=5, uses_zygote=False), configured=1, wanted=1)
    fleet, _ = decide(fleet, e.Started(), 0.0)
    late = event(**{**{f.name: SAMPLES[f.name] for f in fields(event)}, "child": 7})
    assert decide(fleet, late, 1.0) == (fleet, ())


def test_a_decision_can_be_replayed() -> None:
    """The jitter is part of the fleet: the same fleet, event and time give the same answer."""
    fleet = Fleet(Rules(recover_threshold=5, uses_zygote=False), configured=1, wanted=1)
    fleet, _ = decide(fleet, e.Started(), 0.0)
    fleet, _ = decide(fleet, e.ChildSpawned(1, 501), 0.0)
    died = e.ChildExited(1, e.ExitStatus(signal=11))
    assert decide(fleet, died, 1.0) == decide(fleet, died, 1.0)
