"""A canary reload: some of the new serve beside all of the old, and what they do decides."""

from __future__ import annotations

from typing import Any

import pytest

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import World

FOR_S = 30.0


def canary(workers: int = 10, share: float = 0.2, **rules: Any) -> tuple[World, int]:
    """A fleet of which some workers try a new generation out: the fleet, and who has asked for it."""
    world = World(workers, **rules)
    world.serve()
    client = world.ask(control.Reload(share, FOR_S))
    world.settle()
    world.forget_commands()
    return world, client


def of(world: World, generation: int) -> list[int]:
    """Serial numbers of its workers, in order."""
    return sorted(x.serial for x in world.processes.values() if x.generation == generation)


def answer(world: World, generation: int, count: int, status: int = 2) -> None:
    """Each of its workers answers so often."""
    for serial in of(world, generation):
        world.processes[serial].statuses[status] += count


@pytest.mark.parametrize(
    ("workers", "share", "slots"), [(10, 0.1, 1), (10, 0.2, 2), (10, 0.11, 2), (2, 0.1, 1), (3, 1.0, 3)]
)
def test_so_many_serve_beside_all_of_the_old(workers: int, share: float, slots: int) -> None:
    """One at least; and nobody is told to stop."""
    world, client = canary(workers, share)
    assert (len(of(world, 1)), len(of(world, 2))) == (workers, slots)
    assert (world.fleet.generation, world.fleet.incoming) == (1, 2)
    assert world.final(client) is None
    world.pass_time(FOR_S - 1)
    assert not world.nudges(Nudge.DRAIN)


def test_one_that_does_as_well_replaces_the_old_ones() -> None:
    world, client = canary()
    answer(world, 1, 100)
    answer(world, 2, 100)
    world.pass_time(FOR_S + 1)
    assert world.has_said("the canary has done as well as the old generation: 200 requests, 0 errors (5xx)")
    world.settle()
    assert world.is_serving(2, 10)
    assert world.final(client) == control.Done("generation 2 serves")
    assert world.fleet.next_deadline_s() is None


def test_one_that_answers_with_errors_is_rolled_back_at_once() -> None:
    """The old ones have never stopped; whoever has asked is told why."""
    world, client = canary()
    old = of(world, 1)
    world.pass_time(3)
    answer(world, 1, 100)
    answer(world, 2, 20, status=5)
    world.pass_time(1)
    assert isinstance(world.final(client), control.Failed)
    assert "100.0% of its answers are errors" in str(world.final(client))
    assert world.nudges(Nudge.DRAIN) == [11, 12]
    world.settle()
    assert world.is_serving(1, 10)
    assert of(world, 1) == old
    assert world.fleet.next_deadline_s() is None


def test_what_was_before_counts_for_nobody() -> None:
    """The old generation had its bad hour; now it is good, and the new one is not."""
    world = World(2)
    world.serve()
    answer(world, 1, 1000, status=5)
    client = world.ask(control.Reload(0.5, FOR_S))
    world.settle()
    world.pass_time(2)
    answer(world, 1, 1000)
    answer(world, 2, 50, status=5)
    world.pass_time(1)
    assert isinstance(world.final(client), control.Failed)


def test_one_that_crashes_ends_it() -> None:
    world, client = canary()
    world.pass_time(3)
    world.crash(11)
    assert isinstance(world.final(client), control.Failed)
    assert not world.fleet.crashes_s, "the fleet is well"
    world.settle()
    assert world.is_serving(1, 10)


def test_one_that_hangs_ends_it() -> None:
    world, client = canary(hang_timeout_s=5.0)
    world.wake(11)
    world.block(11)
    world.pass_time(6)
    assert isinstance(world.final(client), control.Failed)
    assert "hung" in str(world.final(client))
    world.calm_down()
    assert world.is_serving(1, 10)


def test_one_of_several_that_does_not_start_ends_it() -> None:
    """The others may be on their way; none of them stays."""
    world = World(4)
    world.serve()
    client = world.ask(control.Reload(0.5, FOR_S))
    world.load(2)
    first = world.fork()
    world.accept(first)
    world.fail_boot(world.fork())
    assert isinstance(world.final(client), control.Failed)
    world.settle()
    assert world.is_serving(1, 4)


def test_one_of_several_that_cannot_be_forked_any_more_is_nobodys_loss() -> None:
    """It was to belong to a generation that has been given up meanwhile."""
    world = World(4)
    world.serve()
    world.ask(control.Reload(0.75, FOR_S))
    world.load(2)
    world.fail_boot(world.fork())
    world.forget_commands()
    while world.pending:
        world.fail_fork()
    assert not world.has_said("will be tried again")
    world.settle()
    assert world.is_serving(1, 4)


def test_an_old_one_that_crashes_meanwhile_is_replaced_by_an_old_one() -> None:
    world, _ = canary()
    world.pass_time(1)
    world.crash(1)
    world.settle()
    assert len(of(world, 1)) == 10
    assert world.fleet.incoming == 2


def test_a_rolled_back_one_serves_until_the_old_one_in_its_slot_does() -> None:
    """Ready workers never fall below what is wanted by our own hand."""
    world, _ = canary(workers=2, share=0.5)
    world.pass_time(2)
    world.crash(1)
    answer(world, 2, 50, status=5)
    world.pass_time(1)
    assert world.fleet.incoming is None
    assert not world.nudges(Nudge.DRAIN)
    assert world.fleet.children[3].phase is Phase.READY
    world.settle()
    assert world.is_serving(1, 2)


def test_another_reload_comes_after_it() -> None:
    """HUP is heard: the code has changed once more."""
    world, _ = canary()
    world.feed(e.ReloadAsked())
    world.pass_time(FOR_S + 1)
    world.settle()
    assert world.is_serving(3, 10)


@pytest.mark.parametrize(
    ("share", "for_s", "why"),
    [
        (1.5, 30.0, "canary must be a share from 0 to 1, not 1.5"),
        (-0.1, 30.0, "canary must be a share from 0 to 1, not -0.1"),
        (0.1, 0.0, "canary_s must be more than 0 seconds, not 0.0"),
        (0.1, float("inf"), "canary_s must be more than 0 seconds, not inf"),
    ],
)
def test_what_cannot_be_is_refused(share: float, for_s: float, why: str) -> None:
    world = World(2)
    world.serve()
    client = world.ask(control.Reload(share, for_s))
    assert world.final(client) == control.Failed(why)
    assert world.fleet.incoming is None


def test_a_canary_in_the_midst_of_a_reload_is_refused() -> None:
    world, _ = canary()
    client = world.ask(control.Reload(0.1, FOR_S))
    assert world.final(client) == control.Failed("a reload is under way: ask for a canary when it is over")


def test_a_rest_begins_it_anew() -> None:
    """Nobody has served meanwhile, so nothing was tried."""
    world, _ = canary(workers=2)
    world.pass_time(10)
    world.feed(e.RestAsked())
    world.settle()
    world.feed(e.ScaleAsked(2))
    world.settle()
    world.pass_time(FOR_S - 5)
    assert world.fleet.incoming == 2
    world.pass_time(6)
    world.settle()
    assert world.is_serving(2, 2)


def test_it_is_looked_at_once_a_second_and_not_afterwards() -> None:
    world, _ = canary()
    world.pass_time(FOR_S + 2)
    world.settle()
    assert FOR_S - 1 <= len(world.sent(c.LookAtPulses)) <= FOR_S + 1
