"""What a benchmark has measured: medians, ranges, goals, and its JSON."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.run.figures import (
    Figure,
    NoRunError,
    Run,
    Verdict,
    dropped_nan,
    figure_verdicts,
    goals_table,
    groups,
    number,
    spread,
)

OURS = Figure("http", "hello", "64 connections", "CPU", "prefork", "µs", (12.0, 10.0, 17.0), is_ours=True)
PEER = Figure(
    "http", "hello", "64 connections", "CPU", "uvicorn", "µs", failure="did not start: no such option"
)


def test_a_figure_is_its_median_with_its_range() -> None:
    """Not the mean, which one bad round would move."""
    assert OURS.median == 12.0
    assert str(OURS) == "12 µs (10 to 17, n=3)"
    assert OURS.what == "64 connections: CPU"


def test_who_failed_says_why() -> None:
    """Nobody is dropped in silence."""
    assert math.isnan(PEER.median)
    assert str(PEER) == "did not start: no such option"


def test_who_failed_later_has_both() -> None:
    """What was measured until then counts, and is not all."""
    both = Figure(
        "http", "hello", "", "CPU", "x", "µs", (1.0,), failure="wrk never came to an end", note="2 errors"
    )
    assert str(both) == "1 µs (n=1); 2 errors; then: wrk never came to an end"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.428, "0.428"),
        (1.1, "1.10"),
        (273.4, "273"),
        (5120, "5,120"),
        (0.00001, "0.0000"),
        (math.nan, "-"),
    ],
)
def test_three_digits_that_count(value: float, text: str) -> None:
    """Whatever the unit."""
    assert number(value) == text


def test_one_value_has_no_range() -> None:
    """A range of one would look like agreement."""
    assert spread([3.0], "ms") == "3 ms (n=1)"
    assert spread([3.0], "") == "3 (n=1)"


def test_what_is_not_known_is_no_value() -> None:
    """A load generator that gives no percentile."""
    assert dropped_nan([1.0, math.nan, 2.0]) == (1.0, 2.0)


def test_subjects_of_a_measure_stand_together() -> None:
    """In the order in which they came."""
    other = Figure("http", "hello", "512 connections", "CPU", "prefork", "µs", (1.0,))
    assert list(groups([OURS, other, PEER]).values()) == [[OURS, PEER], [other]]


def test_goals_are_told_with_what_was_got() -> None:
    """Met, missed, or not judged for want of a figure."""
    met = Figure("shared", "calls", "", "get", "prefork", "µs", (1.1,), goal="<= 2 µs", is_met=True)
    missed = Verdict("http", "ASGI / Go", "1.15", "<= 0.9", holds=False)
    open_one = Verdict("http", "ASGI / nginx", "-", "<= 0.9", None, "nginx is not installed")
    rows = goals_table([*figure_verdicts([met, OURS]), missed, open_one]).splitlines()
    assert len(rows) == 5
    assert [row.split("|")[4].strip() for row in rows[2:]] == ["met", "MISSED", "not measured"]


def test_a_bar_in_a_cell_ends_no_column() -> None:
    """Markdown would take it for the end."""
    assert r"a \| b" in goals_table([Verdict("http", "a | b", "1", "<= 2", holds=True)])


def test_a_run_is_the_same_after_its_json() -> None:
    """Plots and pages need nothing else."""
    run = Run("2026-11-27", "2 cores", "quick", 0.5, ("uvicorn 1",), ("no Go",), ("http tls",), [OURS, PEER])
    run.verdicts.append(Verdict("http", "ASGI / Go", "0.8", "<= 0.9", holds=True))
    assert Run.from_json(run.to_json()) == run


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 0}', '{"version": 1}', '{"version": 1, "figures": [{}]}']
)
def test_what_is_no_run_is_refused(text: str) -> None:
    """With one error of its own."""
    with pytest.raises(NoRunError):
        Run.from_json(text)


def test_json_has_no_nan() -> None:
    """Nothing but Python would read it."""
    with pytest.raises(ValueError, match="JSON"):
        Run(load_before=math.nan).to_json()
    assert json.loads(Run().to_json())["version"] == 1
