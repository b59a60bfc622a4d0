"""How a fleet begins: who is started when, which hook is called, and what a failed start comes to."""

from __future__ import annotations

import pytest

from prefork.errors import ApplicationError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import CLEAN, IMPORT_ERROR, SEGFAULT, World


def hooks(world: World) -> list[c.Command]:
    return [x for x in world.commands if isinstance(x, (c.CallSpawnHook, c.CallReadyHook, c.CallRecoverHook))]


class TestAGoodStart:
    def test_nobody_is_forked_before_the_application_is_loaded(self) -> None:
        """The zygote comes first, and the workers when it is ready."""
        world = World(3)
        world.start()
        assert world.sent(c.StartZygote) == [c.StartZygote(1)]
        assert world.sent(c.Spawn) == []
        world.load()
        assert [(x.slot, x.generation) for x in world.sent(c.Spawn)] == [(0, 1), (1, 1), (2, 1)]

    def test_without_a_zygote_all_are_spawned_at_once(self) -> None:
        """Start method "exec": each worker is a program of its own."""
        world = World(3, uses_zygote=False)
        world.start()
        assert world.sent(c.StartZygote) == []
        assert [phase for _, _, phase in world.phases()] == [Phase.BOOTING] * 3

    @pytest.mark.parametrize("uses_zygote", [True, False])
    def test_the_hooks_come_in_the_order_of_the_seed(self, *, uses_zygote: bool) -> None:
        """One spawn hook for each worker, then the ready hook, once, with all pids; readiness is not waited for."""
        world = World(3, uses_zygote=uses_zygote)
        world.start()
        if uses_zygote:
            world.load()
            world.fork_all()
        spawned = [c.CallSpawnHook(501), c.CallSpawnHook(502), c.CallSpawnHook(503)]
        assert hooks(world) == [*spawned, c.CallReadyHook((501, 502, 503))]
        world.settle()
        assert len(hooks(world)) == 4

    def test_the_service_manager_hears_when_all_accept(self) -> None:
        """Not at the first of them, and once."""
        world = World(2)
        world.start()
        world.load()
        first, second = world.fork_all()
        world.accept(first)
        assert world.sent(c.Announce) == []
        world.accept(second)
        assert world.sent(c.Announce) == [c.Announce("ready", "serving with 2 workers")]
        assert world.has_said("ready: 2 workers")
        world.pass_time(1e6)
        assert len(world.sent(c.Announce)) == 1

    def test_a_fleet_that_serves_waits_for_nothing(self) -> None:
        """Idle means idle: no deadline is left."""
        world = World(2)
        world.serve()
        assert world.fleet.next_deadline_s() is None
        assert world.is_serving(generation=1, workers=2)

    def test_one_worker_that_is_late_holds_nobody_up(self) -> None:
        """The others accept as soon as they can."""
        world = World(2)
        world.start()
        world.load()
        world.accept(world.fork_all()[1])
        assert world.child(1).phase is Phase.READY
        assert world.child(0).phase is Phase.BOOTING

    def test_the_ready_hook_waits_for_a_fork_that_failed(self) -> None:
        """The pids are complete, whatever it took to get them."""
        world = World(2)
        world.start()
        world.load()
        world.fail_fork()
        world.fork()
        assert world.sent(c.CallReadyHook) == []
        world.pass_time(1.0)
        world.fork()
        assert [len(x.pids) for x in world.sent(c.CallReadyHook)] == [2]


class TestAFailedStart:
    def test_an_application_that_cannot_be_loaded_ends_the_master(self) -> None:
        """Another try would end the same way; the caller gets the reason, with the traceback."""
        world = World(2)
        world.start()
        world.fail_load()
        assert world.finish is not None
        error = world.finish.error
        assert isinstance(error, ApplicationError)
        assert str(error) == IMPORT_ERROR.summary
        assert error.details == IMPORT_ERROR.details
        assert world.sent(c.Spawn) == []

    def test_a_zygote_that_dies_in_its_import_ends_the_master(self) -> None:
        """It said nothing: its end is all there is to tell."""
        world = World(1)
        world.start()
        world.end_zygote(status=SEGFAULT)
        assert world.finish is not None
        assert str(world.finish.error) == "killed by signal 11 while the application was loaded"

    def test_an_import_that_hangs_is_shown_and_killed(self) -> None:
        """After the time-out its stacks are asked for, a second later it is killed, and the start has failed."""
        world = World(1, boot_timeout_s=60.0)
        world.start()
        world.pass_time(59.9)
        assert world.zygotes[1].told == []
        world.pass_time(0.1)
        assert world.zygotes[1].told == [Nudge.DUMP_STACKS]
        assert world.has_said("the application was not loaded within 60 s: its stacks follow")
        world.pass_time(1.0)
        assert world.zygotes[1].told == [Nudge.DUMP_STACKS, Nudge.KILL]
        world.end_zygote()
        assert world.finish is not None
        assert isinstance(world.finish.error, ApplicationError)

    def test_a_zygote_that_could_not_be_forked_is_tried_again(self) -> None:
        """No process is left: that is no failure of the application, however long it lasts."""
        world = World(1, threshold=0)
        world.start()
        for _ in range(20):
            world.zygotes.clear()
            world.feed(e.ZygoteUnstarted(1, "Cannot allocate memory"))
            assert world.zygotes == {}
            assert world.jump_to_deadline()
            assert list(world.zygotes) == [1]
        world.settle()
        assert world.is_serving(generation=1, workers=1)

    def test_a_worker_whose_application_fails_finally_ends_the_first_start(self) -> None:
        """The lifespan failed in the worker, and nobody has ever been ready: no loop, an answer."""
        world = World(2)
        world.start()
        world.load()
        first, second = world.fork_all()
        world.fail_boot(first)
        assert world.fleet.stopping is not None
        assert world.nudges(Nudge.DRAIN) == [second]
        world.settle()
        assert world.finish is not None
        assert isinstance(world.finish.error, ApplicationError)

    def test_the_same_failure_later_is_a_crash(self) -> None:
        """Somebody has been ready before: the application does start, sometimes."""
        world = World(2)
        world.start()
        world.load()
        first, second = world.fork_all()
        world.accept(first)
        world.fail_boot(second)
        assert world.fleet.stopping is None
        assert len(world.fleet.crashes_s) == 1

    def test_a_boot_that_hangs_ends_the_first_start(self) -> None:
        """Stacks, then SIGKILL, then the error that says how long was waited."""
        world = World(1, boot_timeout_s=5.0)
        world.start()
        world.load()
        serial = world.fork()
        world.pass_time(5.0)
        assert world.processes[serial].told == [Nudge.DUMP_STACKS]
        world.pass_time(1.0)
        assert world.processes[serial].told == [Nudge.DUMP_STACKS, Nudge.KILL]
        world.settle()
        assert world.finish is not None
        assert isinstance(world.finish.error, ApplicationError)
        assert str(world.finish.error) == "not ready within 5 s of its start"

    def test_a_boot_that_hangs_later_is_a_crash_with_a_delay(self) -> None:
        """The fleet has served: the hung worker is counted and replaced."""
        world = World(1)
        world.serve()
        world.pass_time(1.0)
        world.crash(world.child(0).serial)
        world.fork()
        world.pass_time(61.0)
        world.forget_commands()
        world.settle()
        assert world.fleet.stopping is None
        assert len(world.fleet.crashes_s) == 1, "the first is more than a minute old"
        assert world.sent(c.Spawn) == []
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    def test_a_hung_worker_that_becomes_ready_after_all_is_killed_all_the_same(self) -> None:
        """Its stacks have been asked for (SIGABRT ends it): nothing that it says can count any more."""
        world = World(1, boot_timeout_s=5.0)
        world.start()
        world.load()
        serial = world.fork()
        world.pass_time(5.0)
        world.accept(serial)
        assert world.child(0).phase is Phase.ABORTED
        world.pass_time(1.0)
        assert Nudge.KILL in world.processes[serial].told

    def test_a_worker_that_leaves_before_it_is_ready_has_crashed(self) -> None:
        """Even with status 0: it was asked to serve."""
        world = World(1)
        world.start()
        world.load()
        world.exit(world.fork(), CLEAN)
        assert world.has_said("exit status 0 before it was ready")
        assert len(world.fleet.crashes_s) == 1

    def test_the_traceback_is_told_once_a_generation(self) -> None:
        """Every failure has its line; the application's traceback is printed with the first."""
        world = World(2)
        world.serve()
        world.feed(e.ScaleAsked(2))
        for serial in world.fork_all():
            world.fail_boot(serial)
        told = [line for line in world.log if IMPORT_ERROR.summary in line]
        assert len(told) == 2
        assert [IMPORT_ERROR.details in line for line in told] == [True, False]
        world.feed(e.ReloadAsked())
        world.forget_commands()
        world.fail_load(2)
        assert world.has_said(IMPORT_ERROR.details), "new code fails in its own way"
