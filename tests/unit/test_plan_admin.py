"""The admin process: there beside the fleet, never in its way."""

from __future__ import annotations

import pytest

from prefork.errors import OverRecoveryError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.admin import BOOT_S, LONGEST_DELAY_S, RETIRE_S, SETTLED_S
from prefork.master.fleet import AdminPhase
from tests.unit.fleets import CLEAN, KILLED, SEGFAULT, World


def attended(**rules: object) -> World:
    """A fleet that serves, with its admin process."""
    world = World(has_admin=True, **rules)
    world.serve()
    assert world.fleet.admin is not None
    assert world.fleet.admin.phase is AdminPhase.READY
    world.forget_commands()
    return world


def test_it_comes_with_the_fleet() -> None:
    """At once: whoever asks during the boot is told that nobody is ready."""
    world = World(has_admin=True)
    world.start()
    assert world.sent(c.StartAdmin) == [c.StartAdmin()]


def test_there_is_none_unless_asked_for() -> None:
    """And nothing waits for it."""
    world = World()
    world.serve()
    assert not world.sent(c.StartAdmin)
    assert world.fleet.next_deadline_s() is None


def test_beside_a_fleet_at_rest_nothing_is_waited_for() -> None:
    """Idle means idle."""
    assert attended().fleet.next_deadline_s() is None


def test_one_that_had_settled_is_replaced_at_once() -> None:
    """And its end is in the chronicle."""
    world = attended()
    world.pass_time(SETTLED_S)
    world.end_admin(SEGFAULT)
    assert world.sent(c.StartAdmin) == [c.StartAdmin()]
    assert world.fleet.chronicle.happenings[-1].kind == "admin"


def test_one_that_keeps_dying_is_tried_farther_and_farther_apart() -> None:
    """For ever: the fleet does not end of it, and its workers are left alone."""
    world = attended(threshold=0)
    tries_s = []
    for _ in range(12):
        world.end_admin(SEGFAULT)
        assert world.fleet.admin is None
        begun_s = world.now_s
        assert world.jump_to_deadline()
        tries_s.append(world.now_s - begun_s)
    assert tries_s[0] < 1
    assert LONGEST_DELAY_S <= tries_s[-1] <= 2 * LONGEST_DELAY_S
    assert world.fleet.crashes_s == ()
    assert world.is_serving(1, workers=2)


def test_one_that_cannot_be_made_is_tried_again() -> None:
    """For want of a process or a descriptor."""
    world = attended()
    world.end_admin(SEGFAULT)
    world.admins_left = 0
    assert world.jump_to_deadline()
    assert world.fleet.admin is None
    assert world.has_said("cannot be started")
    world.admins_left = 1
    assert world.jump_to_deadline()
    assert world.fleet.admin is not None


def test_one_that_does_not_become_ready_is_killed() -> None:
    """Within its bound, and then it is tried again."""
    world = World(has_admin=True)
    world.admin_hangs = True
    world.serve()
    world.pass_time(BOOT_S)
    assert world.sent(c.KillAdmin) == [c.KillAdmin()]
    world.end_admin(KILLED)
    world.pass_time(2)
    assert len(world.sent(c.StartAdmin)) == 2


def test_it_says_why_it_cannot_start() -> None:
    """In the log, and the fleet serves on."""
    world = attended()
    world.feed(e.AdminFailed("no such user"))
    assert world.has_said("warning: admin: no such user")


def test_it_leaves_last() -> None:
    """Whoever asks during the drain hears of it."""
    world = attended()
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    assert not world.sent(c.RetireAdmin)
    for serial in list(world.processes):
        world.exit(serial)
    world.end_zygote(1, CLEAN)
    assert world.sent(c.RetireAdmin) == [c.RetireAdmin()]
    assert world.finish is None
    world.end_admin(CLEAN)
    assert world.finish is not None


def test_one_that_does_not_leave_is_killed() -> None:
    """A stop does not wait for it."""
    world = attended()
    world.admin_hangs = True
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    world.settle()
    world.pass_time(RETIRE_S)
    assert world.sent(c.KillAdmin) == [c.KillAdmin()]


def test_it_is_not_replaced_in_a_stop() -> None:
    """Nothing is started any more."""
    world = attended()
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    world.forget_commands()
    world.end_admin(SEGFAULT)
    world.settle()
    assert not world.sent(c.StartAdmin)
    assert world.finish is not None


@pytest.mark.parametrize("how", list(e.Stop))
def test_every_stop_ends_it(how: e.Stop) -> None:
    """However hard."""
    world = attended()
    world.feed(e.StopAsked(how, "someone"))
    world.calm_down()
    assert world.fleet.admin is None
    assert world.finish is not None


def test_a_fleet_that_is_given_up_ends_it_too() -> None:
    """With the error that it was given up for."""
    world = attended(threshold=0)
    world.crash(world.child(0).serial)
    world.calm_down()
    assert world.finish is not None
    assert isinstance(world.finish.error, OverRecoveryError)


def test_after_an_upgrade_the_new_masters_answers() -> None:
    """The old one leaves at once, however long its workers drain."""
    world = attended()
    world.feed(e.UpgradeAsked())
    world.feed(e.UpgradeReady())
    assert world.sent(c.RetireAdmin) == [c.RetireAdmin()]
    assert world.processes
