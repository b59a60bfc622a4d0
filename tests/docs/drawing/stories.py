"""Stories that are told to the master's plan, and what it decided at each step.

A story is a function of a `World` (`tests/unit/fleets.py`): it says what processes and people do. What the master does is
not said here; it is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefork.master import events as e
from prefork.master.commands import Command
from prefork.master.fleet import Fleet
from tests.unit.fleets import CLEAN, IMPORT_ERROR, KILLED, World

GRACE_S = 30.0
HANG_S = 30.0


@dataclass(frozen=True)
class Step:
    """One event, and what was decided."""

    at_s: float
    """Since the story began."""
    before: Fleet
    event: e.Event
    after: Fleet
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Story:
    """What is told, of how many workers, and from where on it is written down."""

    title: str
    tell: Callable[[World], None]
    workers: int = 2
    is_from_start: bool = False
    rules: tuple[tuple[str, object], ...] = ()

    def steps(self) -> list[Step]:
        """Tell it, and write down what is decided."""
        world = World(self.workers, threshold=20, **{"grace_s": GRACE_S, **dict(self.rules)})
        if not self.is_from_start:
            world.serve()
            world.pass_time(10.0)
        began_s, steps = world.now_s, []

        def write(before: Fleet, event: e.Event, after: Fleet, commands: tuple[Command, ...]) -> None:
            steps.append(Step(world.now_s - began_s, before, event, after, commands))

        world.watchers.append(write)
        self.tell(world)
        return steps


def _boot(world: World) -> None:
    world.start()
    world.load()
    first, second = world.fork_all()
    world.accept(first)
    world.accept(second)


def _crash(world: World) -> None:
    world.exit(1, KILLED)
    world.accept(world.fork())


def _crash_loop(world: World) -> None:
    world.exit(1, e.ExitStatus(signal=11))
    world.exit(world.fork(), e.ExitStatus(signal=11))
    world.jump_to_deadline()
    world.exit(world.fork(), e.ExitStatus(signal=11))
    world.jump_to_deadline()
    world.accept(world.fork())


def _reload(world: World) -> None:
    world.feed(e.ReloadAsked())
    world.load(2)
    world.accept(world.fork())
    second = world.fork()
    world.exit(1)
    world.accept(second)
    world.exit(2)
    world.end_zygote(1, CLEAN)


def _broken_reload(world: World) -> None:
    world.feed(e.ReloadAsked())
    world.fail_load(2, IMPORT_ERROR)


def _stop(world: World) -> None:
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "SIGTERM"))
    world.exit(1)
    world.pass_time(GRACE_S)
    world.exit(2, KILLED)
    world.end_zygote(1, CLEAN)


def _upgrade(world: World) -> None:
    world.feed(e.UpgradeAsked())
    world.feed(e.UpgradeReady())
    world.exit(1)
    world.exit(2)
    world.end_zygote(1, CLEAN)


def _hang(world: World) -> None:
    world.wake(1)
    world.block(1)
    while not any(child.is_stuck for child in world.fleet.children.values()):
        world.jump_to_deadline()
    world.accept(world.fork())
    world.feed(e.StacksSeen(0, 1, "where it stands"))
    world.exit(1, KILLED)


def _recycle(world: World) -> None:
    world.feed(e.ChildWorn(1, "it has served 1000 requests"))
    world.accept(world.fork())
    world.exit(1)


DRAWN = {
    "boot": Story("A start, with two workers", _boot, is_from_start=True),
    "crash": Story("A worker is killed", _crash),
    "crash-loop": Story("A worker that dies of its start", _crash_loop, workers=1),
    "reload": Story("HUP: new code", _reload),
    "reload-broken": Story("HUP: code that does not load", _broken_reload),
    "hang": Story("A worker whose loop is blocked", _hang, rules=(("hang_timeout_s", HANG_S),)),
    "recycle": Story("A worker that has served enough", _recycle, workers=1),
    "stop": Story("TERM: one worker finishes, one does not", _stop),
    "upgrade": Story("USR2: a new master", _upgrade),
}
"""The stories of docs/how-it-works.md."""


def _steered(world: World) -> None:
    world.feed(e.ScaleAsked(-1))
    world.calm_down()


def _steered_and(then: e.Event) -> Callable[[World], None]:
    def tell(world: World) -> None:
        world.waiting = 1
        world.feed(e.ScaleAsked(-1))
        if isinstance(then, e.ChildExited):
            world.exit(then.child, then.status)
            world.accept(world.fork())  # its queue needs somebody
        else:
            world.feed(then)

    return tell


def _steered_to_the_end(world: World) -> None:
    world.waiting = 1  # somebody waits in its queue all the time
    world.feed(e.ScaleAsked(-1))
    world.pass_time(2 * GRACE_S)


def _hung_boot(world: World) -> None:
    world.start()
    world.load()
    world.fork()
    world.pass_time(60.5)
    world.exit(1, e.ExitStatus(signal=6))


def _hung_boot_that_stays(world: World) -> None:
    world.start()
    world.load()
    world.fork()
    world.pass_time(65.0)


def _stopped(how: e.Stop, *, is_booting: bool) -> Callable[[World], None]:
    def tell(world: World) -> None:
        if is_booting:
            world.start()
            world.load()
            world.fork()
        world.feed(e.StopAsked(how, "a test"))

    return tell


def _stopped_in_a_fork(how: e.Stop) -> Callable[[World], None]:
    def tell(world: World) -> None:
        world.start()
        world.load()
        world.feed(e.StopAsked(how, "a test"))
        world.fork()

    return tell


def _hang_while(prepare: Callable[[World], object], serial: int) -> Callable[[World], None]:
    def tell(world: World) -> None:
        world.waiting = 1
        world.wake(serial)
        world.block(serial)
        prepare(world)
        world.pass_time(3 * HANG_S)

    return tell


def _rest_in_boot(world: World) -> None:
    world.start()
    world.load()
    world.fork()
    world.fail_fork()
    world.feed(e.RestAsked())


def _hung_boot_out_of_time(world: World) -> None:
    """It has said why it cannot start, and does not leave."""
    world.start()
    world.load()
    world.feed(e.ChildFailed(world.fork(), IMPORT_ERROR))
    world.pass_time(5.0)


def _left_by_itself(world: World) -> None:
    world.exit(1, CLEAN)


_HANGS = (("hang_timeout_s", HANG_S), ("grace_s", 10 * HANG_S))
WALKED = (
    *DRAWN.values(),
    Story("steered away from", _steered, rules=(("reuseport", True),)),
    Story("steered away from for too long", _steered_to_the_end, rules=(("reuseport", True),)),
    *(
        Story(
            f"steered away from, then {type(then).__name__}", _steered_and(then), rules=(("reuseport", True),)
        )
        for then in (
            e.ChildExited(2, e.ExitStatus(signal=11)),
            e.StopAsked(e.Stop.GRACEFUL, "a test"),
            e.StopAsked(e.Stop.KILL, "a test"),
        )
    ),
    Story("hung in its boot", _hung_boot, workers=1, is_from_start=True),
    Story("deaf in its boot", _hung_boot_that_stays, workers=1, is_from_start=True),
    Story("failed, and stays", _hung_boot_out_of_time, workers=1, is_from_start=True),
    Story("sent to rest in its boot", _rest_in_boot, is_from_start=True),
    Story("left by itself", _left_by_itself),
    *(
        Story(f"{how.name} {is_booting}", _stopped(how, is_booting=is_booting), 1, is_booting)
        for how in e.Stop
        for is_booting in (False, True)
    ),
    Story("stopped in a fork", _stopped_in_a_fork(e.Stop.GRACEFUL), 1, is_from_start=True),
    Story("killed in a fork", _stopped_in_a_fork(e.Stop.KILL), 1, is_from_start=True),
    Story("hung while it drains", _hang_while(lambda world: world.feed(e.RestAsked()), 1), 1, rules=_HANGS),
    Story(
        "hung while it is steered away from",
        _hang_while(lambda world: world.feed(e.ScaleAsked(-1)), 2),
        rules=(*_HANGS, ("reuseport", True)),
    ),
)
"""Stories that together see every way from one phase of a worker to another."""
