"""An upgrade (USR2): the new master takes over, or this one serves on. And log files, which nobody waits for."""

from __future__ import annotations

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import Phase
from tests.unit.fleets import World

BOOT_S = 60.0


def upgrading(workers: int = 2) -> World:
    world = World(workers, boot_timeout_s=BOOT_S)
    world.serve()
    world.forget_commands()
    world.feed(e.UpgradeAsked())
    return world


def test_the_new_master_is_started_beside_the_old_one() -> None:
    """Nobody is told anything yet."""
    world = upgrading()
    assert world.sent(c.StartUpgrade) == [c.StartUpgrade()]
    assert world.sent(c.NudgeChild) == []


def test_when_it_serves_this_one_drains_and_leaves() -> None:
    """Gracefully; and the service manager is not told of a stop, for the service goes on."""
    world = upgrading()
    world.feed(e.UpgradeReady())
    assert world.nudges(Nudge.DRAIN) == [1, 2]
    world.settle()
    assert world.finish == c.Finish(None)
    assert world.sent(c.Announce) == []
    assert world.sent(c.CallLast) == []  # who waits in a queue waits for the new master's workers
    assert world.sent(c.KillUpgrade) == []


def test_when_it_ends_before_that_this_one_serves_on() -> None:
    """A rollback: there is nothing to undo."""
    world = upgrading()
    world.feed(e.UpgradeLost("the new master ended with status 3 before it was ready"))
    assert world.has_said("upgrade failed: the new master ended with status 3")
    assert world.is_serving(generation=1, workers=2)
    assert world.fleet.next_deadline_s() is None


def test_when_it_takes_too_long_it_is_killed() -> None:
    """It has the time of two boots: its zygote's and its workers'."""
    world = upgrading()
    world.pass_time(2 * BOOT_S - 0.1)
    assert world.sent(c.KillUpgrade) == []
    world.pass_time(0.2)
    assert world.sent(c.KillUpgrade) == [c.KillUpgrade()]
    assert world.has_said("was not ready in time; this one serves on")
    assert world.is_serving(generation=1, workers=2)


@pytest.mark.parametrize("event", [e.UpgradeReady(), e.UpgradeLost("killed")])
def test_what_it_says_after_that_means_nothing(event: e.Event) -> None:
    """Its "ready" comes in the moment after it was killed: this master serves on, and does not log twice."""
    world = upgrading()
    world.pass_time(2 * BOOT_S)
    world.forget_commands()
    world.feed(event)
    assert world.commands == []
    assert world.child(0).phase is Phase.READY


def test_another_can_be_tried_after_a_failure() -> None:
    """The file on the disk has been mended."""
    world = upgrading()
    world.feed(e.UpgradeLost("exit status 1"))
    world.feed(e.UpgradeAsked())
    assert len(world.sent(c.StartUpgrade)) == 2


def test_one_at_a_time() -> None:
    """USR2 twice starts one new master."""
    world = upgrading()
    world.feed(e.UpgradeAsked())
    assert len(world.sent(c.StartUpgrade)) == 1
    assert world.has_said("upgrade ignored: one is under way")


def test_none_while_stopping() -> None:
    """TERM has the last word."""
    world = World(1)
    world.serve()
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    world.feed(e.UpgradeAsked())
    assert world.sent(c.StartUpgrade) == []
    assert world.has_said("upgrade ignored: stopping")


@pytest.mark.parametrize("how", list(e.Stop))
def test_a_stop_takes_the_new_master_with_it(how: e.Stop) -> None:
    """Who stops the service means both."""
    world = upgrading()
    world.feed(e.StopAsked(how, "TERM"))
    assert world.sent(c.KillUpgrade) == [c.KillUpgrade()]
    world.feed(e.UpgradeLost("killed"))
    assert not world.has_said("upgrade failed")
    world.settle()
    assert world.finish == c.Finish(None)


def test_a_stop_while_this_one_leaves_makes_it_harder() -> None:
    """The new master serves; the old one's workers are in nobody's way, but somebody is in a hurry."""
    world = upgrading()
    world.feed(e.UpgradeReady())
    world.feed(e.StopAsked(e.Stop.FAST, "QUIT"))
    assert world.nudges(Nudge.QUIT) == [1, 2]
    world.settle()
    assert world.finish == c.Finish(None)


def test_workers_are_kept_alive_meanwhile() -> None:
    """A crash during an upgrade is replaced as ever."""
    world = upgrading()
    world.pass_time(1.0)
    world.crash(1)
    world.settle()
    assert [phase for _, _, phase in world.phases()] == [Phase.READY] * 2


def test_logs_are_opened_again_in_master_and_workers() -> None:
    """USR1: those who write to them are told."""
    world = World(2)
    world.serve()
    world.feed(e.ReopenAsked())
    assert world.sent(c.ReopenLogs) == [c.ReopenLogs((1, 2))]
    assert world.is_serving(generation=1, workers=2)
