"""The two calls that requests make all the time, `get` and a plain `set`, as functions that look nothing up.

What they need are variables of their own, not attributes of three objects, and the value is cut out of its record
once. Measured, 100 bytes, CPython 3.11: a hit of `Cache.get` in 1.0 µs in place of 1.6, a `set` in 2.5 in place of
3.1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import lmdb

from prefork.shared.local.queue import HEAD, HEAD_BYTES
from prefork.shared.values import MISSING, RAW, Serialiser, decode

if TYPE_CHECKING:
    from prefork.shared.local.store import LmdbStore

WHAT_IS_BROKEN: Final = (struct.error, TypeError, IndexError)
"""What reading a record raises that is not there, too short, or of nonsense."""

Read = Callable[[bytes], Any]
Bind = Callable[["LmdbStore | None", int, int], None]
Put = Callable[[bytes, bytes, float], bool]


def make_read(open_and_begin: Callable[[], Any], prefix: bytes, using: Serialiser) -> tuple[Read, Bind]:
    """`read(key)`: the value or `MISSING`; and `bind(store, hit, miss)`, to be called when the store is opened or closed.

    open_and_begin: opens the store, which binds this, and begins a transaction.
    hit, miss: columns of this process's row.

    The function stays the same for as long as its process lives, and in its forks, so whoever calls it may keep it.
    """
    begin: Callable[[], Any] = open_and_begin
    translated: Any = None
    clock: Any = None
    marks: Any = None
    row: Any = None
    hit = miss = 0
    unpack, forever, head_bytes, missing, raw = HEAD.unpack_from, math.inf, HEAD_BYTES, MISSING, RAW

    def read(key: bytes) -> Any:
        other = None
        try:
            look = begin().get
            place = look(prefix + key)
            if place is not None:
                record = look(place)
                ends_s, mark, length = unpack(record)
                if ends_s == forever or ends_s > clock():
                    marks[mark] = 1
                    # One bytecode after the other, without a call between: no other thread of this process comes in.
                    row[hit] += 1
                    begins = head_bytes + length
                    if record[begins] == raw:
                        return record[begins + 1 :]
                    other = record[begins:]
        except lmdb.BadValsizeError:  # longer than any key that is there
            return missing
        except (lmdb.Error, *WHAT_IS_BROKEN) as error:
            raise translated(error) from error
        if other is not None:
            return decode(other, using)
        row[miss] += 1
        return missing

    def bind(store: LmdbStore | None, hit_column: int, miss_column: int) -> None:
        nonlocal begin, translated, clock, marks, row, hit, miss
        if store is None:
            begin, marks, row = open_and_begin, None, None
            return
        begin, translated, clock = store.begin, store.translated, store.clock
        marks, row, hit, miss = store.usage.marks, store.cells.row, hit_column, miss_column

    return read, bind


def make_put(store: LmdbStore, prefix: bytes) -> Put:
    """`put(key, payload, ends_s)`: False where the map is full, and nothing was done."""
    begin, write = store.begin, store.queue.write
    row, evictions = store.cells.row, store.numbers_of.evictions

    def put(key: bytes, payload: bytes, ends_s: float) -> bool:
        txn: Any = None
        try:
            txn = begin(None, None, True)
            evicted = write(txn, prefix + key, payload, ends_s)
            txn.commit()
        except lmdb.MapFullError:
            txn.abort()
            return False
        except lmdb.Error as error:
            if txn is not None:
                txn.abort()
            raise store.translated(error) from error
        except BaseException:
            if txn is not None:
                txn.abort()
            raise
        if evicted:
            row[evictions] += evicted
        return True

    return put
