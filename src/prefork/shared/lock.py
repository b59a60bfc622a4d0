"""A lock among all processes that ends with its holder, whatever ended that."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from prefork.errors import ConfigError, LockLostError
from prefork.shared.face import Deadline, Face, name_bytes, wait_for
from prefork.shared.store import Hold


class Lock(Face):
    """One holder at a time, in all workers and all their threads.

        lock = Lock("nightly")
        with lock:
            ...

    Released when the holder's process ends, whatever signal killed it. `lease_s` is a bound on top: after so many seconds
    others may take it though the holder lives (and hangs, perhaps); then `release` raises `LockLostError`, and who guards
    something outside gives `fencing` to it. On Redis a lease is needed: a server cannot see a process die.

    Not reentrant. One object may be used by many threads; each holds for itself.
    """

    def __init__(self, name: str, *, lease_s: float | None = None, url: str | None = None) -> None:
        super().__init__(url)
        if lease_s is not None and not lease_s > 0:
            raise ConfigError(f"lease_s must be more than 0 seconds, or None, not {lease_s!r}")
        self.name = name
        self._name = b"l" + name_bytes(name, "lock")
        self._lease_s = lease_s
        self._mine = threading.local()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Take the lock; whether it was to be had in that time. Blocks; None: for ever, 0: does not wait.

        Raises SharedError. Source of the shape: `threading.Lock`.
        """
        if timeout_s is None and self.is_held():
            raise RuntimeError(f"lock {self.name!r}: this thread holds it already, and would wait for itself")
        store = self.store
        hold = store.try_lock(self._name, self._lease_s)
        if hold is None and timeout_s != 0:
            hold = self._wait(Deadline(timeout_s))
        if hold is None:
            return False
        self._mine.hold = hold
        return True

    def _wait(self, deadline: Deadline) -> Hold | None:
        while True:
            waiter = self.store.lock_waiter(self._name)
            try:
                hold = self.store.try_lock(self._name, self._lease_s)
                if hold is not None:
                    return hold
                if deadline.left_s() == 0.0:
                    return None
                wait_for(waiter, deadline, self.name)
            finally:
                waiter.close()

    @property
    def _hold(self) -> Hold | None:
        hold: Hold | None = getattr(self._mine, "hold", None)
        return hold

    def release(self) -> None:
        """Let it go. Raises LockLostError if its lease has ended and another took it, RuntimeError if it was not held."""
        hold = self._hold
        if hold is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this thread")
        self._mine.hold = None
        if not hold.release():
            raise LockLostError(
                f"lock {self.name!r}: its lease ended before it was released, and another could take it: what was done "
                "meanwhile may have been done twice; take a longer lease_s"
            )

    def is_held(self) -> bool:
        """Whether this thread holds it, and nobody has taken it over."""
        hold = self._hold
        return hold is not None and hold.is_held()

    @property
    def fencing(self) -> int:
        """A number that grows with each holder; only while it is held. Raises RuntimeError."""
        hold = self._hold
        if hold is None:
            raise RuntimeError(f"lock {self.name!r} is not held by this thread")
        return hold.fencing

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        elif self._hold is not None:
            # The error of the block is worth more than that of the lock.
            hold = self._hold
            self._mine.hold = None
            hold.release()
