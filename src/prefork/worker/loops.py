"""The event loop that a worker runs a coroutine on: uvloop where it is installed, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory() -> LoopFactory | None:
    """How to make a loop; None stands for asyncio's own.

    Called in the zygote too, for the import: it would cost each worker some 10 ms of its start.
    """
    try:
        import uvloop  # not installed everywhere
    except ImportError:
        return None
    factory: LoopFactory = uvloop.new_event_loop
    return factory
