"""Skewed requests, and what an exact LRU makes of them: for the tests of the local store, and for the benchmark. Pure."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate


def requests(keys: int, skew: float, count: int, seed: int) -> list[int]:
    """`count` numbers below `keys`, the rank r asked for in proportion to 1 / r ** skew (Zipf); the same for the same seed."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=weights, k=count)


def hits_of_lru(sequence: Sequence[int], capacity: int) -> int:
    """How many of these requests find what they ask for in a cache that holds the last `capacity` of them."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in sequence:
        if key in held:
            held.move_to_end(key)
            hits += 1
        else:
            held[key] = None
            if len(held) > capacity:
                held.popitem(last=False)
    return hits
