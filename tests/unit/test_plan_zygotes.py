"""Zygotes that die, hang or cannot load while workers serve: the service goes on, and another is tried."""

from __future__ import annotations

from prefork.errors import ApplicationError, OverRecoveryError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.crashes import ZYGOTE_DELAY_S
from prefork.master.draft import JITTER, MAX_DELAY_S
from prefork.master.fleet import Phase
from tests.unit.fleets import SEGFAULT, World


def serving(workers: int = 2, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.pass_time(1.0)
    world.forget_commands()
    return world


def next_zygote_s(world: World) -> float:
    """How long from now until the zygote is started again; goes there."""
    before_s = world.now_s
    world.forget_commands()
    while not world.sent(c.StartZygote):
        assert world.jump_to_deadline(), "no zygote will ever be started"
    return world.now_s - before_s


class TestWhileWorkersServe:
    def test_a_zygote_that_dies_is_replaced_and_nobody_else_is_touched(self) -> None:
        """Workers do not need it to serve."""
        world = serving()
        world.end_zygote()
        assert world.has_said("zygote of generation 1 crashed: killed by signal 11")
        assert world.sent(c.NudgeChild) == []
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)
        assert world.sent(c.Spawn) == []

    def test_its_crash_is_counted_as_a_workers_is(self) -> None:
        """A zygote that is killed again and again is a fleet that cannot be kept alive."""
        world = serving(threshold=1)
        world.end_zygote()
        assert len(world.fleet.crashes_s) == 1
        world.calm_down()
        world.end_zygote()
        assert world.fleet.stopping is not None

    def test_code_that_cannot_be_loaded_any_more_is_no_crash(self) -> None:
        """Somebody is editing the files: it is tried again and again, and the loaded code serves."""
        world = serving(threshold=1)
        world.end_zygote()
        for _ in range(20):
            next_zygote_s(world)
            world.fail_load(1)
            assert world.fleet.stopping is None
        assert len(world.fleet.crashes_s) == 1, "the loaded zygote's own end"
        assert [phase for _, _, phase in world.phases()] == [Phase.READY] * 2

    def test_the_delay_grows_to_a_minute(self) -> None:
        """An import is not cheap, and nobody needs it at once."""
        world = serving(threshold=100, recover_interval_s=0.1)
        world.end_zygote()
        waits_s = []
        for _ in range(14):
            waits_s.append(next_zygote_s(world))
            world.fail_load(1)
        for nth, wait_s in enumerate(waits_s):
            plain_s = min(0.1 * 2**nth, ZYGOTE_DELAY_S)
            assert plain_s <= wait_s + 1e-9 <= plain_s * (1 + JITTER) + 2e-9

    def test_a_zygote_that_loads_ends_the_growth(self) -> None:
        """The next trouble begins with the short delay."""
        world = serving(threshold=100)
        world.end_zygote()
        for _ in range(10):
            next_zygote_s(world)
            world.fail_load(1)
        next_zygote_s(world)
        world.load()
        world.end_zygote()
        assert next_zygote_s(world) <= 0.15 + 1e-9

    def test_a_crashed_worker_waits_for_the_next_zygote(self) -> None:
        """There is nobody to fork it; then it is asked for at once."""
        world = serving()
        world.end_zygote()
        world.crash(1)
        assert world.sent(c.Spawn) == []
        next_zygote_s(world)
        world.load()
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0]

    def test_who_was_being_forked_is_forgotten_and_asked_for_again(self) -> None:
        """The zygote died with the request in its hands; the recovery is still told in the end."""
        world = serving()
        world.crash(1)
        lost = world.child(0).serial
        world.end_zygote()
        assert world.sent(c.Forget) == [c.Forget(lost)]
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)
        assert [x.old_pid for x in world.sent(c.CallRecoverHook)] == [501]

    def test_a_zygote_that_does_not_answer_is_killed_and_replaced(self) -> None:
        """A fork takes milliseconds; five seconds are a hang."""
        world = serving()
        world.crash(1)
        world.pass_time(4.9)
        assert world.zygotes[1].told == []
        world.pass_time(0.2)
        assert world.zygotes[1].told == [Nudge.KILL]
        assert world.has_said("zygote of generation 1 does not answer: killing it")
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)

    def test_a_zygote_that_cannot_be_made_is_tried_again(self) -> None:
        """No process is left; nothing is counted, and the workers serve."""
        world = serving(threshold=1)
        world.end_zygote()
        for _ in range(10):
            next_zygote_s(world)
            world.zygotes.clear()
            world.feed(e.ZygoteUnstarted(1, "Cannot allocate memory"))
        assert len(world.fleet.crashes_s) == 1
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)

    def test_an_import_that_hangs_meanwhile_is_killed(self) -> None:
        """With its stacks, as at the start; and it is no crash."""
        world = serving(threshold=1)
        world.end_zygote()
        next_zygote_s(world)
        world.pass_time(61.0)
        assert world.zygotes[1].told == [Nudge.DUMP_STACKS, Nudge.KILL]
        world.end_zygote()
        assert len(world.fleet.crashes_s) == 1, "the first zygote's only"
        world.calm_down()
        assert world.is_serving(generation=1, workers=2)


class TestWhileNobodyServes:
    def test_code_that_cannot_be_loaded_ends_a_fleet_without_workers(self) -> None:
        """The last worker crashed, and no other can be made: the caller is told why."""
        world = serving(1)
        world.end_zygote()
        world.crash(1)
        next_zygote_s(world)
        world.fail_load(1)
        assert world.finish is not None
        assert isinstance(world.finish.error, ApplicationError)

    def test_a_zygote_that_dies_without_a_word_is_replaced(self) -> None:
        """It had loaded the application: a crash, and worth another try."""
        world = serving(1)
        world.crash(1)
        world.end_zygote()
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    def test_one_that_is_killed_while_it_loads_is_a_crash(self) -> None:
        """The system is out of memory and ends whom it finds: that says nothing of code that has served."""
        world = serving(1, threshold=3)
        world.end_zygote()
        world.crash(1)
        next_zygote_s(world)
        world.end_zygote()
        assert world.has_said("killed by signal 11 while the application was loaded")
        assert len(world.fleet.crashes_s) == 3
        assert next_zygote_s(world) <= MAX_DELAY_S * (1 + JITTER), "they are missed"
        world.load()
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    def test_one_that_could_wait_is_wanted_sooner(self) -> None:
        """It was tried at growing distances while the loaded code served; now the last worker has gone."""
        world = serving(1, threshold=100)
        world.end_zygote()
        for _ in range(12):
            next_zygote_s(world)
            world.fail_load(1)
        world.crash(1)
        assert next_zygote_s(world) <= MAX_DELAY_S

    def test_one_that_is_killed_again_and_again_while_it_loads_ends_the_fleet(self) -> None:
        """As workers do that crash again and again."""
        world = serving(1, threshold=3)
        world.end_zygote()
        world.crash(1)
        for _ in range(2):
            next_zygote_s(world)
            world.end_zygote()
        assert world.finish is not None
        assert isinstance(world.finish.error, OverRecoveryError)

    def test_while_resting_it_is_tried_again_at_the_wake(self) -> None:
        """Nobody is meant to serve: its end neither ends the rest nor wakes the master up."""
        world = serving(2)
        world.feed(e.RestAsked())
        world.settle()
        world.end_zygote()
        assert world.fleet.stopping is None
        assert world.fleet.next_deadline_s() is None
        world.pass_time(120.0)
        world.feed(e.ScaleAsked(+1))
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    def test_code_that_cannot_be_loaded_does_not_end_a_rest(self) -> None:
        """WINCH in the first import, which then fails: the sockets stay, and HUP tries the mended code."""
        world = World(2, threshold=0)
        world.start()
        world.feed(e.RestAsked())
        world.fail_load(1)
        assert world.fleet.stopping is None
        world.feed(e.ReloadAsked())
        world.calm_down()
        assert world.is_serving(generation=2, workers=2)


class TestLateWords:
    def test_a_zygote_that_is_not_known_any_more_says_nothing(self) -> None:
        """Its messages may still be in the channel."""
        world = serving()
        before = world.fleet
        for event in (
            e.ZygoteReady(7),
            e.ZygoteFailed(7, e.BootFailure("late")),
            e.ZygoteExited(7, SEGFAULT),
        ):
            world.feed(event)
            assert world.fleet == before

    def test_a_zygote_says_ready_once(self) -> None:
        """A second time, or after it was told to leave, it means nothing."""
        world = serving(1)
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.exit(1)
        before = world.fleet
        world.feed(e.ZygoteReady(1))
        assert world.fleet.zygotes == before.zygotes
