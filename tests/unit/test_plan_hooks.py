"""A hook that raises, a producer that breaks its contract: all children are killed, and no other hook is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from prefork.errors import CommandProducerError, ForkWithThreadsError
from prefork.master import commands as c
from prefork.master import crew as crews
from prefork.master import events as e
from prefork.master import loop
from prefork.master.commands import Command, Nudge
from prefork.master.crew import Crew
from prefork.master.fleet import Fleet
from prefork.master.rules import Rules
from tests.unit.fleets import World

HOOKS = (c.CallSpawnHook, c.CallReadyHook, c.CallRecoverHook)


def raise_error(error: Exception) -> Any:
    raise error


class HookShell:
    """Start method "exec" in memory; the n-th hook that is called raises."""

    def __init__(self, failing_call: int) -> None:
        self.calls: list[Command] = []
        self._failing_call = failing_call

    def execute(self, command: Command) -> tuple[e.Event, ...]:
        if isinstance(command, c.Spawn):
            return (e.ChildSpawned(command.child, 500 + command.child),)
        if isinstance(command, HOOKS):
            self.calls.append(command)
            if len(self.calls) == self._failing_call:
                return (e.Broken(RuntimeError("the hook")),)
        return ()


def crew_of(listeners: Any = None, *, uses_zygote: bool = False, producer: Any = None) -> Crew:
    """As much of a crew as starts a process, without a scoreboard."""
    means: Any = SimpleNamespace(
        uses_zygote=uses_zygote,
        command_producer=producer,
        started_in=None,
        is_watching=False,
        is_fork_fresh=lambda generation: True,
        zygote_main=None,
    )
    household: Any = SimpleNamespace(is_empty=True)
    return Crew(household, listeners, None, means, log_level=str, let_go=lambda: None)


class TestBroken:
    def test_all_children_and_zygotes_end_and_the_error_is_raised(self) -> None:
        """At once: workers are killed, and the zygote is let go (seed)."""
        world = World(2)
        world.serve()
        error = RuntimeError("the hook")
        world.feed(e.Broken(error))
        assert world.nudges(Nudge.KILL) == [1, 2]
        assert world.has_said("the hook: killing all workers")
        world.settle()
        assert world.finish == c.Finish(error)

    def test_the_first_error_is_the_one_that_is_raised(self) -> None:
        """What follows from it is not told instead."""
        world = World(2)
        world.serve()
        first = RuntimeError("first")
        world.feed(e.Broken(first))
        world.forget_commands()
        world.feed(e.Broken(RuntimeError("second")))
        assert world.log == []
        world.settle()
        assert world.finish == c.Finish(first)

    def test_it_hardens_a_stop_under_way_and_is_raised_all_the_same(self) -> None:
        """The spawn hook of a worker that was born during the stop raises."""
        world = World(1)
        world.serve()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        error = RuntimeError("the hook")
        world.feed(e.Broken(error))
        assert world.nudges(Nudge.KILL) == [1]
        world.settle()
        assert world.finish == c.Finish(error)

    def test_no_hook_is_called_for_a_worker_that_is_born_after_it(self) -> None:
        """The zygote was in the middle of a fork: the child is killed without a word to the program."""
        world = World(2)
        world.start()
        world.load()
        world.fork()
        world.feed(e.Broken(RuntimeError("the hook")))
        world.forget_commands()
        world.fork()
        assert [x for x in world.commands if isinstance(x, HOOKS)] == []
        assert world.nudges(Nudge.KILL) == [2]

    @pytest.mark.parametrize("uses_zygote", [True, False])
    def test_what_could_not_be_made_is_not_waited_for(self, *, uses_zygote: bool) -> None:
        """After it the failed start is dropped without a word about another try, and the end comes."""
        world = World(1, uses_zygote=uses_zygote)
        world.is_out_of_processes = True
        world.start()
        world.feed(e.Broken(RuntimeError("a contract")))
        if uses_zygote:
            world.zygotes.clear()
            world.feed(e.ZygoteUnstarted(1, "threads"))
        assert world.finish is not None


class TestTheLoop:
    def test_no_hook_is_called_after_one_has_raised(self) -> None:
        """The second spawn hook raises: the ready hook, due in the same moment, is not called (seed)."""
        shell: Any = HookShell(failing_call=2)
        fleet = Fleet(Rules(recover_threshold=1, uses_zygote=False), configured=2, wanted=2)
        loop._feed(fleet, shell, e.Started())
        assert [type(call) for call in shell.calls] == [c.CallSpawnHook, c.CallSpawnHook]

    def test_no_spawn_hook_is_called_after_one_has_raised(self) -> None:
        """The first spawn hook raises while the second worker's birth is already waiting to be told."""
        shell: Any = HookShell(failing_call=1)
        fleet = Fleet(Rules(recover_threshold=1, uses_zygote=False), configured=2, wanted=2)
        loop._feed(fleet, shell, e.Started())
        assert len(shell.calls) == 1


class TestTheCrew:
    def test_a_broken_command_producer_ends_the_master(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The spawn that a broken producer was asked for is answered, so that the fleet can finish."""
        monkeypatch.setattr(crews, "execute_worker", lambda *_: raise_error(CommandProducerError("None")))
        crew = crew_of(SimpleNamespace(for_slot=lambda slot: ()), producer=lambda files: None)
        events = list(crew.spawn(c.Spawn(1, 0, 1)))
        assert [type(event) for event in events] == [e.Broken, e.SpawnFailed]

    def test_a_refused_fork_of_the_zygote_ends_the_master(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The zygote that cannot be forked because of threads is answered for, so that the fleet can finish."""
        monkeypatch.setattr(crews, "fork_zygote", lambda *_: raise_error(ForkWithThreadsError("threads")))
        events = list(crew_of(uses_zygote=True).start_zygote(c.StartZygote(1)))
        assert [type(event) for event in events] == [e.Broken, e.ZygoteUnstarted]

    def test_a_slot_that_cannot_be_opened_yet_is_a_failed_spawn(self) -> None:
        """The slot below could not be opened (EMFILE): the next one is tried again later, and the master lives."""
        listeners = SimpleNamespace(for_slot=lambda slot: raise_error(ValueError("slot 3 is not open")))
        events = list(crew_of(listeners).spawn(c.Spawn(1, 3, 1)))
        assert [type(event) for event in events] == [e.SpawnFailed]
