"""Latencies as counts in buckets: four to each doubling, so that a percentile is right to within a tenth.

Pure. The first four buckets are 16 µs each; from there on each doubling has four, up to some nine minutes. That is HDR
histogram's idea, with two bits of precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BUCKETS: Final = 96
_UNIT_BITS: Final = 14
"""A unit is 2^14 ns, 16.4 µs: what nearly the fastest answer takes."""
_UNIT_S: Final = 2**_UNIT_BITS / 1e9


def bucket_of(duration_ns: int) -> int:
    """The bucket for a duration in nanoseconds, 0 or more."""
    units = duration_ns >> _UNIT_BITS
    if units < 4:
        return units
    bits = units.bit_length()
    return min(4 * (bits - 2) + (units >> (bits - 3) & 3), BUCKETS - 1)


def end_s(bucket: int) -> float:
    """Where a bucket ends, in seconds: no duration in it is as long."""
    if bucket < 4:
        return (bucket + 1) * _UNIT_S
    doubling, quarter = divmod(bucket, 4)
    return ((5 + quarter) << (doubling - 1)) * _UNIT_S


def total_s(counts: Sequence[int]) -> float:
    """All durations together, in seconds, each taken for the middle of its bucket."""
    sum_s = 0.0
    for bucket, count in enumerate(counts):
        if count:
            begin_s = end_s(bucket - 1) if bucket else 0.0
            sum_s += count * (begin_s + end_s(bucket)) / 2
    return sum_s


def percentile_s(counts: Sequence[int], share: float) -> float | None:
    """Below which so many of all durations lie (`share` 0.99: the 99th percentile), in seconds; None if there are none."""
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    seen = 0
    for bucket, count in enumerate(counts):
        if count and seen + count >= wanted:
            begin_s = end_s(bucket - 1) if bucket else 0.0
            return begin_s + (end_s(bucket) - begin_s) * (wanted - seen) / count
        seen += count
    return end_s(len(counts) - 1)
