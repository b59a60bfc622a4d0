"""Whether a new generation does as well as the old one."""

from __future__ import annotations

import pytest

from prefork.latency import BUCKETS, bucket_of
from prefork.master.canary import FEWEST_ERRORS, FEWEST_REQUESTS, FEWEST_TIMED, Served, judge


def served(good: int, bad: int = 0, *, ms: float = 1.0, slow: int = 0, slow_ms: float = 1000.0) -> Served:
    """So many answers, of which so many were errors, and so many slow."""
    latencies = [0] * BUCKETS
    latencies[bucket_of(int(ms * 1e6))] += good + bad - slow
    latencies[bucket_of(int(slow_ms * 1e6))] += slow
    return Served((0, 0, good, 0, 0, bad), tuple(latencies))


def what(old: Served, new: Served, *, is_over: bool = True) -> str:
    return judge(old, new, is_over=is_over).what


NOTHING = Served((), ())


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (served(1000), served(100), "go on"),
        (served(1000), served(90, 10), "roll back"),
        (served(900, 100), served(90, 10), "go on"),  # it was as bad before
        (served(900, 100), served(85, 15), "go on"),  # within the margin
        (served(900, 100), served(80, 20), "roll back"),
        (NOTHING, served(90, 10), "roll back"),
        (served(1000), NOTHING, "go on"),
        (NOTHING, NOTHING, "go on"),
        (served(1000), served(0, FEWEST_REQUESTS - 1), "go on"),
        (served(1000), served(FEWEST_REQUESTS, FEWEST_ERRORS - 1), "go on"),
    ],
)
def test_errors(old: Served, new: Served, verdict: str) -> None:
    assert what(old, new) == verdict


def test_errors_end_it_at_once_and_all_else_waits_for_the_end() -> None:
    assert what(served(1000), served(0, 100), is_over=False) == "roll back"
    assert what(served(1000), served(100), is_over=False) == "wait"
    assert what(served(1000), served(100, ms=500), is_over=False) == "wait"


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (served(1000, ms=10), served(200, ms=15), "go on"),
        (served(1000, ms=10), served(200, ms=60), "roll back"),
        (served(1000, ms=1), served(200, ms=10), "go on"),  # tenfold, and of no matter
        (served(1000, ms=10), served(1000, ms=10, slow=5), "go on"),  # half a per cent
        (served(1000, ms=10), served(1000, ms=10, slow=30), "roll back"),
        (served(1000, ms=10, slow=30), served(1000, ms=10, slow=30), "go on"),
        (served(1000, ms=10), served(FEWEST_TIMED - 1, ms=500), "go on"),
        (served(FEWEST_TIMED - 1, ms=10), served(1000, ms=500), "go on"),
    ],
)
def test_latency(old: Served, new: Served, verdict: str) -> None:
    assert what(old, new) == verdict


def test_the_reason_says_the_numbers() -> None:
    assert judge(served(1000), served(80, 20), is_over=True).why == (
        "20.0% of its answers are errors (5xx), of the old ones 0.0%"
    )
    assert "99 % of its answers take up to" in judge(served(900), served(200, ms=100), is_over=True).why
