"""The lock, for asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from prefork.errors import LockLostError, LockTimeoutError
from prefork.shared.aio.away import away, release, try_lock, try_or_wait
from prefork.shared.face import Deadline
from prefork.shared.lock import Lock
from prefork.shared.store import Hold


class AsyncLock:
    """One holder at a time, in all tasks of all workers. As `Lock`, and each task holds for itself.

    lock = AsyncLock("nightly")
    async with lock:
        ...
    """

    def __init__(self, name: str, *, lease_s: float | None = None, url: str | None = None) -> None:
        self.lock = Lock(name, lease_s=lease_s, url=url)
        self._holds: WeakKeyDictionary[asyncio.Task[Any], Hold] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """Its name."""
        return self.lock.name

    async def acquire(self, timeout_s: float | None = None) -> bool:
        """Take the lock; whether it was to be had in that time. None: for ever, 0: does not wait. Raises SharedError."""
        if timeout_s is None and await self.is_held():
            raise RuntimeError(f"lock {self.name!r}: this task holds it already, and would wait for itself")
        store, name, lease_s = self.lock.store, self.lock._name, self.lock._lease_s  # noqa: SLF001  (its twin)
        hold = await try_lock(store, name, lease_s)
        deadline = Deadline(timeout_s)
        while hold is None and timeout_s != 0:
            try:
                hold = await try_or_wait(store, name, lease_s, deadline, self.name)
            except LockTimeoutError:
                break
        if hold is None:
            return False
        self._holds[_task()] = hold
        return True

    async def release(self) -> None:
        """Let it go. Raises LockLostError if its lease has ended and another took it, RuntimeError if it was not held."""
        hold = self._holds.pop(_task(), None)
        if hold is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this task")
        if not await release(self.lock.store, hold):
            raise LockLostError(
                f"lock {self.name!r}: its lease ended before it was released, and another could take it: what was done "
                "meanwhile may have been done twice; take a longer lease_s"
            )

    async def is_held(self) -> bool:
        """Whether this task holds it, and nobody has taken it over."""
        hold = self._holds.get(_task())
        return hold is not None and await away(self.lock.store, hold.is_held)

    @property
    def fencing(self) -> int:
        """A number that grows with each holder; only while it is held. Raises RuntimeError."""
        hold = self._holds.get(_task())
        if hold is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this task")
        return hold.fencing

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.release()
            return
        hold = self._holds.pop(_task(), None)
        if hold is not None:  # the error of the block is worth more than that of the lock
            await release(self.lock.store, hold)


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an AsyncLock is used in a task")
    return task
