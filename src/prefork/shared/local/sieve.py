"""Who goes when the store is full: SIEVE, with the marks on a page of its own.

Entries stand in the order in which they came (`q number`). A hand walks from the oldest to the newest and begins again at
the oldest: who was read since it last passed loses the mark and stays, who was not goes. An entry is never moved, so a hit
costs one byte (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024). `docs/shared.md` has the hit rates beside exact LRU.

* Full means pages, not bytes: what LMDB has in use, with all its overhead, may be `_FULL` of the map. The rest is for
  copies: each transaction writes new pages, and those that a reader may still see are not used again.
* A `set` looks at `_MOST_LOOKS` entries at most for each one that goes, then takes the one at hand: a bound on how long
  others wait for the write lock.
* What has expired goes when the hand meets it, marked or not.

Rejected: exact LRU (each hit would write to LMDB: 1.1 µs, one at a time on the machine).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from prefork.shared.local.usage import HAND, NEXT, Usage

_NUMBER: Final = struct.Struct(">cQ")
_ENDS: Final = struct.Struct("<dQ")
_FULL: Final = 0.85
_MOST_LOOKS: Final = 64
_PAGE_BYTES: Final = 4096
_BATCH: Final = 500


class Sieve:
    """The queue of one store. All methods are given a write transaction, but for `bytes_in_use`."""

    def __init__(self, usage: Usage, map_bytes: int, clock: Callable[[], float]) -> None:
        self._words = usage.words
        self._marks = usage.marks
        self._count = usage.count
        self._clock = clock
        self.limit_bytes = int(map_bytes * _FULL)

    def recover(self, env: Any) -> None:
        """Find out what the next number is, if the page is new. The caller is setting up."""
        if self._words[NEXT] == 0:
            with env.begin() as txn:
                cursor = txn.cursor()
                is_there = cursor.prev() if cursor.set_range(b"r") else cursor.last()
                key = cursor.key() if is_there else b""
            self._words[NEXT] = _NUMBER.unpack(key)[1] + 1 if key[:1] == b"q" else 1

    def enter(self, txn: Any, full: bytes) -> int:
        """A number for a new entry, as the newest."""
        number = self._words[NEXT]
        while not txn.put(_NUMBER.pack(b"q", number), full, overwrite=False):
            number += 1  # a process was killed between its commit and the next line
        self._words[NEXT] = number + 1
        self._marks[number % self._count] = 0
        return number

    def remove(self, txn: Any, full: bytes, now_s: float = 0.0) -> bool:
        """Take an entry away; whether it was there, and had not expired."""
        record = txn.pop(full)
        if record is None:
            return False
        ends_s, number = _ENDS.unpack_from(record)
        txn.delete(_NUMBER.pack(b"q", number))
        return bool(ends_s > now_s)

    def bytes_in_use(self, txn: Any) -> int:
        """Bytes of all pages that hold something."""
        stat = txn.stat(None)
        pages = stat["leaf_pages"] + stat["overflow_pages"] + stat["branch_pages"]
        return int(pages * _PAGE_BYTES)

    def evict(self, txn: Any, newest: int) -> int:
        """Let entries go until there is room again, but not the newest; how many went."""
        evicted = 0
        while self.bytes_in_use(txn) > self.limit_bytes:
            if not self._evict_one(txn, newest):
                break
            evicted += 1
        return evicted

    def evict_some(self, txn: Any) -> int:
        """Let a few entries go, however full it is."""
        return sum(self._evict_one(txn, -1) for _ in range(_MOST_LOOKS))

    def _evict_one(self, txn: Any, newest: int) -> bool:
        cursor = txn.cursor()
        is_there = cursor.set_range(_NUMBER.pack(b"q", self._words[HAND]))
        looks = 0
        while True:
            is_past = not is_there or cursor.key()[:1] != b"q"
            if is_past and (not cursor.set_range(b"q") or cursor.key()[:1] != b"q"):
                return False
            number = _NUMBER.unpack(cursor.key())[1]
            place = number % self._count
            full = cursor.value()
            looks += 1
            if number != newest and (
                not self._marks[place] or looks > _MOST_LOOKS or self._has_expired(txn, full)
            ):
                break
            if looks > 2 * _MOST_LOOKS:
                return False  # there is only the newest
            self._marks[place] = 0
            is_there = cursor.next()
        self._words[HAND] = number + 1
        cursor.delete()
        txn.delete(full)
        return True

    def _has_expired(self, txn: Any, full: bytes) -> bool:
        record = txn.get(full)
        return record is None or bool(_ENDS.unpack_from(record)[0] <= self._clock())

    def clear(self, write: Callable[[Callable[[Any], bool]], bool], prefix: bytes) -> None:
        """Take all entries away whose full keys begin so, in transactions of their own, so that nobody waits long."""

        def change(txn: Any) -> bool:
            cursor = txn.cursor()
            found: list[bytes] = []
            if cursor.set_range(prefix):
                for full in cursor.iternext(keys=True, values=False):
                    if not full.startswith(prefix) or len(found) == _BATCH:
                        break
                    found.append(full)
            for full in found:
                self.remove(txn, full)
            return len(found) == _BATCH

        while write(change):
            pass
