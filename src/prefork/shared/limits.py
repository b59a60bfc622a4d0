"""The arithmetic of rate limits: pure functions of (state, now, how much), for every backend that runs Python.

* A token bucket is kept as one moment: when it will be full again (GCRA, ITU-T I.371). That is exact, and needs no
  refilling.
* A sliding window is kept as two counts, of this window and the one before, which is weighed by how much of it still
  overlaps (as nginx Plus's and Cloudflare's limiters do it). Memory stays the same for any limit; the error is that
  of taking the requests of the window before as evenly spread. Rejected: a log of every request, exact, but as large
  as the limit.

Times are seconds of the store's clock. A state is bytes; None is one that was never touched, or has expired.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from prefork.shared.store import Bucket, Verdict, Window

_BUCKET: Final = struct.Struct("<d")  # when it is full again
_WINDOW: Final = struct.Struct("<ddd")  # number of the window, count in it, count in the one before
_SLACK: Final = 1e-9  # of what is asked for: sums of floats are not exact


def take(
    state: bytes | None, limit: Bucket | Window, amount: float, now_s: float
) -> tuple[bytes | None, float, Verdict]:
    """Take `amount` if it is there: the new state (None: unchanged), how long it matters in seconds, and the verdict."""
    if isinstance(limit, Bucket):
        return _take_tokens(state, limit, amount, now_s)
    return _take_window(state, limit, amount, now_s)


def _take_tokens(
    state: bytes | None, limit: Bucket, amount: float, now_s: float
) -> tuple[bytes | None, float, Verdict]:
    # A state of another size is that of the other algorithm, from before a change of the program: it is forgotten.
    is_known = state is not None and len(state) == _BUCKET.size
    full_s = max(now_s, _BUCKET.unpack(state or b"")[0]) if is_known else now_s
    tokens = limit.burst - (full_s - now_s) * limit.per_s
    if amount > limit.burst:
        return None, 0, Verdict(is_allowed=False, remaining=max(0.0, tokens), retry_after_s=math.inf)
    if amount > tokens + _SLACK * limit.burst:
        wait_s = (amount - tokens) / limit.per_s
        return None, 0, Verdict(is_allowed=False, remaining=max(0.0, tokens), retry_after_s=wait_s)
    full_s += amount / limit.per_s
    verdict = Verdict(is_allowed=True, remaining=max(0.0, tokens - amount), retry_after_s=0.0)
    return _BUCKET.pack(full_s), full_s - now_s + 1.0, verdict


def _take_window(
    state: bytes | None, limit: Window, amount: float, now_s: float
) -> tuple[bytes | None, float, Verdict]:
    number, into_s = divmod(now_s, limit.window_s)
    count = before = 0.0
    if state is not None and len(state) == _WINDOW.size:
        last, last_count, last_before = _WINDOW.unpack(state)
        if last == number:
            count, before = last_count, last_before
        elif last == number - 1:
            before = last_count
    overlap = 1 - into_s / limit.window_s
    remaining = limit.limit - count - before * overlap
    if amount > remaining + _SLACK * limit.limit:
        wait_s = _until_room(limit, amount, count, before, into_s)
        return None, 0, Verdict(is_allowed=False, remaining=max(0.0, remaining), retry_after_s=wait_s)
    verdict = Verdict(is_allowed=True, remaining=max(0.0, remaining - amount), retry_after_s=0.0)
    return _WINDOW.pack(number, count + amount, before), 2 * limit.window_s, verdict


def _until_room(limit: Window, amount: float, count: float, before: float, into_s: float) -> float:
    """Seconds until `amount` fits, if nobody else takes anything."""
    if amount > limit.limit:
        return math.inf
    room = limit.limit - amount
    if count <= room:  # within this window: the one before fades out
        return max(0.0, limit.window_s * (1 - (room - count) / before) - into_s)
    # In the next one, of which this one is the one before.
    return limit.window_s - into_s + limit.window_s * (1 - room / count)
