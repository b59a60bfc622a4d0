from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from prefork.shared.limits import take
from prefork.shared.store import Bucket, Window

STEPS = st.lists(
    st.tuples(st.floats(0, 3, allow_nan=False), st.sampled_from([0.5, 1.0, 2.0, 4.0])),
    min_size=1,
    max_size=60,
)


def run(limit: Bucket | Window, steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The moments and amounts that were allowed; checks what each verdict says."""
    now_s, state, allowed = 1_000_000.0, None, []
    for wait_s, amount in steps:
        now_s += wait_s
        new, lasts_s, verdict = take(state, limit, amount, now_s)
        assert verdict.remaining >= 0
        assert verdict.is_allowed is (new is not None)
        assert verdict.is_allowed is (verdict.retry_after_s == 0)
        if new is not None:
            assert lasts_s > 0
            state = new
            allowed.append((now_s, amount))
        elif verdict.retry_after_s < math.inf:
            later = take(state, limit, amount, now_s + verdict.retry_after_s + 1e-6)[2]
            assert later.is_allowed, "what `retry_after_s` promised"
            if verdict.retry_after_s > 0.01:
                assert not take(state, limit, amount, now_s + verdict.retry_after_s * 0.9)[2].is_allowed
    return allowed


@given(STEPS)
def test_a_bucket_never_gives_more_than_burst_and_flow(steps: list[tuple[float, float]]) -> None:
    """In any stretch of time: what was in it, and what came since. And it promises the earliest moment."""
    limit = Bucket(per_s=2.0, burst=4.0)
    allowed = run(limit, steps)
    for first, (begin_s, _) in enumerate(allowed):
        total = 0.0
        for moment_s, amount in allowed[first:]:
            total += amount
            assert total <= limit.burst + (moment_s - begin_s) * limit.per_s + 1e-6


@given(STEPS)
def test_a_window_never_gives_more_than_twice_its_limit_in_any_window(
    steps: list[tuple[float, float]],
) -> None:
    """Its own windows hold the limit exactly; any other stretch of that length the limit of two, at the very worst."""
    limit = Window(limit=4.0, window_s=2.0)
    allowed = run(limit, steps)
    for begin_s, _ in allowed:
        assert sum(amount for moment_s, amount in allowed if 0 <= moment_s - begin_s < limit.window_s) <= 8.0
    for number in {moment_s // limit.window_s for moment_s, _ in allowed}:
        assert (
            sum(amount for moment_s, amount in allowed if moment_s // limit.window_s == number) <= 4.0 + 1e-6
        )


def test_what_the_other_algorithm_left_is_forgotten() -> None:
    """A program may change its mind between two versions: no error, and a full limit once."""
    bucket, window = Bucket(per_s=1.0, burst=1.0), Window(limit=1.0, window_s=60.0)
    assert take(take(None, bucket, 1, 1000.0)[0], window, 1, 1000.0)[2].is_allowed
    assert take(take(None, window, 1, 1000.0)[0], bucket, 1, 1000.0)[2].is_allowed


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """A stepped wall clock refuses for as long as it was stepped, and no longer."""
    limit = Bucket(per_s=1.0, burst=1.0)
    state = take(None, limit, 1, 1000.0)[0]
    verdict = take(state, limit, 1, 990.0)[2]
    assert not verdict.is_allowed
    assert verdict.retry_after_s <= 11.0 + 1e-9
