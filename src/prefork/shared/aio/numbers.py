"""Counters and rate limits, for asyncio."""

from __future__ import annotations

from prefork.shared.aio.away import away
from prefork.shared.counter import Counter, Counters
from prefork.shared.limiter import RateLimiter
from prefork.shared.store import Verdict


class AsyncCounter:
    """A `Counter` whose methods are awaited."""

    def __init__(self, name: str, *, url: str | None = None) -> None:
        self.counter = Counter(name, url=url)

    async def add(self, amount: int = 1) -> None:
        """As `Counter.add`."""
        await away(self.counter.store, self.counter.add, amount)

    async def get(self) -> int:
        """As `Counter.get`."""
        return await away(self.counter.store, self.counter.get)

    async def reset(self) -> int:
        """As `Counter.reset`."""
        return await away(self.counter.store, self.counter.reset)


class AsyncCounters:
    """`Counters` whose methods are awaited."""

    def __init__(self, group: str, *, url: str | None = None) -> None:
        self.counters = Counters(group, url=url)

    async def add(self, name: str, amount: int = 1) -> None:
        """As `Counters.add`."""
        await away(self.counters.store, self.counters.add, name, amount)

    async def get(self, name: str) -> int:
        """As `Counters.get`."""
        return await away(self.counters.store, self.counters.get, name)

    async def reset(self, name: str) -> int:
        """As `Counters.reset`."""
        return await away(self.counters.store, self.counters.reset, name)

    async def items(self) -> dict[str, int]:
        """Name and value of all that were added to."""
        return await away(self.counters.store, lambda: dict(self.counters.items()))


class AsyncRateLimiter:
    """A `RateLimiter` whose methods are awaited."""

    def __init__(
        self,
        name: str,
        *,
        limit: float,
        window_s: float = 1.0,
        burst: float | None = None,
        algorithm: str = "bucket",
        url: str | None = None,
    ) -> None:
        self.limiter = RateLimiter(
            name, limit=limit, window_s=window_s, burst=burst, algorithm=algorithm, url=url
        )

    async def take(self, key: str | bytes, amount: float = 1.0) -> Verdict:
        """As `RateLimiter.take`."""
        return await away(self.limiter.store, self.limiter.take, key, amount)

    async def forget(self, key: str | bytes) -> None:
        """As `RateLimiter.forget`."""
        await away(self.limiter.store, self.limiter.forget, key)
