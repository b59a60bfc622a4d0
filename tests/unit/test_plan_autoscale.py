"""Autoscaling as the plan does it: when it looks, whom it spawns, who leaves."""

from __future__ import annotations

from typing import Any

import pytest

from prefork import control
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.fleet import LOOK_EVERY_S, Phase
from prefork.master.scaling import CALM_S, Bounds
from tests.unit.fleets import World

BOUNDS = Bounds(2, 6)


def scaled(workers: int = 2, **rules: Any) -> World:
    """A fleet that serves, with autoscaling; nobody has done anything yet."""
    world = World(workers, **{"bounds": BOUNDS, **rules})
    world.serve()
    world.forget_commands()
    return world


def work(world: World, seconds: int, busy: float = 1.0) -> None:
    """So many seconds in which all workers are busy for that share of their time, and new ones become ready at once."""
    for _ in range(seconds):
        for process in list(world.processes.values()):
            process.cpu_s += busy * LOOK_EVERY_S
            if busy and process.is_ready and not process.is_awake:
                world.wake(process.serial)
            process.is_awake = bool(busy)
        world.pass_time(LOOK_EVERY_S)
        world.settle()


def test_an_idle_fleet_of_the_fewest_is_not_looked_at() -> None:
    """Promise 5."""
    world = scaled()
    assert world.fleet.next_deadline_s() is None
    work(world, 5, busy=0.1)
    work(world, 5, busy=0.0)
    assert world.fleet.next_deadline_s() is None


def test_where_nobody_is_there_nobody_is_looked_at() -> None:
    """More are wanted than the fewest, and the code has to be mended before there is one (`--reload`)."""
    world = World(2, bounds=BOUNDS, watches_code=True)
    world.start()
    world.feed(e.ScaleAsked(+1))
    world.fail_load()
    assert world.has_said("waiting for an edit")
    assert world.fleet.next_deadline_s() is None


def test_busy_workers_get_help_and_lose_it_when_all_are_at_rest() -> None:
    """Nobody needs to be awake for that: what is looked at until then is bounded."""
    world = scaled()
    work(world, 30)
    assert world.fleet.wanted == 6
    assert world.is_serving(1, 6)
    work(world, int(5 * CALM_S) + 20, busy=0.0)
    assert world.is_serving(1, 2)
    assert world.fleet.next_deadline_s() is None


def test_who_leaves_has_run_for_longest_and_has_nothing_to_do() -> None:
    """The last one takes over its number; nobody else is touched."""
    world = scaled()
    world.feed(e.ScaleAsked(1))
    world.settle()
    oldest, busy, youngest = (world.child(slot).serial for slot in range(3))
    world.wake(busy)
    world.forget_commands()
    for _ in range(int(CALM_S) + 3):
        world.processes[busy].cpu_s += 0.5
        world.pass_time(LOOK_EVERY_S)
    assert world.fleet.wanted == 2
    assert set(world.nudges(Nudge.DRAIN)) == {oldest}
    assert set(world.sent(c.Renumber)) == {c.Renumber(oldest, 2), c.Renumber(youngest, 0)}
    world.settle()
    assert [world.child(slot).serial for slot in range(2)] == [youngest, busy]
    assert world.is_serving(1, 2)


def test_with_a_socket_for_each_the_last_one_leaves() -> None:
    """Its socket is the only one that may be closed (promise 1)."""
    world = scaled(reuseport=True)
    world.feed(e.ScaleAsked(1))
    world.settle()
    last = world.child(2).serial
    world.forget_commands()
    world.pass_time(CALM_S + 3)
    assert not world.sent(c.Renumber)
    assert world.child(2).serial == last
    assert world.child(2).phase in (Phase.STEERED, Phase.DRAINING)
    assert world.fleet.ready_slots() == world.fleet.wanted == 2


def test_memory_forbids_growth() -> None:
    """With one worker more the fleet would have more than its budget."""
    world = scaled(max_fleet_bytes=1000)
    for serial in world.processes:
        world.memory[serial] = 350
    work(world, 30)
    assert world.fleet.wanted == 2
    for serial in world.processes:
        world.memory[serial] = 100
    work(world, 10)
    assert world.fleet.wanted > 2


@pytest.mark.parametrize("event", [e.ReloadAsked(), e.RestAsked()])
def test_a_reload_and_a_rest_are_not_disturbed(event: e.Event) -> None:
    world = scaled()
    work(world, 2)
    world.feed(event)
    world.waiting = 50
    for process in world.processes.values():
        process.cpu_s += 100
    world.pass_time(3 * LOOK_EVERY_S)
    assert world.fleet.wanted == 2


def test_who_has_asked_for_a_size_is_told_what_became_of_it() -> None:
    """It may be overtaken by the load."""
    world = scaled()
    client = world.ask(control.Scale(3))
    world.settle()
    assert world.final(client) == control.Done("3 workers serve")


def test_threads_that_are_taken_count_as_busy() -> None:
    """A WSGI application that waits uses no CPU."""
    world = scaled()
    for _ in range(10):
        for process in list(world.processes.values()):
            process.in_flight, process.capacity = 8, 8
            if process.is_ready and not process.is_awake:
                world.wake(process.serial)
        world.pass_time(LOOK_EVERY_S)
        world.settle()
    assert world.fleet.wanted > 2


def test_so_does_the_time_that_requests_have_taken() -> None:
    """On the loop's own thread nothing is ever seen in flight."""
    world = scaled()
    for _ in range(10):
        for process in list(world.processes.values()):
            process.served_s, process.capacity = process.served_s + 0.9 * LOOK_EVERY_S, 1
            if process.is_ready and not process.is_awake:
                world.wake(process.serial)
        world.pass_time(LOOK_EVERY_S)
        world.settle()
    assert world.fleet.wanted > 2
