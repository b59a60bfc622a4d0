"""What is remembered of a fleet: read off before and after, whatever has led there."""

from __future__ import annotations

from prefork import control
from prefork.master import events as e
from prefork.master.chronicle import KEPT
from tests.unit.fleets import CLEAN, World


def kinds(world: World) -> list[str]:
    return [happening.kind for happening in world.fleet.chronicle.happenings]


def counts(world: World) -> dict[str, int]:
    return {cause: n for cause, n in world.fleet.chronicle.counts().items() if n}


def served(**rules: object) -> World:
    world = World(**rules)
    world.serve()
    return world


def test_a_start() -> None:
    """When all are ready, once."""
    world = served()
    assert kinds(world) == ["start"]
    assert counts(world) == {}


def test_a_crash() -> None:
    """Who, and how; counted as it dies."""
    world = served()
    world.crash(world.child(1).serial)
    world.calm_down()
    last = world.fleet.chronicle.happenings[-1]
    assert (last.number, last.kind, last.at_s) == (2, "crash", 1000.0)
    assert last.text == "worker 1 (pid 502, generation 1) crashed: killed by signal 11"
    assert counts(world) == {"crash": 1}


def test_a_worker_that_hangs_in_its_start() -> None:
    """Not a crash like others: it was killed."""
    world = served(boot_timeout_s=5.0)
    world.crash(world.child(0).serial)
    world.jump_to_deadline()
    world.fork()
    world.pass_time(10)
    world.exit(world.child(0).serial, e.ExitStatus(signal=9))
    assert kinds(world)[-1] == "hung"
    assert counts(world) == {"crash": 1, "hung": 1}


def test_one_that_leaves_by_itself() -> None:
    """With status 0, long after its start."""
    world = served()
    world.pass_time(10)
    world.exit(world.child(0).serial, CLEAN)
    assert kinds(world)[-1] == "left"
    assert counts(world) == {"left": 1}


def test_a_reload() -> None:
    """When it begins and when it is done; each worker counts once."""
    world = served()
    world.feed(e.ReloadAsked())
    world.calm_down()
    assert kinds(world) == ["start", "reload", "reload"]
    assert counts(world) == {"reload": 2}


def test_a_crash_in_the_middle_of_a_reload() -> None:
    """Whoever takes the crashed one's place, of the new code, is counted for the crash; the others for the reload."""
    world = served(workers=3)
    world.feed(e.ReloadAsked())
    world.load(2)
    world.fork()
    world.crash(world.child(1).serial)
    world.calm_down()
    assert kinds(world).count("crash") == 1
    assert counts(world) == {"crash": 1, "reload": 2}


def test_a_reload_that_fails() -> None:
    """And who serves on."""
    world = served()
    world.feed(e.ReloadAsked())
    world.fail_load(2)
    last = world.fleet.chronicle.happenings[-1]
    assert (last.kind, last.text) == ("failed", "reload failed, generation 1 serves on")


def test_a_recycling() -> None:
    """Why, and counted once."""
    world = served()
    world.ask(control.Recycle("slot:0"))
    world.calm_down()
    assert kinds(world) == ["start", "recycle"]
    assert "somebody asked for it" in world.fleet.chronicle.happenings[-1].text
    assert counts(world) == {"recycle": 1}


def test_scale_rest_and_stop() -> None:
    """What people ask for; a worker that is told to leave is no event."""
    world = served()
    world.ask(control.Scale(3))
    world.calm_down()
    world.feed(e.RestAsked())
    world.calm_down()
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
    world.calm_down()
    assert kinds(world) == ["start", "scale", "rest", "stop"]
    assert counts(world) == {}


def test_it_is_bounded_and_the_counts_are_not() -> None:
    """The oldest are forgotten."""
    world = served()
    for _ in range(KEPT + 20):
        world.crash(world.child(0).serial)
        world.calm_down()
    happenings = world.fleet.chronicle.happenings
    assert len(happenings) == KEPT
    assert [x.number for x in happenings] == list(range(22, KEPT + 22))
    assert counts(world) == {"crash": KEPT + 20}
