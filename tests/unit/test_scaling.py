"""How many workers there should be, over load as it comes: the policy alone, on a fleet of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from prefork.master.fleet import LOOK_EVERY_S
from prefork.master.scaling import (
    CALM_S,
    HIGH,
    SETTLE_S,
    Bounds,
    Load,
    Trend,
    busyness,
    size,
)

BOUNDS = Bounds(2, 8)
BOOT_S = 1.0
QUEUE = 10
"""Connections a second that nobody accepts, for each worker that is missing."""

Curve = Callable[[float], float]
"""Work that comes, in workers that it fills, at a second."""


def sizes(curve: Curve, seconds: float, bounds: Bounds = BOUNDS, *, boot_s: float = BOOT_S) -> list[int]:
    """How many workers are wanted after each look, beginning with the fewest; new ones serve after their boot."""
    trend, wanted, serving = Trend(), bounds.least, bounds.least
    booted_s = 0.0
    queue = 0.0
    story = []
    for look in range(int(seconds / LOOK_EVERY_S)):
        now_s = look * LOOK_EVERY_S
        if now_s >= booted_s:
            serving = wanted
        work = curve(now_s)
        queue = max(0.0, queue + QUEUE * (work - serving) * LOOK_EVERY_S) if work > serving or queue else 0.0
        found = size(bounds, trend, wanted, Load(serving, min(1.0, work / serving), int(queue)), now_s)
        assert bounds.least <= found.wanted <= bounds.most
        assert bool(found.why) == (found.wanted != wanted)
        if found.wanted > wanted:
            booted_s = now_s + boot_s
        serving = min(serving, found.wanted)
        trend, wanted = found.trend, found.wanted
        story.append(wanted)
    return story


def turns(story: list[int]) -> int:
    """How often it went up after it had gone down, and down after up."""
    steps = [math.copysign(1, b - a) for a, b in pairwise(story) if a != b]
    return sum(a != b for a, b in pairwise(steps))


def at(story: list[int], second: float) -> int:
    return story[int(second / LOOK_EVERY_S)]


def noisy(level: float, share: float, seed: int = 1) -> Curve:
    """Work that differs by up to a share from second to second."""
    chance = Random(seed)
    drawn = [level * (1 + share * (2 * chance.random() - 1)) for _ in range(10_000)]
    return lambda second: drawn[int(second)]


def test_nothing_to_do_is_the_fewest() -> None:
    assert set(sizes(lambda _: 0.0, 300)) == {2}


def test_a_step_is_followed_within_seconds_and_left_within_minutes() -> None:
    """Up fast: there is a need. Down slow: who has left has lost its caches."""
    story = sizes(lambda second: 4.0 if 60 <= second < 200 else 0.5, 500)
    assert at(story, 59) == 2
    assert at(story, 75) >= 5
    assert at(story, 199 + CALM_S) >= 5
    assert story[-1] == 2
    assert turns(story) == 1


def test_more_than_there_may_be_is_the_most() -> None:
    story = sizes(lambda _: 100.0, 60)
    assert story[-1] == 8
    assert at(story, 20) == 8


def test_a_ramp_is_followed_up_and_down() -> None:
    """Never behind by more than is queued, never back and forth."""
    story = sizes(lambda second: second / 100 if second < 500 else max(0.0, 10 - second / 100), 1200)
    assert max(story) == 8
    assert story[-1] == 2
    assert turns(story) == 1


def test_a_saw_is_ridden_out() -> None:
    """Load that comes and goes within half a minute: what it needs stays."""
    story = sizes(lambda second: 5.0 if second % 20 < 10 else 0.5, 600)
    assert set(story[100:]) == {story[100]}
    assert turns(story) == 0


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.7, 4.4, 5.0, 6.5])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.3])
def test_load_that_is_always_the_same_is_not_answered_differently(level: float, share: float) -> None:
    """With noise on it: a peak may show that one more is needed, and then that is that."""
    for seed in range(5):
        story = sizes(noisy(level, share, seed), 900)
        assert turns(story) <= 1, story
        assert sum(a != b for a, b in pairwise(story[300:])) <= 1, story


def test_a_short_peak_is_no_load() -> None:
    story = sizes(lambda second: 2.0 if second % 60 == 30 else 0.6, 600)
    assert set(story) == {2}


def test_workers_that_boot_are_waited_for() -> None:
    """What is under way is not asked for again."""
    story = sizes(lambda _: 3.0, 30, boot_s=20.0)
    assert at(story, 19) == at(story, 3)


def test_a_growing_queue_is_an_emergency() -> None:
    """Also where nobody is busy: an application that waits, on the loop's own thread."""
    trend = Trend(at_s=99.0, queue=16, changed_s=96.0)
    found = size(BOUNDS, trend, 4, Load(4, 0.1, 20), 100.0)
    assert (found.wanted, found.why) == (6, "20 connections wait, and not fewer")
    again = size(BOUNDS, found.trend, 6, Load(6, 0.1, 50), 101.0)
    assert again.wanted == 6, "its effect is waited for"
    for queue in (0, 3, 15):
        assert size(BOUNDS, trend, 4, Load(4, 0.1, queue), 100.0).wanted == 4


def test_memory_may_forbid_growth_and_nothing_else() -> None:
    busy = Trend(at_s=99.0, busy=1.0)
    full = Load(2, 1.0, 50)
    assert size(BOUNDS, busy, 2, full, 100.0).wanted == 4
    assert size(BOUNDS, busy, 2, full, 100.0, may_grow=False).wanted == 2
    idle = Trend(at_s=99.0, calm_since_s=100.0 - CALM_S)
    assert size(BOUNDS, idle, 8, Load(8, 0.0, 0), 100.0, may_grow=False).wanted == 7


def test_somebody_elses_size_is_gone_on_from() -> None:
    """Above the bounds it goes down as it would anyway; below, up at once."""
    assert size(BOUNDS, Trend(), 1, Load(1, 0.0, 0), 100.0).wanted == 2
    idle = Trend(at_s=99.0, calm_since_s=100.0 - CALM_S)
    assert size(BOUNDS, idle, 12, Load(12, 0.0, 0), 100.0).wanted == 11
    assert size(BOUNDS, Trend(at_s=99.0, busy=1.0), 12, Load(12, 1.0, 5), 100.0).wanted == 12


def test_the_average_is_of_the_new_number_after_a_change() -> None:
    """Or what was measured of two workers would ask for more than four."""
    found = size(BOUNDS, Trend(at_s=99.0, busy=1.0), 2, Load(2, 1.0, 0), 100.0)
    assert found.wanted == 4
    assert found.trend.busy < HIGH
    assert size(BOUNDS, found.trend, 4, Load(4, 0.5, 0), 100.0 + SETTLE_S).wanted == 4


def test_what_is_busy() -> None:
    """A CPU, threads, a loop that does not turn: the largest of them; never more than all of it."""
    idle = {"cpu": 0.0, "at_work": 0.0, "capacity": 0, "silent_s": 0.0}
    assert busyness(**idle) == 0.0
    assert busyness(**{**idle, "cpu": 0.5}) == 0.5
    assert busyness(**{**idle, "cpu": 3.0}) == 1.0
    assert busyness(**{**idle, "at_work": 500.0}) == 0.0, "a loop waits for many at once"
    assert busyness(**{**idle, "at_work": 6.0, "capacity": 8}) == 0.75
    assert busyness(**{**idle, "at_work": 60.0, "capacity": 8}) == 1.0
    assert busyness(**{**idle, "silent_s": 1.1}) == 0.0
    assert busyness(**{**idle, "silent_s": 2.0}) == 1.0
