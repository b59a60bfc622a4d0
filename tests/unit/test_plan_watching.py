"""Reload on change, as it is decided: who watches, what an edit means, and a start that waits for one."""

from __future__ import annotations

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.watching import LONGEST_S
from tests.unit.fleets import IMPORT_ERROR, World


def serving() -> World:
    """A fleet that serves and whose code is watched."""
    world = World(2, watches_code=True)
    world.serve()
    world.feed(e.LookoutReady("/site"))
    world.forget_commands()
    return world


class TestTheLookout:
    def test_is_there_from_the_start(self) -> None:
        """An edit while the application is loaded is seen."""
        world = World(2, watches_code=True)
        world.start()
        assert world.sent(c.StartLookout) == [c.StartLookout()]

    def test_is_not_there_unasked(self) -> None:
        """Nobody watches a fleet in production."""
        world = World(2)
        world.serve()
        assert world.sent(c.StartLookout) == []

    def test_is_replaced_later_and_later(self) -> None:
        """It ends again and again: the log says so, and the tries come farther apart, up to a minute."""
        world = serving()
        waits_s = []
        for _ in range(10):
            world.forget_commands()
            world.feed(e.LookoutLost("exit status 1"))
            assert world.has_said("nobody watches, exit status 1")
            assert world.sent(c.EndLookout) == [c.EndLookout()]
            assert world.sent(c.StartLookout) == []
            before_s = world.now_s
            assert world.jump_to_deadline()
            assert world.sent(c.StartLookout) == [c.StartLookout()]
            waits_s.append(world.now_s - before_s)
        assert 1 <= waits_s[0] < 2
        assert waits_s[:5] == sorted(waits_s[:5])
        assert LONGEST_S <= max(waits_s) <= 1.5 * LONGEST_S
        world.feed(e.LookoutReady("/site"))
        world.forget_commands()
        world.feed(e.LookoutLost("exit status 1"))
        assert world.jump_to_deadline()
        assert world.sent(c.StartLookout)

    def test_ends_with_the_fleet_and_is_not_missed_then(self) -> None:
        """A stop ends it; its end, heard late, is nothing."""
        world = serving()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        assert world.sent(c.EndLookout) == [c.EndLookout()]
        world.feed(e.LookoutLost("killed by signal 9"))
        assert world.sent(c.EndLookout) == [c.EndLookout()]
        assert world.sent(c.StartLookout) == []


class TestAnEdit:
    def test_is_a_reload(self) -> None:
        """As HUP is one."""
        world = serving()
        world.feed(e.CodeChanged("app.py"))
        assert world.has_said("changed: app.py")
        world.calm_down()
        assert world.is_serving(2, 2)

    def test_that_is_broken_leaves_the_old_code_serving_and_the_next_mends_it(self) -> None:
        """The traceback is in the log."""
        world = serving()
        world.feed(e.CodeChanged("app.py"))
        world.fail_load(2)
        assert world.has_said(IMPORT_ERROR.details)
        assert world.has_said("generation 1 serves on")
        assert world.is_serving(1, 2)
        world.feed(e.CodeChanged("app.py"))
        world.calm_down()
        assert world.is_serving(3, 2)

    def test_during_a_reload_another_one_follows(self) -> None:
        """What was edited after the load began must not be missed."""
        world = serving()
        world.feed(e.CodeChanged("app.py"))
        world.feed(e.CodeChanged("app.py"))
        world.calm_down()
        assert world.is_serving(3, 2)

    @pytest.mark.parametrize("event", [e.RestAsked(), e.StopAsked(e.Stop.GRACEFUL, "TERM")])
    def test_wakes_nobody_who_is_to_rest_or_to_stop(self, event: e.Event) -> None:
        """Only people bring a fleet back."""
        world = serving()
        world.feed(event)
        world.forget_commands()
        world.feed(e.CodeChanged("app.py"))
        assert world.commands == []


class TestAFirstStartThatFails:
    def test_by_its_import_waits_for_an_edit(self) -> None:
        """It is told once what it waits for, nothing is tried meanwhile, and the edit is the next try."""
        world = World(2, watches_code=True)
        world.start()
        world.fail_load()
        assert world.finish is None
        assert world.has_said("waiting for an edit")
        assert world.fleet.next_deadline_s() is None
        world.forget_commands()
        world.feed(e.CodeChanged("app.py"))
        world.fail_load(2)
        assert world.has_said("reload failed")
        assert world.has_said("nothing serves yet")
        assert world.fleet.next_deadline_s() is None
        world.feed(e.CodeChanged("app.py"))
        world.calm_down()
        assert world.is_serving(3, 2)

    @pytest.mark.parametrize("uses_zygote", [True, False])
    def test_by_its_first_workers_waits_for_an_edit(self, *, uses_zygote: bool) -> None:
        """The lifespan fails in each of them."""
        world = World(2, watches_code=True, uses_zygote=uses_zygote)
        world.start()
        if uses_zygote:
            world.load()
            world.fork_all()
        for serial in list(world.processes):
            world.fail_boot(serial)
        assert world.finish is None
        assert not world.processes
        assert not world.pending
        assert world.fleet.next_deadline_s() is None
        assert len([line for line in world.log if "waiting for an edit" in line]) == 1
        world.feed(e.CodeChanged("app.py"))
        world.calm_down()
        assert world.is_serving(2, 2)

    def test_by_one_worker_only_is_tried_again_when_another_is_ready(self) -> None:
        """It was not the code."""
        world = World(2, watches_code=True)
        world.start()
        world.load()
        first, second = world.fork_all()
        world.fail_boot(first)
        assert not world.pending
        world.accept(second)
        world.calm_down()
        assert world.is_serving(1, 2)

    def test_can_be_stopped_as_it_waits(self) -> None:
        """TERM, at once, and without an error."""
        world = World(2, watches_code=True)
        world.start()
        world.fail_load()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        assert world.finish == c.Finish(None)
