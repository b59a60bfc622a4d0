"""A worker whose loop is blocked is found, shown and replaced; nobody else is taken for one."""

from __future__ import annotations

import math

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import CONFIRM_S, Phase
from prefork.master.hangs import DUMP_S, NOBODY, STACKS_S
from tests.unit.fleets import KILLED, World

TIMEOUT_S = 30.0


def hanging(workers: int = 2, **rules: object) -> World:
    """A fleet that serves; its first worker is awake, and its loop is blocked from now on."""
    world = World(workers, **{"hang_timeout_s": TIMEOUT_S, **rules})
    world.serve()
    world.wake(1)
    world.block(1)
    world.forget_commands()
    return world


def found(**rules: object) -> World:
    """Its first worker has just been found to be hung."""
    world = hanging(**rules)
    world.pass_time(TIMEOUT_S + CONFIRM_S)
    return world


def test_an_idle_fleet_has_no_timer() -> None:
    """Promise 5: nobody is looked at who has not said that something happens."""
    world = World(2, hang_timeout_s=TIMEOUT_S)
    world.serve()
    assert world.fleet.next_deadline_s() is None
    world.wake(1)
    assert world.fleet.next_deadline_s() == world.now_s + TIMEOUT_S
    world.processes[1].is_awake = False
    world.pass_time(TIMEOUT_S)
    assert world.fleet.next_deadline_s() is None
    world.wake(1)
    assert world.fleet.next_deadline_s() == world.now_s + TIMEOUT_S


def test_a_fleet_that_works_is_looked_at_once_a_time_out() -> None:
    """Not once a second: a loop that has turned now cannot be silent for too long before."""
    world = World(2, hang_timeout_s=TIMEOUT_S)
    world.serve()
    world.wake(1)
    world.forget_commands()
    world.pass_time(10 * TIMEOUT_S)
    assert len(world.sent(c.LookAtPulses)) == 10
    assert not world.log


def test_it_is_found_at_the_second_look_and_not_before() -> None:
    world = hanging()
    world.pass_time(TIMEOUT_S)
    assert world.child(0).phase is Phase.READY
    world.pass_time(CONFIRM_S)
    assert world.fleet.children[1].phase is Phase.ABORTED
    assert world.has_said("worker 0 (pid 501, generation 1) is hung: its loop has not turned for 30.2 s")


def test_one_that_turns_at_the_second_look_serves_on() -> None:
    """A fleet that was stopped for long and goes on: the tick comes within milliseconds."""
    world = hanging()
    world.pass_time(TIMEOUT_S)
    world.processes[1].stuck_since_s = None
    world.pass_time(CONFIRM_S)
    assert world.child(0).phase is Phase.READY
    assert not world.log


def test_another_is_spawned_before_it_is_killed() -> None:
    """Promise 2, as far as it goes: it serves nobody any more, and its stand-in does not wait for its end."""
    world = found()
    assert [spawn.slot for spawn in world.sent(c.Spawn)] == [0]
    assert not world.nudges(Nudge.KILL)
    world.fork()
    assert world.sent(c.CallRecoverHook) == [c.CallRecoverHook(501, 503)]
    world.accept(3)
    assert world.fleet.ready_slots() == 2


def test_it_is_killed_as_soon_as_it_has_said_where_it_stands() -> None:
    world = found()
    assert world.sent(c.AskStacks) == [c.AskStacks(NOBODY, 1)]
    world.feed(e.StacksSeen(NOBODY, 1, "request: GET '/slow', for 30 s"))
    assert world.has_said(
        "error: stacks of worker 0 (pid 501, generation 1), which is hung:\nrequest: GET '/slow'"
    )
    assert world.nudges(Nudge.KILL) == [1]
    world.exit(1, KILLED)
    assert world.has_said("worker 0 (pid 501, generation 1) was hung, and is gone: killed by signal 9")
    world.settle()
    assert world.is_serving(1, 2)


def test_one_that_cannot_say_is_made_to_by_the_c_library_and_killed() -> None:
    world = found()
    world.pass_time(STACKS_S)
    assert world.sent(c.DumpStacks) == [c.DumpStacks(1)]
    assert world.has_said("its stacks are on its standard error")
    assert not world.nudges(Nudge.KILL)
    world.pass_time(DUMP_S)
    assert world.nudges(Nudge.KILL) == [1]


def test_it_counts_as_a_crash_once_and_waits_for_nothing() -> None:
    world = found(recover_interval_s=30.0)
    assert len(world.fleet.crashes_s) == 1
    world.pass_time(STACKS_S + DUMP_S)
    world.exit(1, KILLED)
    assert len(world.fleet.crashes_s) == 1


def test_a_fleet_that_only_hangs_is_given_up() -> None:
    world = found(threshold=0)
    assert world.fleet.stopping is not None
    assert not world.sent(c.Spawn)


def test_a_master_that_did_not_run_blames_nobody() -> None:
    """Promise 8: it was stopped, or its machine; for how long the others were, too, it cannot know."""
    world = hanging()
    world.now_s += 1000
    world.feed(e.DeadlinePassed())
    world.pass_time(TIMEOUT_S - 1)
    assert world.child(0).phase is Phase.READY
    world.pass_time(1 + CONFIRM_S)
    assert world.fleet.children[1].phase is Phase.ABORTED


def test_one_that_boots_or_is_at_rest_is_not_watched() -> None:
    """The boot time-out is the bound of a start; a worker at rest has nothing to turn for."""
    world = World(1, hang_timeout_s=TIMEOUT_S, boot_timeout_s=1000.0)
    world.start()
    world.load()
    world.fork()
    world.feed(e.ChildAwake(1))
    world.pass_time(10 * TIMEOUT_S)
    assert world.child(0).phase is Phase.BOOTING


def test_a_draining_one_is_killed_before_its_grace_is_over_and_nobody_replaces_it() -> None:
    world = hanging(workers=1, grace_s=1000.0)
    world.feed(e.ReloadAsked())
    world.load(2)
    world.fork()
    world.accept(2)
    assert world.fleet.children[1].phase is Phase.DRAINING
    world.forget_commands()
    world.pass_time(TIMEOUT_S + CONFIRM_S + STACKS_S + DUMP_S)
    assert world.nudges(Nudge.KILL) == [1]
    assert not world.sent(c.Spawn)
    assert not world.fleet.crashes_s


def test_a_stop_in_the_midst_of_it_ends_in_time() -> None:
    world = found()
    world.feed(e.StopAsked(e.Stop.FAST, "QUIT"))
    assert world.nudges(Nudge.KILL) == [1]


def test_switched_off_nobody_is_looked_at() -> None:
    world = hanging(hang_timeout_s=math.inf)
    assert world.fleet.next_deadline_s() is None


def test_a_worker_without_a_record_is_not_watched() -> None:
    """There was no room on the scoreboard: it may turn or not."""
    world = hanging()
    world.now_s += TIMEOUT_S
    fleet, child = world.fleet, world.child(0)
    assert fleet.look_due_s() == world.now_s
    world.feed(e.PulsesSeen(()))
    assert world.child(0).phase is child.phase
    assert world.fleet.look_due_s() is None
