"""State that all workers see: a cache, counters, rate limits, locks, topics, metrics. docs/shared.md tells how.

Importing this opens nothing and loads no backend, so it may be done at import, before any fork. A name is loaded when
it is asked for: the master, which only keeps a place for the state, carries none of them about.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefork.shared.aio.cache import AsyncCache
    from prefork.shared.aio.lock import AsyncLock
    from prefork.shared.aio.numbers import AsyncCounter, AsyncCounters, AsyncRateLimiter
    from prefork.shared.aio.topic import AsyncListener, AsyncTopic
    from prefork.shared.cache import Cache
    from prefork.shared.counter import Counter, Counters
    from prefork.shared.limiter import RateLimiter
    from prefork.shared.lock import Lock
    from prefork.shared.mapping import SharedDict
    from prefork.shared.memo import cached
    from prefork.shared.metrics import Metrics
    from prefork.shared.middleware import RateLimitASGI, RateLimitWSGI
    from prefork.shared.store import Stats, Verdict
    from prefork.shared.stores import connect
    from prefork.shared.topic import Listener, Topic
    from prefork.shared.values import Serialiser

_HOMES = {
    "AsyncCache": "aio.cache",
    "AsyncCounter": "aio.numbers",
    "AsyncCounters": "aio.numbers",
    "AsyncListener": "aio.topic",
    "AsyncLock": "aio.lock",
    "AsyncRateLimiter": "aio.numbers",
    "AsyncTopic": "aio.topic",
    "Cache": "cache",
    "Counter": "counter",
    "Counters": "counter",
    "Listener": "topic",
    "Lock": "lock",
    "Metrics": "metrics",
    "RateLimitASGI": "middleware",
    "RateLimitWSGI": "middleware",
    "RateLimiter": "limiter",
    "Serialiser": "values",
    "SharedDict": "mapping",
    "Stats": "store",
    "Topic": "topic",
    "Verdict": "store",
    "cached": "memo",
    "connect": "stores",
}

__all__ = [
    "AsyncCache",
    "AsyncCounter",
    "AsyncCounters",
    "AsyncListener",
    "AsyncLock",
    "AsyncRateLimiter",
    "AsyncTopic",
    "Cache",
    "Counter",
    "Counters",
    "Listener",
    "Lock",
    "Metrics",
    "RateLimitASGI",
    "RateLimitWSGI",
    "RateLimiter",
    "Serialiser",
    "SharedDict",
    "Stats",
    "Topic",
    "Verdict",
    "cached",
    "connect",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
