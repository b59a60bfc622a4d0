"""The two calls that requests make all the time, `get` and a plain `set`, as functions that look nothing up.

Made anew whenever the store is opened in a process (`LmdbSpace.bind`): what they need are variables of their own, not attributes
of three objects. Measured, 100 bytes, CPython 3.11: a hit of `Cache.get` in 1.1 µs in place of 1.6, a `set` in 2.5 in place of 3.1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lmdb

from prefork.shared.local.queue import HEAD, HEAD_BYTES

if TYPE_CHECKING:
    from prefork.shared.local.store import LmdbStore

Get = Callable[[bytes], bytes | None]
Put = Callable[[bytes, bytes, float], bool]


def make_get(store: LmdbStore, prefix: bytes, hit: int, miss: int) -> Get:
    """`get(key)`. `hit` and `miss` are columns of this process's row."""
    begin, clock = store.begin, store.clock
    marks, row = store.usage.marks, store.cells.row
    unpack, forever, head_bytes = HEAD.unpack_from, math.inf, HEAD_BYTES

    def get(key: bytes) -> bytes | None:
        full = prefix + key
        try:
            look = begin().get
            place = look(full)
            if place is not None:
                record = look(place)
                ends_s, mark, length = unpack(record)
                if ends_s == forever or ends_s > clock():
                    marks[mark] = 1
                    # One bytecode after the other, without a call between: no other thread of this process comes in.
                    row[hit] += 1
                    return record[head_bytes + length :]  # type: ignore[no-any-return]
        except lmdb.BadValsizeError:  # longer than any key that is there
            return None
        except lmdb.Error as error:
            raise store.translated(error) from error
        except (
            struct.error,
            TypeError,
            IndexError,
        ) as error:  # a record that is not there, too short, or of nonsense
            raise store.files.damaged(error) from error
        row[miss] += 1
        return None

    return get


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
