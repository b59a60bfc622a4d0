"""Defects found in the master's core, each as the shortest story that shows it. They fail until it is mended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from prefork.errors import CommandProducerError, ForkWithThreadsError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import loop
from prefork.master import shell as shells
from prefork.master.commands import Command, Nudge
from prefork.master.fleet import Fleet, Phase, Rules
from prefork.master.shell import Shell
from tests.unit.fleets import World


def raise_error(error: Exception) -> Any:
    raise error


class HookShell:
    """Start method "exec" in memory; the spawn hook raises at its n-th call."""

    def __init__(self, failing_call: int) -> None:
        self.calls: list[Command] = []
        self._failing_call = failing_call

    def execute(self, command: Command) -> tuple[e.Event, ...]:
        if isinstance(command, c.Spawn):
            return (e.ChildSpawned(command.child, 500 + command.child),)
        if isinstance(command, (c.CallSpawnHook, c.CallReadyHook, c.CallRecoverHook)):
            self.calls.append(command)
            if len(self.calls) == self._failing_call:
                return (e.Broken(RuntimeError("the hook")),)
        return ()


def test_f1_a_broken_command_producer_ends_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spawn that a broken producer was asked for is answered, so that the fleet can finish."""
    monkeypatch.setattr(shells, "execute_worker", lambda *_: raise_error(CommandProducerError("None")))
    means = SimpleNamespace(uses_zygote=False, command_producer=lambda files: None)
    stub: Any = SimpleNamespace(listeners=SimpleNamespace(for_slot=lambda slot: ()), _means=means)
    events = list(Shell._spawn(stub, c.Spawn(1, 0, 1)))
    assert [type(event) for event in events] == [e.Broken, e.SpawnFailed]


def test_f1_a_refused_fork_of_the_zygote_ends_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zygote that cannot be forked because of threads is answered for, so that the fleet can finish."""
    monkeypatch.setattr(shells, "fork_zygote", lambda *_: raise_error(ForkWithThreadsError("threads")))
    stub: Any = SimpleNamespace(
        _means=SimpleNamespace(is_fork_fresh=lambda generation: True, zygote_main=None),
        _household=SimpleNamespace(is_empty=True),
        _children={},
        close=None,
    )
    events = list(Shell._start_zygote(stub, c.StartZygote(1)))
    assert [type(event) for event in events] == [e.Broken, e.ZygoteUnstarted]


@pytest.mark.parametrize("uses_zygote", [True, False])
def test_f1_what_could_not_be_made_is_not_waited_for(*, uses_zygote: bool) -> None:
    """After Broken, the failed start is dropped without a word about another try, and the end comes."""
    world = World(1, uses_zygote=uses_zygote)
    world.is_out_of_processes = True
    world.start()
    world.feed(e.Broken(RuntimeError("a contract")))
    if uses_zygote:
        world.zygotes.clear()
        world.feed(e.ZygoteUnstarted(1, "threads"))
    assert world.finish is not None


def test_f2_no_hook_is_called_after_one_has_raised() -> None:
    """The second spawn hook raises: the ready hook, due in the same moment, is not called (seed)."""
    shell: Any = HookShell(failing_call=2)
    fleet = Fleet(Rules(recover_threshold=1, uses_zygote=False), configured=2, wanted=2)
    loop._feed(fleet, shell, e.Started())
    assert [type(call) for call in shell.calls] == [c.CallSpawnHook, c.CallSpawnHook]


def test_f2_no_spawn_hook_is_called_after_one_has_raised() -> None:
    """The first spawn hook raises while the second worker's birth is already waiting to be told."""
    shell: Any = HookShell(failing_call=1)
    fleet = Fleet(Rules(recover_threshold=1, uses_zygote=False), configured=2, wanted=2)
    loop._feed(fleet, shell, e.Started())
    assert len(shell.calls) == 1


def test_f3_the_service_manager_is_not_told_ready_after_the_stop() -> None:
    """Stop during a reload whose first fork then fails: no "ready", no "reload failed"."""
    world = World(1)
    world.serve()
    world.feed(e.ReloadAsked())
    world.load(2)
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    world.forget_commands()
    world.fail_fork()
    assert world.sent(c.Announce) == []


def test_f4_a_worker_that_hangs_in_boot_is_not_doubled() -> None:
    """While it writes its stacks, before its crash is counted and delayed, nobody is spawned beside it."""
    world = World(1)
    world.start()
    world.load()
    world.fork()
    world.forget_commands()
    world.pass_time(60.0)
    assert world.nudges(Nudge.DUMP_STACKS) == [1]
    assert world.sent(c.Spawn) == []


def test_f4_a_reload_that_hangs_is_tried_once() -> None:
    """The incoming worker hangs in its boot: no second one is spawned while it is being killed."""
    world = World(1)
    world.serve()
    world.feed(e.ReloadAsked())
    world.load(2)
    world.fork()
    world.forget_commands()
    world.pass_time(60.5)
    assert world.sent(c.Spawn) == []


def test_f5_a_slot_is_not_closed_over_the_queue_of_a_crashed_worker() -> None:
    """Scale down while the slot waits for its back-off: its queue is served and drained before it closes."""
    world = World(2, reuseport=True)
    world.serve()
    world.crash(world.child(1).serial)
    world.forget_commands()
    world.feed(e.ScaleAsked(-1))
    assert world.sent(c.Steer) == [c.Steer(1)]
    assert world.sent(c.CloseSlot) == []
    world.calm_down()
    assert [type(x) for x in world.commands if isinstance(x, (c.Spawn, c.CloseSlot))] == [
        c.Spawn,
        c.CloseSlot,
    ]
    assert world.is_serving(generation=1, workers=1)


def test_f5_a_wake_to_fewer_workers_closes_no_slot_over_its_queue() -> None:
    """Connections have come in during the rest: TTIN wakes one worker, and the other slots' queues are served."""
    world = World(3, reuseport=True)
    world.serve()
    world.feed(e.RestAsked())
    world.settle()
    world.forget_commands()
    world.feed(e.ScaleAsked(+1))
    assert world.sent(c.CloseSlot) == []
    world.calm_down()
    assert {spawn.slot for spawn in world.sent(c.Spawn)} == {0, 1, 2}
    assert world.is_serving(generation=1, workers=1)


def test_f5_a_worker_is_steered_away_from_before_its_quiet_time_begins() -> None:
    """Scale down before all are ready: the drain still comes a second after the steering, not before."""
    world = World(2, reuseport=True)
    world.start()
    world.load()
    _, second = world.fork_all()
    world.accept(second)
    world.feed(e.ScaleAsked(-1))
    world.pass_time(5.0)
    assert world.sent(c.Steer) or not world.nudges(Nudge.DRAIN)


def test_f5_a_worker_that_dies_while_it_empties_its_queue_is_stood_in_for() -> None:
    """The queue of a steered slot outlives its worker."""
    world = World(2, reuseport=True)
    world.serve()
    world.feed(e.ScaleAsked(-1))
    world.forget_commands()
    world.crash(world.child(1).serial)
    assert world.sent(c.CloseSlot) == []


def test_f6_slots_are_opened_in_order() -> None:
    """A slot that was closed after crashes has no back-off when it is opened again, so none is skipped.

    ListenerSet.for_slot raises ValueError for a slot beyond the next, and that ends the master.
    """
    world = World(1, reuseport=True, recover_interval_s=30.0)
    world.serve()
    world.feed(e.ScaleAsked(+1))
    world.crash(world.fork())
    world.feed(e.ScaleAsked(-1))
    world.calm_down()
    world.forget_commands()
    world.feed(e.ScaleAsked(+2))
    assert [spawn.slot for spawn in world.sent(c.Spawn)][:1] == [1]


def test_f6_a_slot_that_cannot_be_opened_yet_is_a_failed_spawn() -> None:
    """The slot below could not be opened (EMFILE): the next one is tried again later, and the master lives."""
    listeners = SimpleNamespace(for_slot=lambda slot: raise_error(ValueError("slot 3 is not open")))
    stub: Any = SimpleNamespace(listeners=listeners)
    events = list(Shell._spawn(stub, c.Spawn(1, 3, 1)))
    assert [type(event) for event in events] == [e.SpawnFailed]


def test_f7_a_reload_long_after_a_crash_is_no_recovery() -> None:
    """The crashed worker was stood in for by the reload itself: the next reload calls no recover hook for it."""
    world = World(1)
    world.start()
    world.load()
    first = world.fork()
    world.feed(e.ReloadAsked())
    world.load(2)
    world.crash(first)
    world.settle()
    world.calm_down()
    world.forget_commands()
    world.feed(e.ReloadAsked())
    world.calm_down()
    assert world.is_serving(generation=3, workers=1)
    assert world.sent(c.CallRecoverHook) == []


def test_f8_one_worker_less_does_not_end_a_rest() -> None:
    """TTOU while resting starts nobody."""
    world = World(2)
    world.serve()
    world.feed(e.RestAsked())
    world.settle()
    world.feed(e.ScaleAsked(-1))
    world.settle()
    assert world.phases() == []


def test_f9_an_upgrade_that_was_given_up_replaces_nobody() -> None:
    """Its "ready" comes in the moment after it was killed: this master serves on."""
    world = World(1)
    world.serve()
    world.feed(e.UpgradeAsked())
    world.pass_time(120.0)
    assert world.sent(c.KillUpgrade)
    world.feed(e.UpgradeReady())
    assert world.child(0).phase is Phase.READY


def test_f10_new_code_does_not_wait_for_the_old_codes_back_off() -> None:
    """A crash loop is mended by a reload: all slots start at once with the new generation."""
    world = World(2, recover_interval_s=30.0)
    world.start()
    world.load()
    for serial in world.fork_all():
        world.crash(serial)
    world.feed(e.ReloadAsked())
    world.settle()
    assert world.is_serving(generation=2, workers=2)
