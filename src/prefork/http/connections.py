"""Who is connected to a worker, from the accept on.

A connection that was accepted and whose protocol has not been told yet (one loop turn; in TLS a whole handshake) is in
no other list, and would be reset by a drain that looks there only. Foreign servers tell us of no failed handshake, and
a drain waits for none: who has not arrived within `LINGER_S` is forgotten there. Our own acceptors tell (`give_up`), so
that `count` is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from prefork.http.limits import LINGER_S

T = TypeVar("T")


class Connections(set[T], Generic[T]):
    """The open connections, and how many are arriving. `now_s` is the loop's time.

    `is_told_of_failures` says that `give_up` will be called for each connection that fails before it is added.
    """

    def __init__(self, now_s: Callable[[], float], *, is_told_of_failures: bool = False) -> None:
        super().__init__()
        self._now_s = now_s
        self._is_told_of_failures = is_told_of_failures
        self.on_leave: Callable[[], object] | None = None
        """Called when a connection has gone, or will not come."""
        # Identity → time of accept. No references: a port scanner must not be able to pile protocols up here.
        self._arriving: dict[int, float] = {}
        self._left = asyncio.Event()

    @property
    def count(self) -> int:
        """How many were accepted and are not gone."""
        return len(self) + len(self._arriving)

    def expect(self, connection: T) -> None:
        """It was accepted, and will be added when it is connected."""
        if not self._is_told_of_failures:
            self._forget_stale()
        self._arriving[id(connection)] = self._now_s()

    def give_up(self, connection: object) -> None:
        """It was accepted and will never be connected. One that was connected all the same is left as it is."""
        if self._arriving.pop(id(connection), None) is not None and self.on_leave is not None:
            self.on_leave()

    def add(self, connection: T) -> None:
        self._arriving.pop(id(connection), None)
        super().add(connection)

    def discard(self, connection: object) -> None:
        super().discard(connection)
        if not self:
            self._left.set()
        if self.on_leave is not None:
            self.on_leave()

    def is_empty(self) -> bool:
        """Nobody is connected, and nobody was accepted a moment ago."""
        self._forget_stale()
        return not self and not self._arriving

    async def wait_empty(self, limit_s: float | None) -> None:
        """Wait until nobody is connected, `limit_s` seconds at most."""
        try:
            async with asyncio.timeout(limit_s):
                while not self.is_empty():
                    self._left.clear()
                    await self._wait_for_a_change()
        except TimeoutError:
            return

    async def _wait_for_a_change(self) -> None:
        if self:
            await self._left.wait()
            return
        # Only hand-shakers are left. Each becomes a connection or stale, and only the first is announced.
        oldest = next(iter(self._arriving.values()))
        await asyncio.sleep(max(0.01, min(0.1, oldest + LINGER_S - self._now_s())))

    def _forget_stale(self) -> None:
        deadline = self._now_s() - LINGER_S
        while self._arriving:
            identity = next(iter(self._arriving))
            if self._arriving[identity] > deadline:
                return
            del self._arriving[identity]
