"""The store of one process alone: for tests, for a program without workers, and for what must never be shared.

The same rules as every store, under one lock. Evicts exactly by least recent use. A fork begins with a copy of what
its parent had, and goes its own way.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prefork.errors import NotANumberError, StoreFullError, ValueTooLargeError
from prefork.shared.limits import take
from prefork.shared.memory_waiting import MESSAGE_BYTES, MemoryHold, MemorySubscription, MemoryWaiter
from prefork.shared.store import Bucket, Hold, Space, Stats, Subscription, Verdict, Waiter, When, Window
from prefork.shared.values import INTEGER

_ENTRY_BYTES: Final = 250
"""What Python needs for an entry on top of its key and payload: measured with tracemalloc, 3.11, rounded up."""


class MemoryStore:
    """See `store.Store`."""

    is_local = True

    def __init__(self, size_mb: float = 64.0) -> None:
        self.limit_bytes = int(size_mb * 2**20)
        self.clock: Callable[[], float] = time.monotonic
        self._afresh()
        self.entries: OrderedDict[tuple[bytes, bytes], tuple[float, bytes]] = OrderedDict()
        self.bytes = self.evictions = 0
        self._numbers: dict[bytes, float] = {}
        self._texts: dict[bytes, bytes] = {}
        self._fencing = 0
        os.register_at_fork(after_in_child=self._afresh)

    def _afresh(self) -> None:
        """Also in a fork: whoever held or waited there is not here."""
        self.lock = threading.RLock()
        self._holds: dict[bytes, MemoryHold] = {}
        self._waiters: dict[bytes, set[MemoryWaiter]] = {}
        self._listeners: dict[bytes, set[MemorySubscription]] = {}

    # -- entries ----------------------------------------------------------------------------------

    def space(self, name: bytes) -> Space:
        return MemorySpace(self, name)

    def find(self, key: tuple[bytes, bytes]) -> tuple[float, bytes] | None:
        """An entry, unless it has expired, as the most recently used. Under the lock."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self.clock():
            self.drop(key)
            return None
        self.entries.move_to_end(key)
        return entry

    def drop(self, key: tuple[bytes, bytes]) -> bool:
        """Remove an entry. Under the lock."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        self.bytes -= _cost(key, entry[1])
        return entry[0] > self.clock()

    def put(self, key: tuple[bytes, bytes], payload: bytes, ends_s: float) -> None:
        """Store an entry, for which others may have to go. Under the lock."""
        self.drop(key)
        cost = _cost(key, payload)
        while self.entries and self.bytes + cost > self.limit_bytes:
            self.drop(next(iter(self.entries)))
            self.evictions += 1
        if self.bytes + cost > self.limit_bytes:
            raise StoreFullError("memory store: it has no room even for one entry: make it larger (size_mb)")
        self.entries[key] = (ends_s, payload)
        self.bytes += cost

    def ends(self, ttl_s: float | None) -> float:
        """When something ends that lives for so long from now."""
        return math.inf if ttl_s is None else self.clock() + ttl_s

    # -- numbers and texts ------------------------------------------------------------------------

    def add(self, name: bytes, amount: float) -> None:
        with self.lock:
            before = self._numbers.get(name)
            if before is not None and isinstance(before, int) and isinstance(amount, float):
                raise NotANumberError(f"{name!r} counts in integers: {amount} cannot be added")
            total = amount if before is None else before + amount
            if isinstance(total, int) and not -(2**63) <= total < 2**63:
                raise NotANumberError(f"a counter has 64 bits: {amount} more do not fit")
            self._numbers[name] = total

    def add_many(self, items: Sequence[tuple[bytes, float]]) -> None:
        for name, amount in items:
            self.add(name, amount)

    def numbers(self, prefix: bytes) -> dict[bytes, float]:
        with self.lock:
            return {name: value for name, value in self._numbers.items() if name.startswith(prefix)}

    def number(self, name: bytes) -> float:
        return self._numbers.get(name, 0)

    def reset(self, name: bytes) -> float:
        with self.lock:
            value = self._numbers.get(name, 0)
            if name in self._numbers:
                self._numbers[name] = type(value)(0)
            return value

    def describe(self, name: bytes, text: bytes) -> None:
        with self.lock:
            self._texts[name] = text

    def descriptions(self, prefix: bytes) -> dict[bytes, bytes]:
        with self.lock:
            return {name: text for name, text in self._texts.items() if name.startswith(prefix)}

    # -- rate limits ------------------------------------------------------------------------------

    def take(self, key: bytes, limit: Bucket | Window, amount: float) -> Verdict:
        with self.lock:
            entry = self.find((b"\x01limits", key))
            now_s = self.clock()
            state, lasts_s, verdict = take(None if entry is None else entry[1], limit, amount, now_s)
            if state is not None:
                self.put((b"\x01limits", key), state, now_s + lasts_s)
            return verdict

    def forget(self, key: bytes) -> None:
        with self.lock:
            self.drop((b"\x01limits", key))

    # -- locks ------------------------------------------------------------------------------------

    def try_lock(self, name: bytes, lease_s: float | None) -> Hold | None:
        with self.lock:
            holder = self._holds.get(name)
            if holder is not None and holder.ends_s > self.clock():
                return None
            self._fencing += 1
            hold = self._holds[name] = MemoryHold(self, name, self.ends(lease_s), self._fencing)
            return hold

    def is_holder(self, name: bytes, hold: MemoryHold) -> bool:
        """Whether it is still the holder."""
        return self._holds.get(name) is hold

    def let_go(self, name: bytes, hold: MemoryHold) -> bool:
        """End a hold, and wake who waits."""
        with self.lock:
            if not self.is_holder(name, hold):
                return False
            del self._holds[name]
            for waiter in self._waiters.get(name, ()):
                waiter.bell.ring()
            return True

    def lock_waiter(self, name: bytes) -> Waiter:
        with self.lock:
            waiter = MemoryWaiter(self, name)
            self._waiters.setdefault(name, set()).add(waiter)
            return waiter

    def left_s(self, name: bytes) -> float | None:
        """How long the holder's lease lasts from now on; None: for ever."""
        with self.lock:
            holder = self._holds.get(name)
            if holder is None:
                return 0.0
            return None if holder.ends_s == math.inf else max(0.0, holder.ends_s - self.clock())

    def wait_no_more(self, name: bytes, waiter: MemoryWaiter) -> None:
        """A waiter has gone."""
        with self.lock:
            others = self._waiters.get(name)
            if others is not None:
                others.discard(waiter)
                if not others:
                    del self._waiters[name]

    # -- topics -----------------------------------------------------------------------------------

    def publish(self, topic: bytes, message: bytes) -> None:
        if len(message) > MESSAGE_BYTES:
            raise ValueTooLargeError(
                f"a message of {len(message)} bytes is more than {MESSAGE_BYTES}: store the value, and tell its key"
            )
        with self.lock:
            for listener in self._listeners.get(topic, ()):
                listener.hear(message)

    def subscribe(self, topic: bytes) -> Subscription:
        with self.lock:
            listener = MemorySubscription(self, topic)
            self._listeners.setdefault(topic, set()).add(listener)
            return listener

    def listen_no_more(self, topic: bytes, listener: MemorySubscription) -> None:
        """A listener has gone."""
        with self.lock:
            self._listeners.get(topic, set()).discard(listener)

    # -- all of it --------------------------------------------------------------------------------

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.bytes = 0
            self._numbers.clear()

    def close(self) -> None:
        """Nothing is open; what is stored stays for as long as the process."""


class MemorySpace:
    """See `store.Space`."""

    def __init__(self, store: MemoryStore, name: bytes) -> None:
        self._store = store
        self._name = name

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        store = self._store
        with store.lock:
            found = [store.find((self._name, key)) for key in keys]
            missed = found.count(None)
            if missed < len(found):
                store.add(b"\x01hits\0" + self._name, len(found) - missed)
            if missed:
                store.add(b"\x01misses\0" + self._name, missed)
        return [None if entry is None else entry[1] for entry in found]

    def set(self, key: bytes, payload: bytes, ttl_s: float | None, when: When = When.ALWAYS) -> bool:
        store = self._store
        self._check(payload)
        with store.lock:
            is_there = store.find((self._name, key)) is not None
            if (when is When.ABSENT and is_there) or (when is When.PRESENT and not is_there):
                return False
            store.put((self._name, key), payload, store.ends(ttl_s))
            return True

    def _check(self, payload: bytes) -> None:
        limit = self._store.limit_bytes // 8
        if len(payload) > limit:
            raise ValueTooLargeError(
                f"a value of {len(payload)} bytes is larger than the store takes: an eighth of its size, {limit} bytes "
                "(size_mb)"
            )

    def set_many(self, items: Sequence[tuple[bytes, bytes]], ttl_s: float | None) -> None:
        for _, payload in items:
            self._check(payload)
        for key, payload in items:
            self.set(key, payload, ttl_s)

    def swap(self, key: bytes, expected: bytes, payload: bytes, ttl_s: float | None) -> bool:
        with self._store.lock:
            entry = self._store.find((self._name, key))
            return entry is not None and entry[1] == expected and self.set(key, payload, ttl_s)

    def touch(self, key: bytes, ttl_s: float | None) -> bool:
        with self._store.lock:
            entry = self._store.find((self._name, key))
            return entry is not None and self.set(key, entry[1], ttl_s)

    def delete(self, keys: Sequence[bytes]) -> int:
        with self._store.lock:
            return sum(self._store.drop((self._name, key)) for key in keys)

    def increment(self, key: bytes, amount: int, initial: int | None, ttl_s: float | None) -> int | None:
        store = self._store
        with store.lock:
            entry = store.find((self._name, key))
            if entry is None:
                if initial is None:
                    return None
                number, ends_s = initial, store.ends(ttl_s)
            elif entry[1][0] != INTEGER:
                raise NotANumberError(f"{key!r} is no integer, so nothing can be added to it")
            else:
                number, ends_s = int(entry[1][1:]), entry[0]
            number += amount
            if not -(2**63) <= number < 2**63:
                raise NotANumberError(f"{key!r} has 64 bits: {amount} more do not fit")
            store.put((self._name, key), b"i%d" % number, ends_s)
            return number

    def keys(self) -> Iterator[bytes]:
        store = self._store
        with store.lock:
            now_s = store.clock()
            found = [
                key
                for (name, key), (ends_s, _) in store.entries.items()
                if name == self._name and ends_s > now_s
            ]
        return iter(found)

    def clear(self) -> None:
        with self._store.lock:
            for name, key in list(self._store.entries):
                if name == self._name:
                    self._store.drop((name, key))

    def stats(self) -> Stats:
        store = self._store
        with store.lock:
            return Stats(
                hits=int(store.number(b"\x01hits\0" + self._name)),
                misses=int(store.number(b"\x01misses\0" + self._name)),
                evictions=store.evictions,
                bytes=store.bytes,
                limit_bytes=store.limit_bytes,
            )


def _cost(key: tuple[bytes, bytes], payload: bytes) -> int:
    return len(key[1]) + len(payload) + _ENTRY_BYTES
