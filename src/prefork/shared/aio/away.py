"""How a twin calls: here or in a thread; and how it waits: by a descriptor in the loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

from prefork.errors import LockTimeoutError
from prefork.shared.face import Deadline
from prefork.shared.store import Hold, Store, Waiter

_T = TypeVar("_T")

INLINE_BYTES: Final = 64 * 1024
"""Of a value that is stored where the loop runs: what has to go for it takes 1 ms for each 100 KB."""
STEP: Final = 100
"""Of many at once, before the loop has its turn: half a millisecond."""


async def away(store: Store, do: Callable[..., _T], *args: Any) -> _T:
    """Do it here if the store is of this machine, else in a thread."""
    if store.is_local:
        return do(*args)
    return await asyncio.to_thread(do, *args)


async def is_readable(fd: int, timeout_s: float | None) -> bool:
    """Wait until a descriptor is readable or hung up; False if it was not in that time. None: for ever. One task for each descriptor."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
            await ready
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


async def try_lock(store: Store, name: bytes, lease_s: float | None) -> Hold | None:
    """The lock, if it is to be had. A hold that comes after its task was cancelled is let go."""
    if store.is_local:
        return store.try_lock(name, lease_s)
    asked = asyncio.ensure_future(asyncio.to_thread(store.try_lock, name, lease_s))
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        loop = asyncio.get_running_loop()

        def let_go(done: asyncio.Future[Hold | None]) -> None:
            if not done.cancelled() and done.exception() is None:
                hold = done.result()
                if hold is not None:
                    loop.run_in_executor(None, hold.release)

        asked.add_done_callback(let_go)
        raise


async def release(store: Store, hold: Hold) -> bool:
    """Let it go, even if this task is cancelled meanwhile; False if it was lost before."""
    if store.is_local:
        return hold.release()
    return await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(hold.release)))


async def try_or_wait(
    store: Store, name: bytes, lease_s: float | None, deadline: Deadline, what: object
) -> Hold | None:
    """The lock, or None after a wait that is worth trying again. Raises LockTimeoutError."""
    hold = await try_lock(store, name, lease_s)
    if hold is not None:
        return hold
    waiter = await away(store, store.lock_waiter, name)
    try:
        hold = await try_lock(store, name, lease_s)
        if hold is None:
            await _wait(store, waiter, deadline, what)
        return hold
    finally:
        waiter.close()


async def _wait(store: Store, waiter: Waiter, deadline: Deadline, what: object) -> None:
    left_s = deadline.left_s()
    if left_s == 0.0:
        raise LockTimeoutError(f"lock {what!r}: somebody else held it for all the time that was given")
    retry_s = await away(store, lambda: waiter.retry_after_s)
    await is_readable(waiter.fileno(), min(left_s, math.inf if retry_s is None else retry_s))
