"""Rounds of a benchmark: in turns, goals at their end, who fails is told; and what wrk has said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.http.load import LoadError, Sample, parsed
from benchmarks.http.measuring import PART as HTTP
from benchmarks.http.report import COST, Figures, ratio_verdict
from benchmarks.run.figures import Figure
from benchmarks.run.watch import Lines, Watch
from benchmarks.supervision.scenario import Reading, Scenario, measured
from benchmarks.supervision.subjects import DidNotStartError, Subject

SAID = """\
Running 1s test @ http://127.0.0.1:1/
  2 threads and 64 connections
  Latency Distribution
     50%    0.92ms
     75%    1.50ms
     90%    3.30ms
     99%    1.20s
  40000 requests in 1.10s, 5.0MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  36363.60
Transfer/sec:      4.50MB
    99.9%  1500000.00us
"""


def subject(name: str, *, is_ours: bool = False) -> Subject:
    return Subject(name, lambda _app, _port, _workers: [name], is_ours)


OURS, PEER, BROKEN = subject("prefork", is_ours=True), subject("uvicorn"), subject("broken")
OUR_BROKEN = subject("prefork", is_ours=True)


class Fake:
    """A scenario whose rounds are numbers, and that remembers who was asked."""

    def __init__(self, *values: float, is_each: bool = False) -> None:
        self.asked: list[str] = []
        self.values = iter(values)
        self.is_each = is_each

    def __call__(self, subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
        self.asked.append(subject.name)
        if subject in (BROKEN, OUR_BROKEN):
            raise DidNotStartError("no such option\nand more")
        value = next(self.values)
        yield Reading("2 workers", "failed", "", (value,), 2, is_each=self.is_each, note=f"{is_quick}")


def run(fake: Fake, *subjects: Subject, rounds: int) -> dict[str, Figure]:
    scenario = Scenario(fake, subjects, rounds, 1.0)
    with Watch([], Lines(write=lambda _line: None)) as watch:
        figures = measured("fake", scenario, subjects, rounds, watch, is_quick=False)
    return {each.who: each for each in figures}


def test_rounds_are_in_turns() -> None:
    """Each begins with another, so that what else the machine does falls on all of them."""
    fake = Fake(*range(6))
    found = run(fake, OURS, PEER, rounds=3)
    assert fake.asked == ["prefork", "uvicorn", "uvicorn", "prefork", "prefork", "uvicorn"]
    assert [each.values for each in found.values()] == [(0, 3, 4), (1, 2, 5)]


def test_who_does_not_start_is_told_and_asked_no_more() -> None:
    """With the first line of its reason, in a figure without values."""
    fake = Fake(*range(4))
    found = run(fake, PEER, BROKEN, rounds=2)
    assert fake.asked.count("broken") == 1
    assert str(found["broken"]) == "no such option"


def test_what_is_ours_and_does_not_start_has_missed_its_goal() -> None:
    """Nothing measured is no success."""
    figure = run(Fake(), OUR_BROKEN, rounds=1)["prefork"]
    assert (figure.is_met, figure.goal, str(figure)) == (False, "measured", "no such option")


@pytest.mark.parametrize(("is_each", "is_met"), [(False, True), (True, False)])
def test_a_goal_is_of_the_median_or_of_each(*, is_each: bool, is_met: bool) -> None:
    """One bad round among three."""
    found = run(Fake(0, 1, 9, is_each=is_each), OURS, rounds=3)["prefork"]
    assert found.is_met is is_met
    assert found.goal == ("<= 2, each" if is_each else "<= 2, median")


def test_peers_have_no_goal() -> None:
    """They are there to be compared with."""
    figure = run(Fake(9.0), PEER, rounds=1)["uvicorn"]
    assert (figure.goal, figure.is_met) == ("", None)


# -- wrk --------------------------------------------------------------------------------------------------


def test_what_wrk_says() -> None:
    """Requests, errors of all kinds, rate, and percentiles in whatever unit it chose."""
    sample = parsed(SAID, 480_000.0)
    assert replace(sample, pss_mb=0.0) == Sample(40_000, 7, 480_000.0, 36363.6, 0.92, 1200.0, 1500.0, 0.0)
    assert sample.cost_us == 12.0


def test_a_percentile_of_nothing_is_not_known() -> None:
    """Pipelining throws off wrk's own correction, and it says 0."""
    sample = parsed(SAID.replace("1.20s", "0.00us"), 1.0)
    assert math.isnan(sample.p99_ms)
    assert sample.p50_ms == 0.92


@pytest.mark.parametrize("said", ["", SAID.replace("40000 requests", "0 requests")])
def test_nothing_served_is_no_figure(said: str) -> None:
    """It would be a division by nothing."""
    with pytest.raises(LoadError, match="nothing was served"):
        parsed(said, 1.0)


def test_a_subject_has_a_figure_for_each_measure_that_is_known() -> None:
    """And one that says why, if there is none."""
    sample = Sample(10, 1, 120.0, 10.0, 1.0, math.nan, math.nan, 5.0)
    made = Figures("hello", "hello world", "64 connections", "x", samples=[sample])
    assert [each.measure for each in made.figures()] == [COST, "rate", "p50", "memory of all processes"]
    assert {each.note for each in made.figures()} == {"1 errors"}
    failed = Figures("hello", "hello world", "64 connections", "x", failure="did not start: no")
    assert [(each.part, each.measure, str(each)) for each in failed.figures()] == [
        (HTTP, COST, "did not start: no")
    ]


@pytest.mark.parametrize(
    ("ratio", "is_strict", "holds"),
    [(1.0, False, True), (1.0, True, False), (1.1, False, False), (None, False, None)],
)
def test_a_ratio_at_its_limit(ratio: float | None, *, is_strict: bool, holds: bool | None) -> None:
    """Holds, unless it has to be below; what was not measured is neither."""
    assert ratio_verdict("x", ratio, 1.0, is_strict=is_strict, note="").holds is holds
