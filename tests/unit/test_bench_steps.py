"""How long a benchmark still takes, and in which order it goes."""

from __future__ import annotations

import pytest

from benchmarks.run.steps import PRIOR_S, Estimate, Step, clock, in_turns

LOAD = Step("http", "hello", "prefork", 10.0)
OTHER = Step("http", "tls", "prefork", 30.0)


def test_before_the_first_step_all_is_left() -> None:
    """As long as was planned, and nothing is done."""
    estimate = Estimate([LOAD, LOAD, OTHER])
    assert (estimate.left_s, estimate.share) == (50.0, 0.0)


def test_what_goes_as_planned_is_taken_off() -> None:
    """A step that took what it was said to take."""
    estimate = Estimate([LOAD, LOAD, OTHER])
    estimate.done(LOAD, 10.0)
    assert estimate.left_s == pytest.approx(40.0)
    assert estimate.share == pytest.approx(0.2)


def test_a_slow_machine_is_slow_for_what_is_left_too() -> None:
    """The pace of what was done is that of what is to come, once there is enough of it."""
    estimate = Estimate([LOAD] * 100)
    for _ in range(90):
        estimate.done(LOAD, 20.0)
    assert estimate.left_s == pytest.approx(200.0, rel=0.02)


def test_one_slow_start_does_not_double_the_whole() -> None:
    """Some seconds that went well are thought before the first step."""
    estimate = Estimate([Step("http", "hello", "start", 1.0), *[LOAD] * 10])
    estimate.done(Step("http", "hello", "start", 1.0), 5.0)
    assert estimate.left_s < 150.0
    assert estimate.pace == pytest.approx((5 + PRIOR_S) / (1 + PRIOR_S))


def test_a_scenario_that_ended_early_is_not_waited_for() -> None:
    """What failed has steps left that nobody will take."""
    estimate = Estimate([LOAD, LOAD, OTHER])
    estimate.done(LOAD, 10.0)
    estimate.drop("http", "hello")
    assert estimate.left_s == pytest.approx(30.0)
    assert estimate.share == pytest.approx(0.25)


def test_what_was_not_planned_counts_for_the_pace_alone() -> None:
    """It neither goes below nothing, nor past the end."""
    estimate = Estimate([LOAD])
    for _ in range(3):
        estimate.done(LOAD, 10.0)
    assert (estimate.left_s, estimate.share) == (0.0, 1.0)


def test_nothing_to_do_is_done() -> None:
    """No division by the whole of nothing."""
    assert Estimate([]).share == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3725, "62:05")]
)
def test_time_is_minutes_and_seconds(seconds: float, text: str) -> None:
    """A minute has sixty of them after rounding too."""
    assert clock(seconds) == text


def test_each_round_begins_with_another() -> None:
    """And each has all of them once."""
    assert "".join(in_turns("ABC", 4)) == "ABCBCACABABC"
    assert list(in_turns([], 3)) == []
