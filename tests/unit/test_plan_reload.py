"""Reloads: the new code is proven by one worker before anything old is told to stop, or nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import IMPORT_ERROR, SEGFAULT, World

NOT_FINAL = e.BootFailure("the server raised OSError", is_final=False)


def serving(workers: int = 3, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.pass_time(1.0)
    world.forget_commands()
    return world


class TestAGoodReload:
    def test_it_is_proven_by_one_worker_first(self) -> None:
        """The new code is loaded and one worker of it forked; until that one accepts, nobody is told anything."""
        world = serving()
        world.feed(e.ReloadAsked())
        assert world.sent(c.StartZygote) == [c.StartZygote(2)]
        assert world.sent(c.Announce) == [c.Announce("reloading", "loading generation 2")]
        world.load(2)
        assert [(x.slot, x.generation) for x in world.sent(c.Spawn)] == [(0, 2)]
        serial = world.fork()
        assert world.sent(c.NudgeChild) == []
        world.accept(serial)
        assert [(x.slot, x.generation) for x in world.sent(c.Spawn)] == [(0, 2), (1, 2), (2, 2)]
        assert world.nudges(Nudge.DRAIN) == [1], "the old worker of that slot, and nobody else"

    def test_each_old_worker_leaves_when_its_own_successor_accepts(self) -> None:
        """Slot by slot: as many serve as before, at every moment."""
        world = serving()
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        second, third = world.fork_all()
        world.accept(third)
        assert world.nudges(Nudge.DRAIN) == [1, 3]
        world.accept(second)
        assert world.nudges(Nudge.DRAIN) == [1, 3, 2]

    def test_it_is_done_when_the_last_old_worker_is_gone(self) -> None:
        """All new ones accept, but one old one still finishes a request: not yet."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.accept(world.fork())
        world.exit(1)
        assert not world.has_said("reload done")
        assert [x.state for x in world.sent(c.Announce)] == ["reloading"]
        world.exit(2)
        assert world.has_said("reload done: generation 2 serves")
        assert world.sent(c.Announce)[-1] == c.Announce("ready", "serving, generation 2")

    def test_the_old_zygote_stays_as_long_as_a_worker_of_its_own(self) -> None:
        """The two may share what the application made at import."""
        world = serving(1)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        assert world.sent(c.RetireZygote) == []
        world.exit(1)
        assert world.sent(c.RetireZygote) == [c.RetireZygote(1)]
        world.settle()
        assert world.is_serving(generation=2, workers=1)

    def test_a_zygote_that_does_not_leave_is_killed(self) -> None:
        """Its exit handlers have a second."""
        world = serving(1)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.exit(1)
        world.pass_time(1.0)
        assert world.zygotes[1].told == [Nudge.KILL]

    def test_without_a_zygote_it_goes_the_same_way(self) -> None:
        """Start method "exec": one new program first, and the others after it."""
        world = serving(2, uses_zygote=False)
        world.feed(e.ReloadAsked())
        assert world.phases() == [(0, 1, Phase.READY), (0, 2, Phase.BOOTING), (1, 1, Phase.READY)]
        world.settle()
        assert world.is_serving(generation=2, workers=2)

    def test_the_ready_hook_is_not_called_again(self) -> None:
        """Once in the life of a master (seed); each new worker has its spawn hook, and none is a recovery."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        world.settle()
        assert len(world.sent(c.CallSpawnHook)) == 2
        assert world.sent(c.CallReadyHook) == []
        assert world.sent(c.CallRecoverHook) == []

    def test_a_reload_long_after_a_crash_is_no_recovery(self) -> None:
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

    def test_an_old_worker_that_crashes_meanwhile_is_replaced_by_old_code(self) -> None:
        """The new code is not proven yet, and the slot is not left empty for its sake."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        world.crash(2)
        assert [(x.slot, x.generation) for x in world.sent(c.Spawn)] == [(1, 1)]

    def test_an_old_worker_that_boots_is_not_waited_for(self) -> None:
        """Once the new code is proven, nobody needs a worker of the old one that does not serve yet."""
        world = serving(2)
        world.crash(2)
        late = world.fork()
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        assert world.nudges(Nudge.DRAIN) == [late, 1]
        world.settle()
        assert world.is_serving(generation=2, workers=2)

    def test_a_new_worker_that_crashes_while_rolling_is_replaced_and_its_elder_stays(self) -> None:
        """Proven code may crash: that is counted, and the old worker serves until a new one does."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.crash(world.fork())
        assert world.child(1).generation == 1
        assert world.child(1).phase is Phase.READY
        assert len(world.fleet.crashes_s) == 1
        world.calm_down()
        assert world.is_serving(generation=2, workers=2)


def cannot_be_loaded(world: World) -> None:
    world.fail_load(2)


def dies_in_its_import(world: World) -> None:
    world.end_zygote(2, SEGFAULT)


def hangs_in_its_import(world: World) -> None:
    world.pass_time(61.0)
    assert world.zygotes[2].told == [Nudge.DUMP_STACKS, Nudge.KILL]
    world.end_zygote(2)


def zygote_cannot_be_made(world: World) -> None:
    del world.zygotes[2]
    world.feed(e.ZygoteUnstarted(2, "Cannot allocate memory"))


def worker_cannot_be_made(world: World) -> None:
    world.load(2)
    world.fail_fork()


def worker_fails(world: World) -> None:
    world.load(2)
    world.fail_boot(world.fork(), IMPORT_ERROR)


def worker_fails_in_passing(world: World) -> None:
    world.load(2)
    world.fail_boot(world.fork(), NOT_FINAL)


def worker_crashes(world: World) -> None:
    world.load(2)
    world.crash(world.fork())


def worker_hangs(world: World) -> None:
    world.load(2)
    serial = world.fork()
    world.pass_time(61.0)
    assert world.processes[serial].told == [Nudge.DUMP_STACKS, Nudge.KILL]
    world.exit(serial, e.ExitStatus(signal=9))


def zygote_dies_when_asked_for_a_worker(world: World) -> None:
    world.load(2)
    world.end_zygote(2, SEGFAULT)


FAILURES = [
    cannot_be_loaded,
    dies_in_its_import,
    hangs_in_its_import,
    zygote_cannot_be_made,
    worker_cannot_be_made,
    worker_fails,
    worker_fails_in_passing,
    worker_crashes,
    worker_hangs,
    zygote_dies_when_asked_for_a_worker,
]


class TestAFailedReload:
    @pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
    def test_the_old_generation_serves_on(self, fail: Callable[[World], None]) -> None:
        """Nothing old has been told anything, nothing is counted as a crash, and the log and systemd hear of it."""
        world = serving(2, threshold=0)
        world.feed(e.ReloadAsked())
        fail(world)
        assert world.has_said("error: reload failed: ")
        assert world.has_said("generation 1 serves on")
        assert world.sent(c.Announce)[-1] == c.Announce("ready", "reload failed, generation 1 serves on")
        assert [x for x in world.sent(c.NudgeChild) if x.child in (1, 2)] == []
        assert world.fleet.crashes_s == ()
        world.settle()
        assert world.is_serving(generation=1, workers=2)
        assert world.fleet.next_deadline_s() is None, "and nobody tries again by himself"

    @pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
    def test_a_reload_that_was_asked_for_meanwhile_follows_the_failed_one(
        self, fail: Callable[[World], None]
    ) -> None:
        """Perhaps it was asked for because the code has been mended."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        world.feed(e.ReloadAsked())
        fail(world)
        world.settle()
        assert world.is_serving(generation=3, workers=2)

    def test_a_reload_that_hangs_is_tried_once(self) -> None:
        """The incoming worker hangs in its boot: no second one is spawned while it is being killed."""
        world = serving(1)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.fork()
        world.forget_commands()
        world.pass_time(60.5)
        assert world.sent(c.Spawn) == []

    def test_a_failed_first_generation_can_be_mended_by_a_reload(self) -> None:
        """Every generation has a number of its own, also those that failed."""
        world = serving(1)
        for generation in (2, 3):
            world.feed(e.ReloadAsked())
            world.fail_load(generation)
        world.feed(e.ReloadAsked())
        world.settle()
        assert world.is_serving(generation=4, workers=1)


class TestReloadsInARow:
    def test_several_during_one_become_one_more(self) -> None:
        """HUP, HUP, HUP while the first loads: what was on the disk then is loaded once, what is now once more."""
        world = serving(2)
        world.feed(e.ReloadAsked())
        for _ in range(3):
            world.feed(e.ReloadAsked())
        assert world.has_said("another follows it")
        assert len(world.sent(c.StartZygote)) == 1
        world.settle()
        assert world.is_serving(generation=3, workers=2)
        assert world.sent(c.StartZygote) == [c.StartZygote(2), c.StartZygote(3)]

    def test_one_that_comes_while_workers_are_replaced_begins_at_once(self) -> None:
        """The second generation is proven, but not everywhere yet: the third is tried beside it."""
        world = serving(3)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.feed(e.ReloadAsked())
        assert world.sent(c.StartZygote)[-1] == c.StartZygote(3)
        world.settle()
        assert world.is_serving(generation=3, workers=3)
        assert [x.generation for x in world.sent(c.RetireZygote)] == [1, 2]

    def test_one_that_fails_while_workers_are_replaced_stops_nothing(self) -> None:
        """The roll-out of the generation before goes on to its end."""
        world = serving(3)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.feed(e.ReloadAsked())
        world.fail_load(3)
        world.settle()
        assert world.is_serving(generation=2, workers=3)
        assert world.has_said("reload done: generation 2 serves")

    def test_one_during_the_start_replaces_workers_that_never_served(self) -> None:
        """HUP in the first boot: nobody waits for the old code."""
        world = World(2)
        world.start()
        world.load()
        world.fork_all()
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.settle()
        assert world.is_serving(generation=2, workers=2)

    def test_one_during_a_stop_is_ignored(self) -> None:
        """TERM has the last word."""
        world = serving(1)
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.feed(e.ReloadAsked())
        assert world.has_said("reload ignored: stopping")
        assert world.sent(c.StartZygote) == []

    def test_the_service_manager_is_not_told_ready_after_a_stop(self) -> None:
        """Stop during a reload whose first fork then fails: no "ready", no "reload failed"."""
        world = serving(1)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.forget_commands()
        world.fail_fork()
        assert world.sent(c.Announce) == []
