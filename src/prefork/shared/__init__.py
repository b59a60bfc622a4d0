"""State that all workers see: a cache, counters, rate limits, locks, topics, metrics. docs/shared.md tells how.

Importing this opens nothing and loads no backend, so it may be done at import, before any fork. A name is loaded when
it is asked for: the master, which only keeps a place for the state, carries none of them about.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefork.shared.cache import Cache
    from prefork.shared.connect import connect
    from prefork.shared.counter import Counter, Counters
    from prefork.shared.limiter import RateLimiter
    from prefork.shared.lock import Lock
    from prefork.shared.mapping import SharedDict
    from prefork.shared.metrics import Metrics
    from prefork.shared.store import Stats, Verdict
    from prefork.shared.topic import Listener, Topic
    from prefork.shared.values import Serialiser

_HOMES = {
    "Cache": "cache",
    "Counter": "counter",
    "Counters": "counter",
    "Listener": "topic",
    "Lock": "lock",
    "Metrics": "metrics",
    "RateLimiter": "limiter",
    "Serialiser": "values",
    "SharedDict": "mapping",
    "Stats": "store",
    "Topic": "topic",
    "Verdict": "store",
    "connect": "connect",
}

__all__ = [
    "Cache",
    "Counter",
    "Counters",
    "Listener",
    "Lock",
    "Metrics",
    "RateLimiter",
    "Serialiser",
    "SharedDict",
    "Stats",
    "Topic",
    "Verdict",
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
