"""What people ask for on the control socket: each request, and what they are told while they wait and in the end."""

from __future__ import annotations

import typing

import pytest

from prefork import control
from prefork.control import Done, Failed, Progress
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.requests import MOST_WORKERS, REQUESTS
from prefork.master.waits import STACKS_WAIT_S
from tests.unit.fleets import SEGFAULT, World


def serving(workers: int = 2, **rules: object) -> World:
    world = World(workers, **rules)
    world.serve()
    world.forget_commands()
    return world


def failure(world: World, client: int) -> str:
    final = world.final(client)
    assert isinstance(final, Failed), final
    return final.text


def progress(world: World, client: int) -> list[str]:
    return [answer.text for answer in world.answers[client] if isinstance(answer, Progress)]


def test_every_request_has_a_handler() -> None:
    """And there is none for anything else."""
    assert set(REQUESTS) == set(typing.get_args(control.Request))


@pytest.mark.parametrize(
    "request_",
    [control.Reload(), control.Scale(2), control.Recycle("0"), control.Upgrade()],
    ids=lambda request: type(request).__name__,
)
def test_nothing_is_begun_while_stopping(request_: control.Request) -> None:
    """The end is obeyed; who asks for something else is told so."""
    world = serving()
    world.feed(e.StopAsked(e.Stop.GRACEFUL, "a test"))
    assert "stopping" in failure(world, world.ask(request_))


class TestStatus:
    def test_it_says_how_all_are(self) -> None:
        """At once."""
        world = serving()
        world.now_s += 5
        report = world.final(world.ask(control.Status()))
        assert isinstance(report, control.StatusReport)
        assert (report.state, report.generation, report.incoming) == ("serving", 1, None)
        assert (report.wanted, report.ready) == (2, 2)
        assert [(x.slot, x.pid, x.phase, x.age_s) for x in report.workers] == [
            (0, 501, "ready", 5.0),
            (1, 502, "ready", 5.0),
        ]

    @pytest.mark.parametrize(
        ("event", "state"),
        [
            (e.ReloadAsked(), "reloading"),
            (e.RestAsked(), "resting"),
            (e.UpgradeAsked(), "upgrading"),
            (e.StopAsked(e.Stop.GRACEFUL, "a test"), "stopping"),
            (e.ScaleAsked(+1), "starting"),
        ],
    )
    def test_what_is_going_on(self, event: e.Event, state: str) -> None:
        """In a word."""
        world = serving()
        world.feed(event)
        report = world.final(world.ask(control.Status()))
        assert isinstance(report, control.StatusReport)
        assert report.state == state

    def test_who_is_worn_and_why(self) -> None:
        """As it is logged."""
        world = serving()
        world.feed(e.ChildWorn(1, "it has served 5 requests"))
        report = world.final(world.ask(control.Status()))
        assert isinstance(report, control.StatusReport)
        assert [x.worn for x in report.workers] == ["it has served 5 requests", "", ""]


class TestReload:
    def test_it_is_waited_for_with_what_is_logged(self) -> None:
        """Until all workers are of the new generation."""
        world = serving()
        client = world.ask(control.Reload())
        assert progress(world, client) == ["reload: starting generation 2"]
        world.load(2)
        world.accept(world.fork())
        assert world.final(client) is None
        world.settle()
        assert world.final(client) == Done("generation 2 serves")
        assert "reload done: generation 2 serves" in progress(world, client)

    def test_code_that_does_not_load(self) -> None:
        """The reason comes back."""
        world = serving()
        client = world.ask(control.Reload())
        world.fail_load(2)
        assert "raises ImportError; generation 1 serves on" in failure(world, client)

    def test_a_worker_that_crashes_in_its_start(self) -> None:
        """The same."""
        world = serving()
        client = world.ask(control.Reload())
        world.load(2)
        world.exit(world.fork(), SEGFAULT)
        assert "killed by signal 11 before it was ready; generation 1 serves on" in failure(world, client)

    def test_a_second_one_waits_for_its_own(self) -> None:
        """Whoever asks later has the later code."""
        world = serving()
        first, second = world.ask(control.Reload()), world.ask(control.Reload())
        world.load(2)
        world.accept(world.fork())
        assert world.final(second) is None
        world.fail_load(3)
        assert "generation 2 serves on" in failure(world, second)
        assert world.final(first) is None
        world.settle()
        assert world.final(first) == Done("generation 2 serves")

    def test_a_stop_in_the_middle_of_it(self) -> None:
        """The stop is obeyed at once, and who waits is told."""
        world = serving()
        client = world.ask(control.Reload())
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "TERM"))
        assert failure(world, client) == "the fleet is stopping"
        assert world.nudges(Nudge.DRAIN) == [1, 2]

    def test_a_rest_in_the_middle_of_it(self) -> None:
        """Nobody waits for ever."""
        world = serving()
        client = world.ask(control.Reload())
        world.feed(e.RestAsked())
        assert "rest" in failure(world, client)

    def test_who_leaves_is_told_nothing_more(self) -> None:
        """What was asked for goes on."""
        world = serving()
        client = world.ask(control.Reload())
        world.feed(e.ClientLeft(client))
        told = len(world.answers[client])
        world.settle()
        assert len(world.answers[client]) == told
        assert world.is_serving(generation=2, workers=2)


class TestScale:
    def test_up(self) -> None:
        """Done when all serve."""
        world = serving()
        client = world.ask(control.Scale(3))
        assert world.final(client) is None
        world.settle()
        assert world.final(client) == Done("3 workers serve")
        assert world.is_serving(generation=1, workers=3)

    def test_down(self) -> None:
        """Done when the surplus has left."""
        world = serving(3)
        client = world.ask(control.Scale(1))
        assert world.final(client) is None
        world.settle()
        assert world.final(client) == Done("1 worker serves")

    def test_as_it_is(self) -> None:
        """Done at once."""
        world = serving()
        assert world.final(world.ask(control.Scale(2))) == Done("2 workers serve")

    def test_somebody_wants_another_size(self) -> None:
        """The first is told, and does not wait for what will never come."""
        world = serving()
        client = world.ask(control.Scale(4))
        world.feed(e.ScaleAsked(-1))
        assert failure(world, client) == "another size has been asked for: 3"

    @pytest.mark.parametrize("workers", [0, -1, MOST_WORKERS + 1])
    def test_what_cannot_be(self, workers: int) -> None:
        """A slip of the finger changes nothing."""
        world = serving()
        assert f"from 1 to {MOST_WORKERS}" in failure(world, world.ask(control.Scale(workers)))
        assert world.fleet.wanted == 2

    def test_a_resting_fleet_is_brought_back(self) -> None:
        """As TTIN does."""
        world = serving()
        world.feed(e.RestAsked())
        world.settle()
        client = world.ask(control.Scale(1))
        world.settle()
        assert world.final(client) == Done("1 worker serves")


class TestRecycle:
    @pytest.mark.parametrize("worker", ["0", "slot:0", "501", "pid:501"])
    def test_by_slot_and_by_pid(self, worker: str) -> None:
        """Done when its successor serves, and it has been told to leave."""
        world = serving()
        client = world.ask(control.Recycle(worker))
        successor = world.fork()
        assert world.final(client) is None
        world.accept(successor)
        assert world.final(client) == Done("worker 0 (pid 503, generation 1) serves in its place")
        assert world.nudges(Nudge.DRAIN) == [1]

    def test_a_successor_that_fails(self) -> None:
        """The reason comes back; the worker serves on."""
        world = serving()
        client = world.ask(control.Recycle("0"))
        world.exit(world.fork(), SEGFAULT)
        assert "before it was ready; worker 0 (pid 501, generation 1) serves on" in failure(world, client)

    def test_a_worker_that_dies_meanwhile(self) -> None:
        """It is gone, and somebody else serves in its slot."""
        world = serving()
        client = world.ask(control.Recycle("0"))
        world.fork()
        world.crash(1)
        assert isinstance(world.final(client), Done)

    @pytest.mark.parametrize(
        "worker", ["7", "slot:501", "pid:0", "", "first", "pid:", "-1", "pid:x", "cpu:1", "²"]
    )
    def test_nobody_of_that_name(self, worker: str) -> None:
        """What to write instead."""
        world = serving()
        assert "worker" in failure(world, world.ask(control.Recycle(worker)))
        assert world.sent(c.Spawn) == []

    def test_a_number_that_is_a_slot_and_a_pid(self) -> None:
        """In a container pids are small: nobody guesses."""
        world = World(2)
        world._next_pid = 1
        world.serve()
        assert (
            failure(world, world.ask(control.Recycle("1"))) == "1 is a slot and a pid: write slot:1 or pid:1"
        )
        assert world.final(world.ask(control.Recycle("pid:1"))) is None

    def test_one_that_does_not_serve_yet(self) -> None:
        """There is nothing to take its place for."""
        world = World(1)
        world.start()
        world.load()
        world.fork()
        assert "only one that serves" in failure(world, world.ask(control.Recycle("0")))


class TestStacks:
    def test_the_worker_says_where_it_stands(self) -> None:
        """Into the log, and back."""
        world = serving()
        client = world.ask(control.Stacks("1"))
        assert world.sent(c.AskStacks) == [c.AskStacks(client, 2)]
        world.feed(e.StacksSeen(client, 2, "thread MainThread: here\n"))
        assert world.final(client) == control.StacksReport("thread MainThread: here\n")
        assert world.has_said("stacks of worker 1 (pid 502, generation 1):\nthread MainThread: here")
        assert world.fleet.next_deadline_s() is None

    def test_a_worker_that_does_not_answer(self) -> None:
        """Its interpreter is stuck: the C library writes them, to standard error."""
        world = serving()
        client = world.ask(control.Stacks("1"))
        world.pass_time(STACKS_WAIT_S - 0.1)
        assert world.sent(c.DumpStacks) == []
        world.pass_time(0.2)
        assert world.sent(c.DumpStacks) == [c.DumpStacks(2)]
        assert "its stacks are on its standard error" in failure(world, client)

    def test_a_worker_that_starts_its_interpreter_is_not_signalled(self) -> None:
        """The signal's default would end it."""
        world = World(1, uses_zygote=False)
        world.start()
        client = world.ask(control.Stacks("0"))
        world.pass_time(STACKS_WAIT_S + 1)
        assert world.sent(c.DumpStacks) == []
        assert "still starts" in failure(world, client)

    def test_an_answer_that_comes_late(self) -> None:
        """Into the log only."""
        world = serving()
        client = world.ask(control.Stacks("1"))
        world.pass_time(STACKS_WAIT_S + 1)
        world.feed(e.StacksSeen(client, 2, "late"))
        assert world.has_said("late")
        assert isinstance(world.final(client), Failed)

    def test_while_stopping(self) -> None:
        """That is when one wants to know."""
        world = serving()
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "a test"))
        client = world.ask(control.Stacks("1"))
        world.feed(e.StacksSeen(client, 2, "here"))
        assert world.final(client) == control.StacksReport("here")


class TestUpgrade:
    def test_the_new_master_serves(self) -> None:
        """And who asked is told so by the old one."""
        world = serving()
        client = world.ask(control.Upgrade())
        assert world.sent(c.StartUpgrade) == [c.StartUpgrade()]
        world.feed(e.UpgradeReady())
        assert isinstance(world.final(client), Done)

    def test_the_new_master_does_not_serve(self) -> None:
        """The reason comes back."""
        world = serving()
        client = world.ask(control.Upgrade())
        world.feed(e.UpgradeLost("status 3"))
        assert failure(world, client) == "upgrade failed: status 3; the old master serves on"

    def test_the_new_master_hangs(self) -> None:
        """It has its time."""
        world = serving(2, boot_timeout_s=60.0)
        client = world.ask(control.Upgrade())
        world.pass_time(121)
        assert "not ready in time" in failure(world, client)

    def test_one_at_a_time(self) -> None:
        """The second is told."""
        world = serving()
        world.ask(control.Upgrade())
        assert failure(world, world.ask(control.Upgrade())) == "an upgrade is under way"


class TestStop:
    @pytest.mark.parametrize(("is_fast", "nudge"), [(False, Nudge.DRAIN), (True, Nudge.QUIT)])
    def test_it_is_waited_for(self, nudge: Nudge, *, is_fast: bool) -> None:
        """Until nobody is left."""
        world = serving()
        client = world.ask(control.Stop(is_fast))
        assert world.nudges(nudge) == [1, 2]
        assert world.final(client) is None
        world.settle()
        assert world.final(client) == Done("stopped")
        assert isinstance(world.commands[-1], c.Finish)

    def test_after_the_end(self) -> None:
        """In the same moment somebody asks for something else."""
        world = serving()
        world.feed(e.StopAsked(e.Stop.KILL, "a test"))
        world.settle()
        assert failure(world, world.ask(control.Status())) == "the fleet has stopped"


class TestLogLevel:
    def test_everywhere(self) -> None:
        """Here, and in all workers."""
        world = serving()
        client = world.ask(control.LogLevel("debug"))
        assert world.sent(c.SetLogLevel) == [c.SetLogLevel("debug", (1, 2))]
        assert world.final(client) == Done("logging from debug on")

    def test_a_level_that_is_none(self) -> None:
        """What there is instead."""
        world = serving()
        assert "debug, info, warning, error, critical" in failure(world, world.ask(control.LogLevel("loud")))
