"""Buckets of latencies, and what can be said of a percentile."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from prefork.latency import BUCKETS, bucket_of, end_s, percentile_s, total_s

A_DAY_NS = 86_400 * 10**9


@given(st.integers(0, 500 * 10**9))
def test_a_duration_lies_within_its_bucket(duration_ns: int) -> None:
    """At or above the end of the bucket before, and below the end of its own."""
    bucket = bucket_of(duration_ns)
    assert 0 <= bucket < BUCKETS
    assert duration_ns / 1e9 < end_s(bucket)
    assert not bucket or duration_ns / 1e9 >= end_s(bucket - 1)


def test_buckets_grow_by_a_quarter_at_most() -> None:
    """From the fifth on: so a percentile is right to within that, and interpolated far better."""
    ends = [end_s(bucket) for bucket in range(BUCKETS)]
    assert ends == sorted(set(ends))
    assert all(after / before <= 1.25 for before, after in pairwise(ends[3:]))
    assert ends[-1] > 500


def test_what_takes_longer_than_all_buckets_is_in_the_last() -> None:
    assert bucket_of(A_DAY_NS) == BUCKETS - 1


def test_nothing_has_no_percentile() -> None:
    assert percentile_s([0] * BUCKETS, 0.5) is None


def test_percentiles_are_those_of_the_durations() -> None:
    """Within a tenth, over durations of all sizes."""
    chance = random.Random(7)
    durations_ns = sorted(int(10 ** chance.uniform(5, 9)) for _ in range(5000))
    counts = [0] * BUCKETS
    for each in durations_ns:
        counts[bucket_of(each)] += 1
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact_s = durations_ns[min(int(share * 5000), 4999)] / 1e9
        said_s = percentile_s(counts, share)
        assert said_s is not None
        assert abs(said_s / exact_s - 1) < 0.1


def test_the_total_is_right_to_within_an_eighth() -> None:
    """Whatever the durations are: a bucket is a quarter of its begin wide, at most."""
    counts = [0] * BUCKETS
    durations_ns = [20_000, 1_000_000, 50_000_000, 50_000_000, 3_000_000_000]
    for duration_ns in durations_ns:
        counts[bucket_of(duration_ns)] += 1
    exact_s = sum(durations_ns) / 1e9
    assert abs(total_s(counts) - exact_s) < exact_s / 8
    assert total_s([0] * BUCKETS) == 0
