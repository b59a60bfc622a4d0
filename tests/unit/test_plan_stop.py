"""Stops: graceful, fast, at once, in every phase of a worker's life; each only ever made harder, each bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.draft import FAST_STOP_S, REPEAT_S, RETIRE_S, SPAWN_TIMEOUT_S, STACKS_S
from prefork.master.fleet import Phase
from tests.unit.fleets import CLEAN, KILLED, World

GRACE_S = 30.0


def stop(world: World, how: e.Stop = e.Stop.GRACEFUL) -> None:
    world.feed(e.StopAsked(how, how.name))


def spawning() -> World:
    world = World(1, reuseport=True)
    world.start()
    world.load()
    return world


def booting() -> World:
    world = spawning()
    world.fork()
    return world


def ready() -> World:
    world = booting()
    world.accept(1)
    return world


def draining() -> World:
    world = ready()
    world.feed(e.RestAsked())
    return world


def aborted() -> World:
    world = booting()
    world.pass_time(60.0)
    return world


def killed() -> World:
    world = aborted()
    world.pass_time(1.0)
    return world


MAKERS: dict[Phase, Callable[[], World]] = {
    Phase.SPAWNING: spawning,
    Phase.BOOTING: booting,
    Phase.READY: ready,
    Phase.DRAINING: draining,
    Phase.ABORTED: aborted,
    Phase.KILLED: killed,
}
NOW = {
    # What a worker in that phase is sent in the moment of a graceful, a fast and a hard stop.
    Phase.SPAWNING: ([], [], []),
    Phase.BOOTING: ([Nudge.DRAIN], [Nudge.KILL], [Nudge.KILL]),
    Phase.READY: ([Nudge.DRAIN], [Nudge.QUIT], [Nudge.KILL]),
    Phase.DRAINING: ([], [Nudge.QUIT], [Nudge.KILL]),
    Phase.ABORTED: ([], [Nudge.KILL], [Nudge.KILL]),
    Phase.KILLED: ([], [], []),
}


class TestInEveryPhase:
    @pytest.mark.parametrize("how", list(e.Stop))
    @pytest.mark.parametrize("phase", list(MAKERS))
    def test_a_worker_is_told_as_hard_as_was_asked(self, phase: Phase, how: e.Stop) -> None:
        """At once, unless it has been told so already or has no pid yet."""
        world = MAKERS[phase]()
        assert world.child(0).phase is phase
        world.forget_commands()
        stop(world, how)
        assert [x.nudge for x in world.sent(c.NudgeChild)] == NOW[phase][how - 1]

    @pytest.mark.parametrize(
        ("how", "nudge"),
        [(e.Stop.GRACEFUL, Nudge.DRAIN), (e.Stop.FAST, Nudge.QUIT), (e.Stop.KILL, Nudge.KILL)],
    )
    def test_a_steered_worker_is_told_too(self, how: e.Stop, nudge: Nudge) -> None:
        """Its quiet second is over."""
        world = World(2, reuseport=True)
        world.serve()
        world.feed(e.ScaleAsked(-1))
        assert world.child(1).phase is Phase.STEERED
        world.forget_commands()
        stop(world, how)
        assert world.nudges(nudge) == [1, 2]

    @pytest.mark.parametrize("how", list(e.Stop))
    def test_a_worker_that_is_born_during_the_stop_is_told_then(self, how: e.Stop) -> None:
        """The fork was under way; it has no time to boot."""
        world = spawning()
        stop(world, how)
        world.forget_commands()
        world.fork()
        assert len(world.sent(c.NudgeChild)) == 1
        assert [x.nudge for x in world.sent(c.NudgeChild)] == NOW[Phase.BOOTING][how - 1]
        world.settle()
        assert world.finish is not None

    @pytest.mark.parametrize("how", list(e.Stop))
    @pytest.mark.parametrize("phase", list(MAKERS))
    def test_it_ends_in_time_even_if_only_sigkill_is_heard(self, phase: Phase, how: e.Stop) -> None:
        """Every wait has a bound, also with a zygote that does not answer."""
        world = MAKERS[phase]()
        asked_s = world.now_s
        stop(world, how)
        while not world.fleet.finished:
            for process in list(world.processes.values()):
                if Nudge.KILL in process.told:
                    world.exit(process.serial, KILLED)
            for zygote in list(world.zygotes.values()):
                if Nudge.KILL in zygote.told:
                    world.end_zygote(zygote.generation, KILLED)
            assert world.fleet.finished or world.jump_to_deadline(), world.fleet
        patience_s = {e.Stop.GRACEFUL: GRACE_S, e.Stop.FAST: FAST_STOP_S, e.Stop.KILL: 0.0}[how]
        if phase in (Phase.SPAWNING, Phase.ABORTED):
            patience_s += SPAWN_TIMEOUT_S + STACKS_S
        assert world.now_s - asked_s <= patience_s + RETIRE_S + 1e-6


class TestGraceful:
    def test_all_drain_at_once_and_the_zygote_goes_last(self) -> None:
        """The service manager is told; the loop ends with the last process."""
        world = World(2)
        world.serve()
        world.forget_commands()
        stop(world)
        assert world.sent(c.Announce) == [c.Announce("stopping", "stopping")]
        assert world.nudges(Nudge.DRAIN) == [1, 2]
        last_call, *_, drain = [x for x in world.commands if isinstance(x, c.CallLast | c.NudgeChild)]
        assert (last_call, drain) == (c.CallLast(), c.NudgeChild(2, Nudge.DRAIN))
        world.exit(1)
        assert world.sent(c.RetireZygote) == []
        world.exit(2)
        assert world.sent(c.RetireZygote) == [c.RetireZygote(1)]
        assert world.finish is None
        world.end_zygote(status=CLEAN)
        assert world.finish == c.Finish(None)

    def test_who_does_not_finish_within_the_grace_is_killed(self) -> None:
        """And the log says why."""
        world = World(2, grace_s=30.0)
        world.serve()
        stop(world)
        world.exit(1)
        world.pass_time(29.9)
        assert world.nudges(Nudge.KILL) == []
        world.pass_time(0.2)
        assert world.nudges(Nudge.KILL) == [2]
        assert world.has_said("did not finish within 30 s: killing it")

    def test_a_loading_zygote_is_killed(self) -> None:
        """TERM in the import: no Python code need hear of it."""
        world = World(2)
        world.start()
        stop(world)
        assert world.zygotes[1].told == [Nudge.KILL]
        world.settle()
        assert world.finish == c.Finish(None)

    def test_it_is_obeyed_in_a_reload_too(self) -> None:
        """Both generations, and both zygotes, at once."""
        world = World(2)
        world.serve()
        world.feed(e.ReloadAsked())
        world.load(2)
        world.accept(world.fork())
        world.forget_commands()
        stop(world)
        assert world.nudges(Nudge.DRAIN) == [2, 3], "the first has been told already"
        world.settle()
        assert world.finish == c.Finish(None)

    def test_a_worker_that_accepts_at_the_last_moment_has_the_whole_grace(self) -> None:
        """It was told in its boot, began to accept all the same, and now it has something to finish."""
        world = booting()
        stop(world)
        world.pass_time(0.1)
        world.accept(1)
        world.pass_time(29.0)
        assert world.nudges(Nudge.KILL) == []
        world.pass_time(1.1)
        assert world.nudges(Nudge.KILL) == [1]

    def test_before_anything_was_started_it_is_over_at_once(self) -> None:
        """A fleet without a process has nothing to wait for."""
        world = World(1)
        stop(world)
        assert world.finish == c.Finish(None)
        world.feed(e.Started())
        assert world.sent(c.StartZygote) == []


class TestDrainTwice:
    def test_a_drain_is_repeated_once(self) -> None:
        """A signal may come between a program's last look and its wait: told again after half a second."""
        world = ready()
        world.forget_commands()
        stop(world)
        world.pass_time(REPEAT_S - 0.01)
        assert world.nudges(Nudge.DRAIN) == [1]
        world.pass_time(0.02)
        assert world.nudges(Nudge.DRAIN) == [1, 1]
        world.pass_time(GRACE_S - REPEAT_S - 0.1)
        assert world.nudges(Nudge.DRAIN) == [1, 1]
        assert world.nudges(Nudge.KILL) == []
        world.pass_time(0.1)
        assert world.nudges(Nudge.KILL) == [1], "the repetition does not lengthen the grace"

    def test_a_strangers_command_is_told_once(self) -> None:
        """What a command producer started may take a second TERM for haste."""
        world = World(1, uses_zygote=False, repeats_drain=False)
        world.serve()
        stop(world)
        world.pass_time(GRACE_S - 0.1)
        assert world.nudges(Nudge.DRAIN) == [1]
        world.pass_time(0.2)
        assert world.nudges(Nudge.KILL) == [1]

    def test_a_booting_worker_has_a_second_in_all(self) -> None:
        """It has accepted nothing, and its application may swallow what TERM raises in it."""
        world = booting()
        stop(world)
        world.pass_time(FAST_STOP_S - 0.01)
        assert world.nudges(Nudge.DRAIN) == [1, 1]
        assert world.nudges(Nudge.KILL) == []
        world.pass_time(0.02)
        assert world.nudges(Nudge.KILL) == [1]

    def test_a_grace_shorter_than_that_is_kept(self) -> None:
        """A grace period of nothing kills at the next look at the clock; none is told twice."""
        for grace_s in (0.0, 0.3):
            world = World(1, grace_s=grace_s)
            world.serve()
            stop(world)
            world.pass_time(grace_s)
            assert world.nudges(Nudge.DRAIN) == [1]
            assert world.nudges(Nudge.KILL) == [1]


class TestHarder:
    def test_fast_is_quit_and_a_second(self) -> None:
        """QUIT leaves through `finally` blocks; after a second it is SIGKILL."""
        world = ready()
        stop(world, e.Stop.FAST)
        assert world.nudges(Nudge.QUIT) == [1]
        world.pass_time(FAST_STOP_S)
        assert world.nudges(Nudge.KILL) == [1]

    def test_a_graceful_stop_is_made_fast(self) -> None:
        """A second INT: those who still drain are hurried, once."""
        world = World(2)
        world.serve()
        stop(world)
        world.pass_time(5.0)
        stop(world, e.Stop.FAST)
        stop(world, e.Stop.FAST)
        assert world.nudges(Nudge.QUIT) == [1, 2]
        world.pass_time(FAST_STOP_S)
        assert world.nudges(Nudge.KILL) == [1, 2]

    def test_haste_never_gives_more_time(self) -> None:
        """Less than a second of the grace was left: that is what remains."""
        world = ready()
        stop(world)
        world.pass_time(GRACE_S - 0.2)
        stop(world, e.Stop.FAST)
        world.pass_time(0.21)
        assert world.nudges(Nudge.KILL) == [1]

    def test_a_stop_is_never_made_softer(self) -> None:
        """TERM after QUIT changes nothing, and is not even logged."""
        world = ready()
        stop(world, e.Stop.FAST)
        world.forget_commands()
        stop(world)
        assert world.commands == []
        assert world.fleet.stopping is not None
        assert world.fleet.stopping.how is e.Stop.FAST

    def test_the_service_manager_is_told_once(self) -> None:
        """However hard it becomes."""
        world = ready()
        world.forget_commands()
        for how in e.Stop:
            stop(world, how)
        assert world.sent(c.Announce) == [c.Announce("stopping", "stopping")]

    def test_a_worker_that_is_killed_is_told_nothing_more(self) -> None:
        """There is nothing after SIGKILL."""
        world = ready()
        stop(world, e.Stop.KILL)
        world.forget_commands()
        world.pass_time(100.0)
        stop(world, e.Stop.KILL)
        assert world.sent(c.NudgeChild) == []
