"""Whether a new generation does as well as the old one: the decision of a canary reload, on numbers alone. Pure.

Rules:

* **Errors.** The share of answers with a 5xx status is worse by more than `ERROR_MARGIN`, and there are `FEWEST_ERRORS` of
  them at least: bad, at once.
* **Latency.** Its 99th percentile is more than `SLOWER` times the old one's, and by more than `SLOWER_S`: bad, at the end of
  the time. Not before: a new process has cold caches.
* Else it is good, at the end of the time. Where it has served next to nothing, nothing speaks against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from prefork.latency import percentile_s

ERROR_MARGIN: Final = 0.05
FEWEST_REQUESTS: Final = 20
FEWEST_ERRORS: Final = 3
SLOWER: Final = 2.0
SLOWER_S: Final = 0.02
"""A percentile of a few milliseconds doubles by chance."""
FEWEST_TIMED: Final = 100
"""A 99th percentile of fewer is the slowest one."""
_SHARE: Final = 0.99


@dataclass(frozen=True, slots=True)
class Served:
    """What the workers of one generation have served while it was tried."""

    statuses: tuple[int, ...]
    """By the first digit."""
    latencies: tuple[int, ...]

    @property
    def requests(self) -> int:
        return sum(self.statuses)

    @property
    def errors(self) -> int:
        return self.statuses[5] if len(self.statuses) > 5 else 0

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done, and why."""

    what: Literal["wait", "go on", "roll back"]
    why: str = ""


def judge(old: Served, new: Served, *, is_over: bool) -> Verdict:
    """Compare. `is_over`: the time is up."""
    if (
        new.requests >= FEWEST_REQUESTS
        and new.errors >= FEWEST_ERRORS
        and new.error_share > old.error_share + ERROR_MARGIN
    ):
        return Verdict(
            "roll back",
            f"{new.error_share:.1%} of its answers are errors (5xx), of the old ones {old.error_share:.1%}",
        )
    if not is_over:
        return Verdict("wait")
    old_s, new_s = _p99_s(old), _p99_s(new)
    if old_s is not None and new_s is not None and new_s > max(SLOWER * old_s, old_s + SLOWER_S):
        return Verdict(
            "roll back",
            f"99 % of its answers take up to {1000 * new_s:.0f} ms, of the old ones {1000 * old_s:.0f} ms",
        )
    return Verdict("go on", f"{new.requests} requests, {new.errors} errors (5xx)")


def _p99_s(served: Served) -> float | None:
    return percentile_s(served.latencies, _SHARE) if sum(served.latencies) >= FEWEST_TIMED else None
