"""Workers that are worn: their successors are spawned beside them, one at a time, and only then are they told to leave."""

from __future__ import annotations

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from prefork.master.recycling import HEAVY_SAMPLES, MEMORY_EVERY_S, SETTLED_S
from tests.unit.fleets import SEGFAULT, World

HOUR_S = 3600.0
ENOUGH = "it has served 200 requests"


def serving(workers: int = 2, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.forget_commands()
    return world


def worn(world: World, serial: int) -> None:
    world.feed(e.ChildWorn(serial, ENOUGH))


class TestOne:
    def test_its_successor_is_spawned_beside_it(self) -> None:
        """In its slot, of its generation; nobody is told anything."""
        world = serving()
        worn(world, 1)
        (spawn,) = world.sent(c.Spawn)
        assert (spawn.slot, spawn.generation) == (0, 1)
        assert world.sent(c.NudgeChild) == []
        assert world.has_said(f"worker 0 (pid 501, generation 1) is to be recycled: {ENOUGH}")

    def test_it_is_told_to_leave_when_the_successor_is_ready(self) -> None:
        """And not a moment sooner."""
        world = serving()
        worn(world, 1)
        successor = world.fork()
        assert world.nudges(Nudge.DRAIN) == []
        world.accept(successor)
        assert world.nudges(Nudge.DRAIN) == [1]
        world.settle()
        assert world.is_serving(generation=1, workers=2)

    def test_it_says_so_once_more_and_nothing_comes_of_it(self) -> None:
        """Once is enough; and a worker that drains anyway has nothing to say."""
        world = serving()
        worn(world, 1)
        worn(world, 1)
        assert len(world.sent(c.Spawn)) == 1
        world.accept(world.fork())
        worn(world, 1)
        world.settle()
        assert len(world.sent(c.Spawn)) == 1

    def test_no_hook_takes_it_for_a_crash(self) -> None:
        """The spawn hook is called for the successor; the recover hook is not."""
        world = serving()
        worn(world, 1)
        world.settle()
        assert world.sent(c.CallSpawnHook) == [c.CallSpawnHook(503)]
        assert world.sent(c.CallRecoverHook) == []
        assert world.fleet.crashes_s == ()

    def test_a_worn_one_that_crashes_is_replaced_once(self) -> None:
        """Its successor is on its way already."""
        world = serving()
        worn(world, 1)
        successor = world.fork()
        world.crash(1)
        assert len(world.sent(c.Spawn)) == 1
        world.accept(successor)
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)
        assert len(world.sent(c.Spawn)) == 1


class TestNeverTwoInStep:
    def test_the_next_waits_until_the_first_has_left(self) -> None:
        """Not only until its successor is ready: what drains still has its memory."""
        world = serving(3)
        for serial in (1, 2, 3):
            worn(world, serial)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0]
        world.accept(world.fork())
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0]
        world.exit(1)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0, 1]
        world.settle()
        assert world.is_serving(generation=1, workers=3)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0, 1, 2]

    def test_who_has_been_worn_for_longest_comes_first(self) -> None:
        """Whichever slot it has."""
        world = serving(3)
        worn(world, 2)
        world.now_s += 1
        worn(world, 3)
        world.now_s += 1
        worn(world, 1)
        world.settle()
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1, 2, 0]

    def test_not_during_a_reload(self) -> None:
        """It replaces all of them anyway; and afterwards nobody is worn."""
        world = serving()
        world.feed(e.ReloadAsked())
        worn(world, 1)
        assert world.sent(c.Spawn) == []
        world.settle()
        assert world.is_serving(generation=2, workers=2)
        assert [spawn.generation for spawn in world.sent(c.Spawn)] == [2, 2]

    def test_the_end_of_a_reload_lets_it_go_on(self) -> None:
        """The last old worker's end is the last event there is: nothing else comes to remind the master."""
        world = serving(uses_zygote=False)
        world.feed(e.ReloadAsked())
        new = world.child(0)
        world.accept(new.serial)
        worn(world, new.serial)
        world.settle()
        assert new.serial not in world.processes
        assert world.is_serving(generation=2, workers=2)

    def test_a_reload_that_fails_lets_it_go_on(self) -> None:
        """The old generation serves on, and ages on."""
        world = serving()
        world.feed(e.ReloadAsked())
        worn(world, 1)
        world.fail_load(2)
        world.settle()
        assert [spawn.generation for spawn in world.sent(c.Spawn)] == [1]
        assert world.is_serving(generation=1, workers=2)

    def test_a_reload_in_the_midst_of_it(self) -> None:
        """Worn one, successor, and new code: in the end there is the new code."""
        world = serving()
        worn(world, 1)
        world.fork()
        world.feed(e.ReloadAsked())
        world.settle()
        assert world.is_serving(generation=2, workers=2)

    @pytest.mark.parametrize("reuseport", [False, True])
    def test_a_slot_that_is_given_up_meanwhile(self, *, reuseport: bool) -> None:
        """Worn one and successor leave."""
        world = serving(2, reuseport=reuseport)
        worn(world, 2)
        world.fork()
        world.feed(e.ScaleAsked(-1))
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    def test_not_while_resting_or_stopping(self) -> None:
        """Nothing is started then."""
        for event in (e.RestAsked(), e.StopAsked(e.Stop.GRACEFUL, "a test")):
            world = serving()
            world.feed(event)
            worn(world, 1)
            assert world.sent(c.Spawn) == []


class TestASuccessorThatFails:
    def test_the_worn_one_serves_on(self) -> None:
        """It is no crash: nobody is missing. Another try comes later."""
        world = serving(2, threshold=0)
        worn(world, 1)
        world.exit(world.fork(), SEGFAULT)
        assert world.fleet.stopping is None
        assert world.fleet.crashes_s == ()
        assert world.has_said("failed: killed by signal 11 before it was ready; it serves on, next try in")
        assert world.phases() == [(0, 1, Phase.READY), (1, 1, Phase.READY)]
        assert len(world.sent(c.Spawn)) == 1
        world.calm_down()
        assert len(world.sent(c.Spawn)) == 2
        assert world.is_serving(generation=1, workers=2)

    def test_the_tries_come_farther_and_farther_apart(self) -> None:
        """Up to a minute and its jitter."""
        world = serving()
        worn(world, 1)
        delays_s = []
        for _ in range(10):
            world.exit(world.fork(), SEGFAULT)
            begun_s = world.now_s
            assert world.jump_to_deadline()
            delays_s.append(world.now_s - begun_s)
        assert 1 <= delays_s[0] <= 1.5
        assert 60 <= delays_s[-1] <= 90
        assert delays_s[2] > delays_s[0]

    def test_a_final_failure_is_none_for_the_fleet(self) -> None:
        """Code that cannot be started any more is told, and what serves is left alone."""
        world = serving()
        worn(world, 1)
        world.fail_boot(world.fork())
        assert world.fleet.stopping is None
        assert world.has_said("it serves on")

    def test_one_that_hangs(self) -> None:
        """Its stacks, then its end; the worn one serves on."""
        world = serving(2, boot_timeout_s=60.0)
        worn(world, 1)
        successor = world.fork()
        world.pass_time(60.5)
        assert world.nudges(Nudge.DUMP_STACKS) == [successor]
        world.exit(successor, e.ExitStatus(signal=6))
        assert world.fleet.crashes_s == ()
        assert world.has_said("it serves on")

    def test_one_that_cannot_be_spawned(self) -> None:
        """No process was to be had: not tried as often as a missing worker."""
        world = serving()
        worn(world, 1)
        world.fail_fork()
        assert world.has_said("its successor cannot be spawned")
        assert world.fleet.next_deadline_s() is not None
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)

    def test_one_that_fails_after_the_worn_one_is_gone_is_a_crash(self) -> None:
        """Then somebody is missing."""
        world = serving()
        worn(world, 1)
        successor = world.fork()
        world.crash(1)
        world.exit(successor, SEGFAULT)
        assert len(world.fleet.crashes_s) == 2


class TestAge:
    def test_the_bound_is_shortened_by_chance_never_stretched(self) -> None:
        """So that workers that started together do not age together."""
        world = serving(4, max_age_s=HOUR_S, recycle_jitter=0.2)
        bounds_s = [child.wears_at_s for child in world.fleet.children.values()]
        ages_s = [bound_s - world.now_s for bound_s in bounds_s if bound_s is not None]
        assert len(set(ages_s)) == 4
        assert all(0.8 * HOUR_S <= age_s <= HOUR_S for age_s in ages_s)

    def test_the_master_wakes_up_for_it_and_for_nothing_else(self) -> None:
        """Once for each worker."""
        world = serving(1, max_age_s=HOUR_S)
        world.pass_time(HOUR_S - 1)
        assert world.commands == []
        world.pass_time(2)
        assert len(world.sent(c.Spawn)) == 1
        assert world.has_said("it has served for 3600 s")

    def test_one_after_the_other_for_ever(self) -> None:
        """And all that time there are enough of them."""
        world = serving(2, max_age_s=HOUR_S, recycle_jitter=0.2)
        for _ in range(20):
            world.jump_to_deadline()
            world.settle()
            assert world.is_serving(generation=1, workers=2)
        assert len(world.sent(c.Spawn)) == 20

    def test_no_bound_is_no_deadline(self) -> None:
        """The default."""
        assert serving().fleet.next_deadline_s() is None


class TestRequests:
    def test_each_worker_has_a_bound_of_its_own(self) -> None:
        """Shortened by chance, told with its spawn."""
        world = World(4, max_requests=1000, recycle_jitter=0.2)
        world.serve()
        bounds = [spawn.requests for spawn in world.sent(c.Spawn)]
        assert len(set(bounds)) == 4
        assert all(800 <= bound <= 1000 for bound in bounds)

    def test_the_smallest_bound_is_a_bound(self) -> None:
        """Not 0, which would be none."""
        world = World(4, max_requests=1, recycle_jitter=0.9)
        world.serve()
        assert [spawn.requests for spawn in world.sent(c.Spawn)] == [1] * 4

    def test_no_bound(self) -> None:
        """The default."""
        world = World(1)
        world.serve()
        assert [spawn.requests for spawn in world.sent(c.Spawn)] == [0]


class TestMemory:
    def test_several_looks_in_a_row_make_it_worn(self) -> None:
        """A peak does not."""
        world = serving(2, max_memory_bytes=100 * 2**20)
        world.memory = {1: 150 * 2**20, 2: 99 * 2**20}
        world.pass_time(MEMORY_EVERY_S * (HEAVY_SAMPLES - 1) + 1)
        assert world.sent(c.Spawn) == []
        world.memory[1] = 0
        world.pass_time(MEMORY_EVERY_S)
        world.memory[1] = 150 * 2**20
        world.pass_time(MEMORY_EVERY_S * (HEAVY_SAMPLES - 1))
        assert world.sent(c.Spawn) == []
        world.pass_time(MEMORY_EVERY_S)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0]
        assert world.has_said("it has 150 MiB, more than 100")

    def test_without_a_bound_nobody_looks(self) -> None:
        """No timer: idle is idle."""
        assert serving().fleet.next_deadline_s() is None

    def test_with_a_bound_there_is_one_timer_while_somebody_serves(self) -> None:
        """And none while the fleet rests."""
        world = serving(2, max_memory_bytes=1)
        assert world.fleet.next_deadline_s() == world.now_s + MEMORY_EVERY_S
        world.feed(e.RestAsked())
        world.calm_down()
        assert world.fleet.next_deadline_s() is None

    def test_a_fleet_above_its_budget_recycles_the_largest(self) -> None:
        """What the others have, the zygote's too, counts; who has been recycled is not blamed again at once."""
        world = serving(3, max_fleet_bytes=1000)
        world.pass_time(SETTLED_S)
        world.memory = {1: 200, 2: 400, 3: 300}
        world.others_bytes = 50
        world.pass_time(10 * MEMORY_EVERY_S)
        assert world.sent(c.Spawn) == []
        world.others_bytes = 150
        world.pass_time(HEAVY_SAMPLES * MEMORY_EVERY_S)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1]
        world.settle()
        world.memory = {1: 200, 3: 300, world.child(1).serial: 20}
        world.pass_time(10 * MEMORY_EVERY_S)
        assert len(world.sent(c.Spawn)) == 1

    def test_one_at_a_time_and_then_another_look(self) -> None:
        """While one is being recycled nobody else is chosen, and afterwards it takes as many looks again."""
        world = serving(2, max_fleet_bytes=100)
        world.pass_time(SETTLED_S)
        world.memory = {1: 100, 2: 90}
        world.pass_time(HEAVY_SAMPLES * MEMORY_EVERY_S)
        assert len(world.sent(c.Spawn)) == 1
        world.pass_time(10 * MEMORY_EVERY_S)
        assert len(world.sent(c.Spawn)) == 1

    def test_young_workers_are_not_recycled_for_the_fleets_sake(self) -> None:
        """Where they are too large from the start it would go on for ever."""
        world = serving(2, max_fleet_bytes=100)
        world.memory = {1: 100, 2: 90}
        world.pass_time(SETTLED_S - 1)
        assert world.sent(c.Spawn) == []
        world.pass_time(HEAVY_SAMPLES * MEMORY_EVERY_S)
        assert len(world.sent(c.Spawn)) == 1

    def test_what_is_seen_of_the_dead_and_the_draining_is_nothing(self) -> None:
        """They may have gone between the look and the telling."""
        world = serving(2, max_memory_bytes=1, max_fleet_bytes=1)
        world.feed(e.MemorySeen(((77, 5),), 5))
        assert world.sent(c.Spawn) == []
