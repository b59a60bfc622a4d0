"""The entries of one cache in LMDB.

A `get` of a hit is two LMDB reads (which record has the key; the record), one byte written to the usage page and one
word to this process's own row: no lock, no system call. What has expired is taken for absent, and left where it is:
reading writes nothing. Its place is reclaimed by its turn in the queue (`queue.py`) or by the next `set` of the key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from prefork.errors import NotANumberError, StoreFullError, ValueTooLargeError
from prefork.shared.local.cells import NOWHERE
from prefork.shared.local.queue import HEAD
from prefork.shared.local.quick import WHAT_IS_BROKEN, Bind, Put, Read, make_put, make_read
from prefork.shared.store import Stats, When
from prefork.shared.values import INTEGER, Serialiser

if TYPE_CHECKING:
    from prefork.shared.local.store import LmdbStore

_BATCH: Final = 100
"""Entries written in one transaction: others wait for it, so it is short."""


class LmdbSpace:
    """See `store.Space`."""

    def __init__(self, store: LmdbStore, name: bytes) -> None:
        self._store = store
        self._name = name
        self._prefix = b"e" + name + b"\0"
        self._hit = self._miss = NOWHERE
        self._is_bound = False
        self._readers: dict[Serialiser, tuple[Read, Bind]] = {}
        self._put: Put = self._bind_and_put

    # -- for each time that the store is opened --------------------------------------------------------

    def unbind(self) -> None:
        """The store is closed in this process: the next call opens it."""
        self._is_bound = False
        self._put = self._bind_and_put
        for _, bind in self._readers.values():
            bind(None, 0, 0)

    def _bind(self) -> None:
        store = self._store
        store.open()
        try:
            self._hit = store.numbers_of.column(b"\x01hits\0" + self._name)
            self._miss = store.numbers_of.column(b"\x01misses\0" + self._name)
        except StoreFullError:  # too many names, or no room to write one: a read goes on, uncounted
            self._hit = self._miss = NOWHERE
        for _, bind in self._readers.values():
            bind(store, self._hit, self._miss)
        self._put = make_put(store, self._prefix)
        self._is_bound = True

    def _bind_and_begin(self) -> Any:
        self._bind()
        return self._store.begin()

    def reader(self, using: Serialiser) -> Read:
        """See `store.HasReader`."""
        known = self._readers.get(using)
        if known is None:
            known = self._readers[using] = make_read(self._bind_and_begin, self._prefix, using)
            if self._is_bound:
                known[1](self._store, self._hit, self._miss)
        return known[0]

    def _bind_and_put(self, key: bytes, payload: bytes, ends_s: float) -> bool:
        self._bind()
        return self._put(key, payload, ends_s)

    # -- entries ---------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not self._is_bound:
            self._bind()
        store, prefix = self._store, self._prefix
        marks = store.usage.marks
        found: list[bytes | None] = []

        def look(txn: Any) -> None:
            now_s = store.clock()
            for key in keys:
                entry = store.queue.read(txn, prefix + key, now_s)
                if entry is None:
                    found.append(None)
                else:
                    marks[entry.mark] = 1
                    found.append(entry.payload)

        try:
            store.read(look)
        except WHAT_IS_BROKEN as error:
            raise store.translated(error) from error
        missed = found.count(None)
        store.cells.row[self._hit] += len(found) - missed
        store.cells.row[self._miss] += missed
        return found

    def set(self, key: bytes, payload: bytes, ttl_s: float | None, when: When = When.ALWAYS) -> bool:
        store = self._store
        if len(payload) > store.most_bytes:
            self._refuse_large(payload)
        ends_s = math.inf if ttl_s is None else store.clock() + ttl_s
        if when is When.ALWAYS and self._put(key, payload, ends_s):
            return True
        full = self._prefix + key

        def change(txn: Any) -> bool:
            if when is not When.ALWAYS:
                is_there = store.queue.read(txn, full, store.clock()) is not None
                if is_there is (when is When.ABSENT):
                    return False
            self._write(txn, full, payload, ends_s)
            return True

        return store.write(change)

    def set_many(self, items: Sequence[tuple[bytes, bytes]], ttl_s: float | None) -> None:
        store = self._store
        ends_s = math.inf if ttl_s is None else store.clock() + ttl_s
        pairs = [(self._full(key, payload), payload) for key, payload in items]
        for begin in range(0, len(pairs), _BATCH):
            batch = pairs[begin : begin + _BATCH]

            def change(txn: Any, batch: Sequence[tuple[bytes, bytes]] = batch) -> None:
                for full, payload in batch:
                    self._write(txn, full, payload, ends_s)

            store.write(change)

    def _write(self, txn: Any, full: bytes, payload: bytes, ends_s: float, *, is_used: bool = False) -> None:
        store = self._store
        evicted = store.queue.write(txn, full, payload, ends_s, is_used=is_used)
        if evicted:
            store.cells.row[store.numbers_of.evictions] += evicted

    def _full(self, key: bytes, payload: bytes) -> bytes:
        if len(payload) > self._store.most_bytes:
            self._refuse_large(payload)
        return self._prefix + key

    def _refuse_large(self, payload: bytes) -> None:
        self._store.open()  # what it takes is known when it is open
        if len(payload) > self._store.most_bytes:
            raise ValueTooLargeError(
                f"a value of {len(payload)} bytes is larger than the store takes: an eighth of its size, "
                f"{self._store.most_bytes} bytes (size_mb)"
            )

    def swap(self, key: bytes, expected: bytes, payload: bytes, ttl_s: float | None) -> bool:
        full = self._full(key, payload)
        store = self._store

        def change(txn: Any) -> bool:
            now_s = store.clock()
            old = store.queue.read(txn, full, now_s)
            if old is None or old.payload != expected:
                return False
            self._write(txn, full, payload, math.inf if ttl_s is None else now_s + ttl_s)
            return True

        return store.write(change)

    def touch(self, key: bytes, ttl_s: float | None) -> bool:
        full = self._prefix + key
        store = self._store

        def change(txn: Any) -> bool:
            now_s = store.clock()
            old = store.queue.read(txn, full, now_s)
            if old is None:
                return False
            ends_s = math.inf if ttl_s is None else now_s + ttl_s
            self._write(txn, full, old.payload, ends_s, is_used=True)
            return True

        return store.write(change)

    def delete(self, keys: Sequence[bytes]) -> int:
        store = self._store

        def change(txn: Any) -> int:
            now_s = store.clock()
            return sum(store.queue.remove(txn, self._prefix + key, now_s) for key in keys)

        return store.write(change)

    def increment(self, key: bytes, amount: int, initial: int | None, ttl_s: float | None) -> int | None:
        full = self._prefix + key
        store = self._store

        def change(txn: Any) -> int | None:
            now_s = store.clock()
            old = store.queue.read(txn, full, now_s)
            if old is None:
                if initial is None:
                    return None
                number, ends_s = initial, math.inf if ttl_s is None else now_s + ttl_s
            elif old.payload[0] != INTEGER:
                raise NotANumberError(f"{key!r} is no integer, so nothing can be added to it")
            else:
                number, ends_s = int(old.payload[1:]), old.ends_s
            number += amount
            if not -(2**63) <= number < 2**63:
                raise NotANumberError(f"{key!r} has 64 bits: {amount} more do not fit")
            self._write(txn, full, b"i%d" % number, ends_s, is_used=True)
            return number

        return store.write(change)

    def keys(self) -> Iterator[bytes]:
        prefix, begin = self._prefix, self._prefix
        cut = len(prefix)
        while True:
            found, is_end = self._store.read(lambda txn, begin=begin: self._some_keys(txn, begin))  # type: ignore[misc]
            for full in found:
                yield full[cut:]
            if is_end:
                return
            begin = found[-1] + b"\0"

    def _some_keys(self, txn: Any, begin: bytes) -> tuple[list[bytes], bool]:
        """At most a thousand, so that no reader keeps old pages for as long as somebody walks."""
        now_s = self._store.clock()
        found: list[bytes] = []
        cursor = txn.cursor()
        if cursor.set_range(begin):
            for full, place in cursor:
                if not full.startswith(self._prefix):
                    break
                if HEAD.unpack_from(txn.get(place))[0] > now_s:
                    found.append(full)
                    if len(found) == 1000:
                        return found, False
        return found, True

    def clear(self) -> None:
        self._store.files  # noqa: B018  (opens it)
        self._store.queue.clear(self._store.write, self._prefix)

    def stats(self) -> Stats:
        store = self._store
        if not self._is_bound:
            self._bind()
        cells = store.cells
        return Stats(
            hits=int(cells.value(self._hit, is_float=False)),
            misses=int(cells.value(self._miss, is_float=False)),
            evictions=int(cells.value(store.numbers_of.evictions, is_float=False)),
            bytes=store.read(store.queue.bytes_in_use),
            limit_bytes=store.queue.limit_bytes,
        )
