"""Crashes: replaced at once or after growing delays, counted in a sliding window. Failed forks: never counted."""

from __future__ import annotations

import math

import pytest

from prefork.errors import OverRecoveryError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.crashes import RETRY_S
from prefork.master.draft import JITTER, MAX_DELAY_S
from prefork.master.fleet import Phase
from tests.unit.fleets import CLEAN, SEGFAULT, World

NOT_FINAL = e.BootFailure("the server raised OSError: address in use", is_final=False)


def next_start_s(world: World) -> float:
    """How long from now the vacant slot waits; goes there."""
    before_s = world.now_s
    assert world.sent(c.Spawn) == [], "it was spawned without a delay"
    while not world.sent(c.Spawn):
        assert world.jump_to_deadline(), "nobody will ever be spawned"
    return world.now_s - before_s


def delays_s(world: World, crashes: int) -> list[float]:
    """How long slot 0 waits after each of so many crashes right after the start."""
    found = []
    for _ in range(crashes):
        world.fork_all()
        world.forget_commands()
        world.crash(world.child(0).serial)
        found.append(next_start_s(world))
    return found


class TestReplacement:
    def test_a_worker_that_had_settled_is_replaced_at_once(self) -> None:
        """SIGKILL in service: the next worker is asked for in the same decision."""
        world = World(2)
        world.serve()
        world.pass_time(0.5)
        world.forget_commands()
        world.crash(world.child(1).serial)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1]
        assert world.has_said("crashed: killed by signal 11")

    def test_the_recover_hook_follows_the_spawn_hook(self) -> None:
        """Both pids are told: the dead one's, then the new one's (seed)."""
        world = World(1)
        world.serve()
        world.pass_time(0.5)
        world.crash(world.child(0).serial)
        world.forget_commands()
        world.fork()
        called = [x for x in world.commands if isinstance(x, (c.CallSpawnHook, c.CallRecoverHook))]
        assert called == [c.CallSpawnHook(502), c.CallRecoverHook(501, 502)]

    def test_a_recovery_is_told_even_after_a_failed_fork(self) -> None:
        """The dead worker is not forgotten while its replacement cannot be made."""
        world = World(1)
        world.serve()
        world.pass_time(0.5)
        world.crash(world.child(0).serial)
        world.fail_fork()
        world.pass_time(1.0)
        world.fork()
        assert world.sent(c.CallRecoverHook) == [c.CallRecoverHook(501, 502)]

    def test_one_that_leaves_by_itself_is_replaced_and_not_counted(self) -> None:
        """Exit status 0 after some service, say to be recycled, is no crash (the seed counts it)."""
        world = World(1, threshold=0)
        world.serve()
        world.pass_time(0.5)
        world.forget_commands()
        world.exit(world.child(0).serial, CLEAN)
        assert len(world.sent(c.Spawn)) == 1
        assert world.fleet.crashes_s == ()
        assert world.has_said("left by itself")
        world.fork()
        assert world.sent(c.CallRecoverHook) == []

    @pytest.mark.parametrize("status", [SEGFAULT, CLEAN, e.ExitStatus(code=1)])
    def test_one_that_ends_right_after_its_start_is_a_crash_with_a_delay(self, status: e.ExitStatus) -> None:
        """Whatever its status: a program that returns at once would otherwise spin."""
        world = World(1)
        world.serve()
        world.pass_time(0.4)
        world.forget_commands()
        world.exit(world.child(0).serial, status)
        assert len(world.fleet.crashes_s) == 1
        assert next_start_s(world) >= world.fleet.rules.recover_interval_s

    def test_a_failure_that_is_not_final_is_a_crash_even_at_the_first_start(self) -> None:
        """The port was taken for a moment, say: worth another try."""
        world = World(1)
        world.start()
        world.load()
        world.forget_commands()
        world.fail_boot(world.fork(), NOT_FINAL)
        assert world.fleet.stopping is None
        assert next_start_s(world) > 0


class TestDelays:
    def test_they_double_up_to_a_bound_and_are_only_ever_stretched(self) -> None:
        """`recover_interval_s` is a promise; jitter adds up to half of it on top."""
        world = World(1, recover_interval_s=0.1)
        world.start()
        world.load()
        for nth, delay_s in enumerate(delays_s(world, 12)):
            plain_s = min(0.1 * 2**nth, MAX_DELAY_S)
            assert plain_s <= delay_s + 1e-9
            assert delay_s <= plain_s * (1 + JITTER)

    def test_an_interval_above_the_bound_stays_as_it_is(self) -> None:
        """Who asks for 30 seconds does not get 5, nor 60."""
        world = World(1, recover_interval_s=30.0)
        world.start()
        world.load()
        for delay_s in delays_s(world, 4):
            assert 30.0 <= delay_s + 1e-9 <= 45.0

    def test_an_interval_of_nothing_is_no_delay(self) -> None:
        """The seed's way: replaced at once, always."""
        world = World(1, recover_interval_s=0.0)
        world.start()
        world.load()
        world.crash(world.fork())
        assert len(world.pending) == 1

    def test_two_masters_do_not_crash_in_step(self) -> None:
        """Their delays differ, and each master's own differ from the plain doubling."""
        found = []
        for chance in (1, 2):
            world = World(1)
            world.fleet.chance = chance
            world.start()
            world.load()
            found.append(delays_s(world, 5))
        assert all(one != other for one, other in zip(*found, strict=True))

    def test_a_worker_that_settles_ends_the_streak(self) -> None:
        """After it the first delay is the short one again."""
        world = World(1, recover_interval_s=0.1)
        world.start()
        world.load()
        delays_s(world, 6)
        world.accept(world.fork())
        world.pass_time(0.5)
        world.crash(world.child(0).serial)
        assert delays_s(world, 1)[0] <= 0.15 + 1e-9

    def test_one_slots_trouble_is_its_own(self) -> None:
        """The other slot's worker is replaced at once."""
        world = World(2, recover_interval_s=30.0)
        world.serve()
        world.crash(world.child(0).serial)
        world.pass_time(0.5)
        world.forget_commands()
        world.crash(world.child(1).serial)
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1]

    def test_a_stop_does_not_wait_for_a_delay(self) -> None:
        """The fleet ends although a slot still had to wait (the seed's own test)."""
        world = World(1, recover_interval_s=30.0)
        world.serve()
        world.crash(world.child(0).serial)
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.settle()
        assert world.finish is not None
        assert world.finish.error is None

    def test_new_code_does_not_wait_for_the_old_codes_back_off(self) -> None:
        """A crash loop is mended by a reload: all slots start at once with the new generation."""
        world = World(2, recover_interval_s=30.0)
        world.start()
        world.load()
        for serial in world.fork_all():
            world.crash(serial)
        world.feed(e.ReloadAsked())
        world.settle()
        assert world.is_serving(generation=2, workers=2)


class TestThreshold:
    def crash_once(self, world: World) -> None:
        """In service, and long after the start."""
        world.pass_time(0.5)
        world.crash(world.child(0).serial)
        world.settle()

    def test_one_more_than_it_allows_ends_the_fleet(self) -> None:
        """Two are recovered from; with the third the others drain, and the caller is told."""
        world = World(2, threshold=2)
        world.serve()
        for _ in range(2):
            self.crash_once(world)
            assert world.fleet.stopping is None
        world.pass_time(0.5)
        world.forget_commands()
        world.crash(world.child(0).serial)
        assert world.sent(c.Spawn) == []
        assert world.nudges(Nudge.DRAIN) == [world.child(1).serial]
        world.settle()
        assert world.finish is not None
        assert isinstance(world.finish.error, OverRecoveryError)
        assert "3 crashes within 60 s exceed the recover threshold of 2" in str(world.finish.error)

    def test_rare_crashes_never_add_up(self) -> None:
        """A crash a minute, for months: the window slides."""
        world = World(1, threshold=1)
        world.serve()
        for _ in range(500):
            world.pass_time(60.0)
            self.crash_once(world)
        assert world.is_serving(generation=1, workers=1)
        assert len(world.fleet.crashes_s) <= 2

    def test_with_an_endless_window_they_do(self) -> None:
        """`math.inf` is the seed's count for life: months between them do not matter."""
        world = World(1, threshold=3, recover_window_s=math.inf)
        world.serve()
        for _ in range(3):
            self.crash_once(world)
            world.pass_time(30 * 86400.0)
        assert world.fleet.stopping is None
        self.crash_once(world)
        assert world.finish is not None
        assert isinstance(world.finish.error, OverRecoveryError)

    def test_an_endless_threshold_is_never_exceeded(self) -> None:
        """Who wants to ride out everything can."""
        world = World(1, threshold=math.inf)
        world.serve()
        for _ in range(200):
            self.crash_once(world)
        assert world.is_serving(generation=1, workers=1)

    def test_a_threshold_of_nothing_ends_with_the_first(self) -> None:
        """No crash is recovered from."""
        world = World(1, threshold=0)
        world.serve()
        self.crash_once(world)
        assert world.finish is not None

    def test_a_crash_loop_at_start_comes_to_an_end(self) -> None:
        """With the default delays, ten crashes in a minute are reached by a worker that never becomes ready."""
        world = World(1, threshold=10)
        world.start()
        world.load()
        began_s = world.now_s
        for _ in range(11):
            while not world.pending:
                assert world.jump_to_deadline()
            world.crash(world.fork())
        world.settle()
        assert world.finish is not None
        assert isinstance(world.finish.error, OverRecoveryError)
        assert world.now_s - began_s < 60.0

    @pytest.mark.parametrize("nudge", [Nudge.DRAIN, Nudge.KILL])
    def test_an_end_that_was_asked_for_is_no_crash(self, nudge: Nudge) -> None:
        """A drained worker may be killed by the grace period, or leave with any status."""
        world = World(2, threshold=0)
        world.serve()
        world.feed(e.ScaleAsked(-1))
        serial = world.child(1).serial
        if nudge is Nudge.KILL:
            world.pass_time(30.0)
        world.exit(serial, SEGFAULT)
        assert world.fleet.stopping is None
        assert world.fleet.crashes_s == ()


class TestFailedForks:
    @pytest.mark.parametrize("uses_zygote", [True, False])
    def test_they_are_tried_again_and_never_counted(self, *, uses_zygote: bool) -> None:
        """No process is left, for as long as it takes; then the fleet is whole, and nothing was counted."""
        world = World(2, threshold=0, uses_zygote=uses_zygote)
        world.is_out_of_processes = True
        world.start()
        if uses_zygote:
            world.load()
        for _ in range(100):
            while world.pending:
                world.fail_fork()
            assert world.jump_to_deadline()
        assert world.fleet.stopping is None
        assert world.has_said("cannot be spawned, will be tried again")
        world.is_out_of_processes = False
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)
        assert world.fleet.crashes_s == ()

    def test_their_delays_grow_too(self) -> None:
        """A machine without processes is not helped by asking for them ten times a second."""
        world = World(1)
        world.start()
        world.load()
        waits_s = []
        for _ in range(10):
            world.forget_commands()
            world.fail_fork()
            waits_s.append(next_start_s(world))
        assert RETRY_S <= waits_s[0] + 1e-9 <= RETRY_S * 1.5
        assert MAX_DELAY_S <= waits_s[-1] + 1e-9 <= MAX_DELAY_S * 1.5

    def test_a_fork_that_succeeds_ends_the_growth(self) -> None:
        """The next shortage begins with the short delay."""
        world = World(1)
        world.start()
        world.load()
        for _ in range(10):
            world.fail_fork()
            assert world.jump_to_deadline()
        world.accept(world.fork())
        world.pass_time(1.0)
        world.crash(world.child(0).serial)
        world.forget_commands()
        world.fail_fork()
        assert next_start_s(world) <= RETRY_S * 1.5 + 1e-9

    def test_those_who_serve_are_not_disturbed(self) -> None:
        """The other worker stays as it is."""
        world = World(2)
        world.serve()
        world.pass_time(1.0)
        world.crash(world.child(0).serial)
        for _ in range(5):
            world.fail_fork()
            assert world.jump_to_deadline()
        assert world.child(1).phase is Phase.READY
        assert world.nudges(Nudge.DRAIN) == []
