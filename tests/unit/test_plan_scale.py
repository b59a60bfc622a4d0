"""More workers, and fewer: without reuseport a matter of drains, with it a matter of queues as well."""

from __future__ import annotations

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Command, Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import World

SLOTS = (c.Spawn, c.Steer, c.NudgeChild, c.CloseSlot)


def serving(workers: int, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.pass_time(1.0)
    world.forget_commands()
    return world


def moves(world: World) -> list[Command]:
    """What was done with slots and workers, in order."""
    return [command for command in world.commands if isinstance(command, SLOTS)]


class TestShared:
    def test_one_more_is_spawned_at_the_end(self) -> None:
        """TTIN: the next slot, of the current generation."""
        world = serving(2)
        world.feed(e.ScaleAsked(+1))
        assert world.sent(c.Spawn) == [c.Spawn(3, 2, 1)]
        world.settle()
        assert world.is_serving(generation=1, workers=3)

    def test_one_less_is_drained_from_the_end(self) -> None:
        """TTOU: the last slot's worker finishes what it has."""
        world = serving(3)
        world.feed(e.ScaleAsked(-1))
        assert moves(world) == [c.NudgeChild(3, Nudge.DRAIN)]
        world.settle()
        assert world.is_serving(generation=1, workers=2)

    def test_one_is_always_left(self) -> None:
        """TTOU on the last worker does nothing; WINCH is there for that."""
        world = serving(2)
        for _ in range(5):
            world.feed(e.ScaleAsked(-1))
        world.settle()
        assert world.is_serving(generation=1, workers=1)

    def test_one_that_boots_is_told_to_leave_too(self) -> None:
        """It has accepted nothing, so it need not become ready first."""
        world = serving(1)
        world.feed(e.ScaleAsked(+1))
        serial = world.fork()
        world.feed(e.ScaleAsked(-1))
        assert world.nudges(Nudge.DRAIN) == [serial]

    def test_one_that_is_not_born_yet_is_told_when_it_is(self) -> None:
        """There is no pid to send a signal to before that."""
        world = serving(1)
        world.feed(e.ScaleAsked(+1))
        world.feed(e.ScaleAsked(-1))
        assert world.nudges(Nudge.DRAIN) == []
        serial = world.fork()
        assert world.nudges(Nudge.DRAIN) == [serial]

    def test_down_and_up_again_does_not_wait_for_the_one_that_leaves(self) -> None:
        """The drained worker may take its grace; the slot has a new one at once."""
        world = serving(2)
        world.feed(e.ScaleAsked(-1))
        world.feed(e.ScaleAsked(+1))
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1]
        world.settle()
        assert world.is_serving(generation=1, workers=2)

    def test_a_slot_that_waits_for_its_back_off_is_given_up(self) -> None:
        """Nobody is spawned for a slot that is not wanted any more."""
        world = World(2, recover_interval_s=30.0)
        world.serve()
        world.crash(world.child(1).serial)
        world.feed(e.ScaleAsked(-1))
        world.forget_commands()
        world.pass_time(100.0)
        assert world.sent(c.Spawn) == []
        assert world.fleet.next_deadline_s() is None

    def test_a_stop_is_not_undone_by_a_wish_for_more(self) -> None:
        """TTIN after TERM does nothing."""
        world = serving(1)
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.feed(e.ScaleAsked(+1))
        assert world.sent(c.Spawn) == []

    def test_a_reload_is_done_although_fewer_are_wanted_now(self) -> None:
        """The size that counts is today's."""
        world = serving(3)
        world.feed(e.ReloadAsked())
        world.load(2)
        world.feed(e.ScaleAsked(-2))
        world.settle()
        assert world.is_serving(generation=2, workers=1)
        assert world.has_said("reload done")


class TestReuseport:
    def test_down_is_steer_quiet_drain_close(self) -> None:
        """Connections go elsewhere; a second later, when its queue is empty, the worker drains; then the slot goes."""
        world = serving(3, reuseport=True)
        world.feed(e.ScaleAsked(-1))
        assert moves(world) == [c.Steer(2)]
        assert world.child(2).phase is Phase.STEERED
        world.pass_time(0.9)
        assert moves(world) == [c.Steer(2)], "handshakes under way may still end in its queue"
        world.pass_time(0.1)
        assert moves(world) == [c.Steer(2), c.NudgeChild(3, Nudge.DRAIN)]
        world.exit(3)
        assert moves(world)[2:] == [c.CloseSlot(2)]
        assert world.is_serving(generation=1, workers=2)

    def test_up_is_spawn_ready_steer(self) -> None:
        """No connection is sent to a slot before somebody accepts there."""
        world = serving(1, reuseport=True)
        world.feed(e.ScaleAsked(+1))
        serial = world.fork()
        assert moves(world) == [c.Spawn(serial, 1, 1)]
        world.accept(serial)
        assert moves(world)[1:] == [c.Steer(2)]

    def test_slots_close_from_the_last_down(self) -> None:
        """A worker in the middle that leaves first does not close its slot before those above it are closed."""
        world = serving(4, reuseport=True)
        world.feed(e.ScaleAsked(-2))
        assert world.sent(c.Steer) == [c.Steer(2)]
        world.pass_time(1.0)
        assert world.nudges(Nudge.DRAIN) == [3, 4]
        world.exit(3)
        assert world.sent(c.CloseSlot) == []
        world.exit(4)
        assert world.sent(c.CloseSlot) == [c.CloseSlot(3), c.CloseSlot(2)]

    def test_connections_are_not_steered_past_a_slot_without_a_worker(self) -> None:
        """Slots are steered to in order: the second new one waits for the first."""
        world = serving(1, reuseport=True)
        world.feed(e.ScaleAsked(+2))
        second, third = world.fork_all()
        world.accept(third)
        assert world.sent(c.Steer) == []
        world.accept(second)
        assert world.sent(c.Steer) == [c.Steer(3)]

    def test_a_crash_does_not_steer_anything(self) -> None:
        """The queue of the slot waits for its next worker, who is there in milliseconds."""
        world = serving(3, reuseport=True)
        world.crash(world.child(1).serial)
        world.settle()
        assert world.sent(c.Steer) == []
        assert world.is_serving(generation=1, workers=3)

    def test_down_and_up_again_keeps_the_slot(self) -> None:
        """The steered worker leaves all the same, when a new one has taken over its queue; nothing is closed."""
        world = serving(2, reuseport=True)
        world.feed(e.ScaleAsked(-1))
        world.feed(e.ScaleAsked(+1))
        serial = world.fork()
        world.accept(serial)
        assert world.sent(c.Steer) == [c.Steer(1), c.Steer(2)]
        world.calm_down()
        assert world.sent(c.CloseSlot) == []
        assert world.is_serving(generation=1, workers=2)

    def test_a_reload_in_the_middle_of_a_scale_down(self) -> None:
        """Both come to their end."""
        world = serving(3, reuseport=True)
        world.feed(e.ScaleAsked(-1))
        world.feed(e.ReloadAsked())
        world.calm_down()
        assert world.is_serving(generation=2, workers=2)
        assert world.sent(c.CloseSlot) == [c.CloseSlot(2)]

    def test_more_slots_than_workers_from_the_start_are_emptied_and_closed(self) -> None:
        """A new program inherits four sockets with queues and wants two: the rest are served first."""
        world = World(2, reuseport=True)
        world.fleet.slots_open = world.fleet.steered = 4
        world.start()
        world.calm_down()
        assert {spawn.slot for spawn in world.sent(c.Spawn)} == {0, 1, 2, 3}
        assert world.sent(c.CloseSlot) == [c.CloseSlot(3), c.CloseSlot(2)]
        assert world.is_serving(generation=1, workers=2)


class TestNoQueueIsLost:
    def test_a_slot_is_not_closed_over_the_queue_of_a_crashed_worker(self) -> None:
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

    def test_a_wake_to_fewer_workers_closes_no_slot_over_its_queue(self) -> None:
        """Connections came in during the rest: TTIN wakes one worker, and the other slots' queues are served."""
        world = serving(3, reuseport=True)
        world.feed(e.RestAsked())
        world.settle()
        world.forget_commands()
        world.feed(e.ScaleAsked(+1))
        assert world.sent(c.CloseSlot) == []
        world.calm_down()
        assert {spawn.slot for spawn in world.sent(c.Spawn)} == {0, 1, 2}
        assert world.is_serving(generation=1, workers=1)

    def test_a_worker_is_steered_away_from_before_its_quiet_time_begins(self) -> None:
        """Scale down before all are ready: the drain still comes a second after the steering, not before."""
        world = World(2, reuseport=True)
        world.start()
        world.load()
        _, second = world.fork_all()
        world.accept(second)
        world.feed(e.ScaleAsked(-1))
        world.pass_time(5.0)
        assert world.sent(c.Steer) or not world.nudges(Nudge.DRAIN)

    def test_a_worker_that_dies_while_it_empties_its_queue_is_stood_in_for(self) -> None:
        """The queue of a steered slot outlives its worker."""
        world = serving(2, reuseport=True)
        world.feed(e.ScaleAsked(-1))
        world.forget_commands()
        world.crash(world.child(1).serial)
        assert world.sent(c.CloseSlot) == []
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == [1]
        world.calm_down()
        assert world.is_serving(generation=1, workers=1)

    @pytest.mark.parametrize("delta", [+1, +2])
    def test_slots_are_opened_in_order(self, delta: int) -> None:
        """A slot that was closed after crashes has no back-off when it is opened again, so none is skipped.

        ListenerSet.for_slot raises ValueError for a slot beyond the next.
        """
        world = World(1, reuseport=True, recover_interval_s=30.0)
        world.serve()
        world.feed(e.ScaleAsked(+1))
        world.crash(world.fork())
        world.feed(e.ScaleAsked(-1))
        world.calm_down()
        world.forget_commands()
        world.feed(e.ScaleAsked(delta))
        assert [spawn.slot for spawn in world.sent(c.Spawn)] == list(range(1, 1 + delta))
