"""What the plan makes of a worker's last words: a line in the log, a list for the workers, and no more than that."""

from __future__ import annotations

import math

import pytest

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.fleet import CONFIRM_S
from prefork.master.hangs import STACKS_S
from prefork.master.refusals import FORGOTTEN_S
from prefork.recorder import LastWords
from tests.unit.fleets import KILLED, SEGFAULT, World

POISON = b"GET /report?id=5"
WORDS = LastWords((POISON,))


def serving(most: int = 3, **rules: object) -> World:
    world = World(2, **{"refuse_after_kills": most, **rules})
    world.serve()
    world.pass_time(10)
    world.forget_commands()
    return world


def die(world: World, status: e.ExitStatus = SEGFAULT, words: LastWords = WORDS) -> None:
    """The worker in slot 0 dies, and its successor serves."""
    world.exit(world.child(0).serial, status, words)
    world.settle()
    world.pass_time(5)
    world.settle()


def refused(world: World) -> list[bytes]:
    """What workers were last told to refuse."""
    lists = world.sent(c.ListSuspects)
    return [each.name for each in lists[-1].listed if each.is_refused] if lists else []


@pytest.mark.parametrize("status", [SEGFAULT, KILLED, e.ExitStatus(code=1)], ids=str)
def test_a_request_that_crashes_so_many_is_refused(status: e.ExitStatus) -> None:
    """Somebody's SIGKILL is a crash, too: nobody can tell it from the kernel's for want of memory."""
    world = serving()
    for _ in range(2):
        die(world, status)
        assert not refused(world)
    die(world, status)
    assert refused(world) == [POISON]
    assert world.has_said(
        "refused from now on: GET /report?id=5, which has killed 3 workers; for 60 min, or until a reload"
    )


def test_the_log_says_what_a_worker_was_at() -> None:
    world = serving()
    die(world)
    assert world.has_said("crashed: killed by signal 11, while it ran GET /report?id=5")
    die(world, words=LastWords(waiting=tuple(b"GET /%d" % i for i in range(7))))
    assert world.has_said("while GET /0, GET /1, GET /2, GET /3, GET /4 and 2 more waited")


def test_a_request_that_hangs_counts_as_well() -> None:
    """When it is dead, not when it is found: until then it might still end."""
    world = serving(1, hang_timeout_s=30.0)
    serial = world.child(0).serial
    world.wake(serial)
    world.block(serial)
    world.pass_time(30 + CONFIRM_S)
    world.pass_time(2 * STACKS_S)
    assert not refused(world)
    world.exit(serial, KILLED, WORDS)
    assert refused(world) == [POISON]


def test_a_worker_that_was_told_to_leave_accuses_nobody() -> None:
    """Even if it was killed for taking too long."""
    world = serving(1)
    world.ask(control.Scale(1))
    world.exit(2, KILLED, WORDS)
    assert not world.sent(c.ListSuspects)


def test_a_worker_that_did_not_start_accuses_nobody() -> None:
    world = serving(1)
    world.crash(1)
    serial = world.fork()
    world.exit(serial, SEGFAULT, WORDS)
    assert not world.sent(c.ListSuspects)


def test_off_is_off() -> None:
    """Nothing is held, and nothing is published."""
    world = serving(0)
    for _ in range(5):
        die(world)
    assert not world.sent(c.ListSuspects)
    assert world.fleet.refusals.due_s == math.inf


def test_new_code_begins_anew() -> None:
    """What the old code died of is nothing against it; what the old one's stragglers die of, neither."""
    world = serving(2)
    die(world)
    die(world)
    assert refused(world) == [POISON]
    world.feed(e.ReloadAsked())
    world.load(2)
    world.fork()
    world.accept(max(world.processes))
    assert not world.sent(c.ListSuspects)[-1].listed
    assert world.has_said("refused no longer: GET /report?id=5")
    old = next(x.serial for x in world.fleet.children.values() if x.generation == 1 and x.slot == 1)
    world.exit(old, SEGFAULT, WORDS)
    assert not world.sent(c.ListSuspects)[-1].listed


def test_it_is_lifted_after_an_hour_and_an_idle_fleet_then_has_no_timer() -> None:
    """One timer, while anything is held against anybody."""
    world = serving(1)
    die(world)
    assert world.fleet.next_deadline_s() is not None
    world.pass_time(FORGOTTEN_S)
    assert not refused(world)
    assert world.has_said("refused no longer, on trial: GET /report?id=5")
    assert world.fleet.next_deadline_s() is None


def test_somebody_forgives() -> None:
    world = serving(1)
    die(world)
    client = world.ask(control.Forgive())
    assert world.final(client) == control.Done("1 refused before; nothing is any more")
    assert not world.sent(c.ListSuspects)[-1].listed


def test_the_status_and_the_chronicle_tell_of_it() -> None:
    """Without the query."""
    world = serving(1)
    die(world)
    report = world.final(world.ask(control.Status()))
    assert isinstance(report, control.StatusReport)
    (what,) = report.refused
    assert (what.what, what.kills) == ("GET /report?…", 1)
    assert 0 < what.left_s <= FORGOTTEN_S
    texts = [each.text for each in world.fleet.chronicle.happenings if each.kind == "refused"]
    assert texts == ["GET /report?… is refused: it has killed 1 worker"]
