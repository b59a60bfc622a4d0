r"""The entries in the order in which they came, and who goes when the store is full: CLOCK, with the marks on a page of its own.

Each entry is a record in a queue (`\xff number`), and an index says which number a key has (`e space NUL key`). When
there is too little room, the oldest record is looked at: if it was read since it came, it loses its mark and goes to
the end of the queue; else it goes for good. A `get` only leaves a mark (one byte, `usage.py`), so it writes nothing
to the database (Corbató 1968, "A paging experiment with the Multics system": CLOCK, or FIFO with a second chance).
`docs/shared.md` has the hit rates beside exact LRU.

* Full means pages, not bytes: what LMDB has in use, with all its overhead, may be `_FULL` of the map. The rest is for
  copies: each transaction writes new pages, and those that a reader may still see are not used again.
* A `set` moves `_MOST_MOVES` records at most; the next one looks further, and until then the store may be a little
  over its limit. So there is a bound on how long others wait for the write lock, and on the pages that one
  transaction writes, some 40. What is larger than a 256th of the store is not moved: it has one chance.
* What has expired goes when its turn comes, marked or not.
* The queue is appended to at one end and eaten from the other, so its pages are full. Rejected, after measuring:
  records in order of their keys, with SIEVE. One that goes leaves a hole among others; LMDB joins pages only below a
  quarter full, and a store of 4 MB held 21 % of its bytes in entries where now it holds 45 %.

Rejected too: exact LRU (each hit would write to LMDB: 1.1 µs, one at a time on the machine).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from prefork.shared.local.usage import NEXT, Usage

NUMBER: Final = struct.Struct(
    ">cQ"
)  # the key of a record: \xff, so that the queue is the right edge of the tree
HEAD: Final = struct.Struct("<dIH")
"""Of a record: when it ends (inf: never), the place of its mark, bytes of the full key. Then come the key and the payload."""
HEAD_BYTES: Final = HEAD.size
_QUEUE: Final = b"\xff"
_FULL: Final = 0.85
_TOO_FULL: Final = 0.93
"""Past it wanted entries go, too. A lap of the queue in which all are wanted needs a 16th of the store on top of `_FULL`."""
_MOST_MOVES: Final = 16
_PAGE_BYTES: Final = 4096
_BATCH: Final = 500
_SMALL_BYTES: Final = 1024


class Entry(NamedTuple):
    """An entry as it is stored."""

    ends_s: float
    mark: int
    payload: bytes


class Queue:
    """The entries of one store, for whoever has a transaction."""

    def __init__(self, usage: Usage, map_bytes: int, clock: Callable[[], float]) -> None:
        self._words = usage.words
        self._marks = usage.marks
        self._count = usage.count
        self._clock = clock
        self.limit_bytes = int(map_bytes * _FULL)
        self._hard_limit_bytes = int(map_bytes * _TOO_FULL)
        self._most_moved_bytes = map_bytes // 256

    def recover(self, env: Any) -> None:
        """Find out what the next number is, if the page is new. The caller is setting up."""
        if self._words[NEXT] == 0:
            with env.begin() as txn:
                cursor = txn.cursor()
                key = cursor.key() if cursor.last() else b""
            self._words[NEXT] = NUMBER.unpack(key)[1] + 1 if key[:1] == _QUEUE else 1

    # -- one entry --------------------------------------------------------------------------------

    def read(self, txn: Any, full: bytes, now_s: float) -> Entry | None:
        """The entry of a full key, unless it has expired. Raises struct.error if it is damaged."""
        place = txn.get(full)
        if place is None:
            return None
        record = txn.get(place)
        ends_s, mark, _ = HEAD.unpack_from(record or b"")
        return Entry(ends_s, mark, record[HEAD_BYTES + len(full) :]) if ends_s > now_s else None

    def write(self, txn: Any, full: bytes, payload: bytes, ends_s: float, *, is_used: bool = False) -> int:
        """Put an entry in place of the one that is there, or as the newest, for which others may go; how many went."""
        place = txn.get(full)
        is_new = place is None
        if is_new:
            place, mark = self._next()
            record = HEAD.pack(ends_s, mark, len(full)) + full + payload
            txn.put(place, record, append=True)
            txn.put(full, place)
        else:
            mark = NUMBER.unpack(place)[1] % self._count
            record = HEAD.pack(ends_s, mark, len(full)) + full + payload
            txn.put(place, record)
        if is_used:
            self._marks[mark] = 1
        # Most entries do not look whether it is full (0.5 µs); each fourth does, and then makes room for four.
        size = len(record)
        if size > _SMALL_BYTES or (is_new and place[-1] & 3 == 0):
            return self.evict(txn, place, 4 * size if is_new else size)
        return 0

    def _next(self) -> tuple[bytes, int]:
        """The key of the next new record, and the place of its mark. Counted up first: who is killed here leaves a gap."""
        number = self._words[NEXT]
        self._words[NEXT] = number + 1
        mark = number % self._count
        self._marks[mark] = 0
        return NUMBER.pack(_QUEUE, number), mark

    def remove(self, txn: Any, full: bytes, now_s: float = 0.0) -> bool:
        """Take an entry away; whether it was there, and had not expired."""
        place = txn.pop(full)
        if place is None:
            return False
        return bool(HEAD.unpack_from(txn.pop(place) or b"")[0] > now_s)

    # -- room -------------------------------------------------------------------------------------

    def bytes_in_use(self, txn: Any) -> int:
        """Bytes of all pages that hold something."""
        stat = txn.stat(None)
        return int((stat["leaf_pages"] + stat["overflow_pages"] + stat["branch_pages"]) * _PAGE_BYTES)

    def evict(self, txn: Any, newest: bytes, new_bytes: int) -> int:
        """Let entries go while there is too little room, but not the newest; how many went.

        Twice of what comes may go, and at least eight, and no more: pages get free a little later than what was on them, and a store
        that is over its limit comes back below it with each `set`.
        """
        evicted = gone_bytes = 0
        moves = _MOST_MOVES
        while (in_use := self.bytes_in_use(txn)) > self.limit_bytes and (
            evicted < 8 or gone_bytes < 2 * new_bytes
        ):
            size, moves = self._evict_one(txn, newest, moves, is_urgent=in_use > self._hard_limit_bytes)
            if size == 0:
                break
            gone_bytes += size
            evicted += 1
        return evicted

    def evict_some(self, txn: Any) -> int:
        """Let a few entries go, however full it is, and move none: a transaction that needs few pages itself."""
        return sum(self._evict_one(txn, b"", 0, is_urgent=True)[0] > 0 for _ in range(8))

    def _evict_one(self, txn: Any, newest: bytes, moves: int, *, is_urgent: bool) -> tuple[int, int]:
        """Let the next one go, moving so many that are wanted at most: its bytes, 0 if none went; moves that are left.

        Where all of those were wanted, none goes: the next `set` looks further. Unless it is urgent.
        """
        now_s = self._clock()
        cursor = txn.cursor()
        while cursor.set_range(_QUEUE):
            place, record = cursor.item()
            if place == newest:
                return 0, moves  # it is the oldest, too: there is no other
            ends_s, mark, length = HEAD.unpack_from(record)
            full = record[HEAD_BYTES : HEAD_BYTES + length]
            is_wanted = self._marks[mark] and ends_s > now_s and len(record) <= self._most_moved_bytes
            if not is_wanted or (moves == 0 and is_urgent):
                cursor.delete()
                txn.delete(full)
                return len(record), moves
            if moves == 0:
                return 0, 0
            moves -= 1
            cursor.delete()
            moved, mark = self._next()
            txn.put(moved, HEAD.pack(ends_s, mark, length) + record[HEAD_BYTES:], append=True)
            txn.put(full, moved)
        return 0, moves

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
