"""A rest (WINCH): the workers go, the master and its sockets stay, until somebody wakes them up."""

from __future__ import annotations

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import World


def resting(workers: int = 3, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.feed(e.RestAsked())
    world.settle()
    world.forget_commands()
    return world


class TestFallingAsleep:
    def test_all_workers_drain_and_the_zygote_stays(self) -> None:
        """Nothing is closed, nothing is steered, and nobody is spawned."""
        world = World(3)
        world.serve()
        world.forget_commands()
        world.feed(e.RestAsked())
        assert world.nudges(Nudge.DRAIN) == [1, 2, 3]
        world.settle()
        assert world.phases() == []
        assert list(world.zygotes) == [1]
        assert world.sent(c.Spawn) == []
        assert world.fleet.next_deadline_s() is None
        assert world.finish is None

    def test_with_reuseport_no_queue_is_touched(self) -> None:
        """Connections wait in every slot's queue for the wake."""
        world = World(2, reuseport=True)
        world.serve()
        world.forget_commands()
        world.feed(e.RestAsked())
        world.settle()
        assert world.sent(c.Steer) == []
        assert world.sent(c.CloseSlot) == []

    def test_a_crash_on_the_way_is_not_replaced(self) -> None:
        """Nobody is wanted."""
        world = World(2, threshold=0)
        world.serve()
        world.feed(e.RestAsked())
        world.forget_commands()
        world.crash(world.child(0).serial)
        assert world.fleet.stopping is None
        assert world.sent(c.Spawn) == []

    def test_a_rest_in_the_first_boot_is_no_start(self) -> None:
        """The service manager hears "ready" when workers accept, after the wake."""
        world = World(2)
        world.start()
        world.load()
        world.fork_all()
        world.feed(e.RestAsked())
        world.settle()
        assert [x for x in world.sent(c.Announce) if x.state == "ready"] == []
        world.feed(e.ReloadAsked())
        world.settle()
        assert [x for x in world.sent(c.Announce) if x.state == "ready"] != []
        assert world.is_serving(generation=2, workers=2)

    def test_a_rest_in_the_middle_of_a_reload(self) -> None:
        """The reload is taken up again with the wake."""
        world = World(2)
        world.serve()
        world.feed(e.ReloadAsked())
        world.load(2)
        world.fork()
        world.feed(e.RestAsked())
        world.settle()
        assert world.phases() == []
        world.feed(e.ReloadAsked())
        world.settle()
        assert world.is_serving(generation=world.fleet.generation, workers=2)
        assert world.fleet.generation > 1

    def test_a_rest_is_nothing_while_stopping(self) -> None:
        """The end is the end."""
        world = World(1)
        world.serve()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        world.feed(e.RestAsked())
        assert not world.has_said("resting")


class TestWakingUp:
    def test_a_reload_brings_all_back_with_new_code(self) -> None:
        """HUP: as many as were configured, whatever the size was before the rest."""
        world = World(3)
        world.serve()
        world.feed(e.ScaleAsked(-2))
        world.settle()
        world.feed(e.RestAsked())
        world.settle()
        world.feed(e.ReloadAsked())
        world.settle()
        assert world.is_serving(generation=2, workers=3)

    @pytest.mark.parametrize("delta", [1, 2])
    def test_one_worker_more_is_one_worker(self, delta: int) -> None:
        """TTIN: from nothing to one, without new code."""
        world = resting()
        world.feed(e.ScaleAsked(delta))
        world.settle()
        assert world.is_serving(generation=1, workers=delta)

    def test_one_worker_less_does_not_end_a_rest(self) -> None:
        """TTOU while resting starts nobody."""
        world = resting()
        world.feed(e.ScaleAsked(-1))
        world.settle()
        assert world.phases() == []

    def test_those_who_still_drain_do_not_hold_up_the_wake(self) -> None:
        """A worker with a long request keeps its grace, and its slot has a new one at once."""
        world = World(2)
        world.serve()
        world.feed(e.RestAsked())
        world.feed(e.ScaleAsked(+2))
        assert [spawn.slot for spawn in world.sent(c.Spawn)][-2:] == [0, 1]
        world.settle()
        assert world.is_serving(generation=1, workers=2)

    def test_a_failed_reload_wakes_the_old_code(self) -> None:
        """Somebody asked for workers: the old generation's are better than none."""
        world = resting(2)
        world.feed(e.ReloadAsked())
        world.fail_load(2)
        world.settle()
        assert world.is_serving(generation=1, workers=2)

    def test_a_stop_while_resting_ends_at_once(self) -> None:
        """Only the zygote is there to be told."""
        world = resting()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        assert world.sent(c.RetireZygote) == [c.RetireZygote(1)]
        world.settle()
        assert world.finish is not None

    def test_logs_are_opened_again_while_resting(self) -> None:
        """USR1: there is only the master to do it."""
        world = resting()
        world.feed(e.ReopenAsked())
        assert world.sent(c.ReopenLogs) == [c.ReopenLogs(())]
        world.feed(e.ScaleAsked(+1))
        world.settle()
        world.feed(e.ReopenAsked())
        assert world.sent(c.ReopenLogs)[-1] == c.ReopenLogs((world.child(0).serial,))
        assert world.child(0).phase is Phase.READY
