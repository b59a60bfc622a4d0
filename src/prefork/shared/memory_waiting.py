"""Holding and waiting in the store of one process: locks, bells, listeners."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from prefork.errors import MessagesLostError

if TYPE_CHECKING:
    from prefork.shared.memory import MemoryStore

MESSAGE_BYTES: Final = 16 * 1024
_KEPT: Final = 256


class MemoryHold:
    """See `store.Hold`."""

    def __init__(self, store: MemoryStore, name: bytes, ends_s: float, fencing: int) -> None:
        self._store = store
        self._name = name
        self.ends_s = ends_s
        self.fencing = fencing

    def is_held(self) -> bool:
        return self._store.is_holder(self._name, self)

    def release(self) -> bool:
        return self._store.let_go(self._name, self)


class _Bell:
    """A descriptor that becomes readable when somebody rings."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for fd in (self._read, self._write):
            os.set_blocking(fd, False)

    def ring(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:  # it rings already, 65,536 times
            return

    def quiet(self) -> None:
        try:
            while len(os.read(self._read, 4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        for fd in (self._read, self._write):
            if fd >= 0:
                os.close(fd)
        self._read = self._write = -1


class MemoryWaiter:
    """See `store.Waiter`."""

    def __init__(self, store: MemoryStore, name: bytes) -> None:
        self._store = store
        self._name = name
        self.bell = _Bell()

    @property
    def retry_after_s(self) -> float | None:
        return self._store.left_s(self._name)

    def fileno(self) -> int:
        return self.bell.fileno()

    def close(self) -> None:
        self._store.wait_no_more(self._name, self)
        self.bell.close()


class MemorySubscription:
    """See `store.Subscription`."""

    def __init__(self, store: MemoryStore, topic: bytes) -> None:
        self._store = store
        self._topic = topic
        self._bell = _Bell()
        self._waiting: deque[bytes] = deque()
        self._is_lost = False

    def hear(self, message: bytes) -> None:
        """A message for this listener. Under the store's lock."""
        if len(self._waiting) == _KEPT:
            self._waiting.popleft()
            self._is_lost = True
        self._waiting.append(message)
        self._bell.ring()

    def fileno(self) -> int:
        return self._bell.fileno()

    def take(self) -> list[bytes]:
        with self._store.lock:
            if self._is_lost:
                self._is_lost = False
                raise MessagesLostError(
                    f"messages were lost, this listener was more than {_KEPT} behind: take it that anything was said "
                    "(a cache: clear it)"
                )
            self._bell.quiet()
            found = list(self._waiting)
            self._waiting.clear()
            return found

    def close(self) -> None:
        self._store.listen_no_more(self._topic, self)
        self._bell.close()
