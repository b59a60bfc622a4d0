"""Names of numbers, and the columns of `cells.py` that they stand for. A column is given out once and never taken back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from prefork.errors import StoreFullError
from prefork.shared.local.cells import COLUMNS, NOWHERE, Cells

if TYPE_CHECKING:
    from prefork.shared.local.store import LmdbStore

_RECORD: Final = struct.Struct("<H?")  # column, whether it is a float
_LAST: Final = b"N"


class Numbers:
    """The numbers of one store, as one process adds to them. One for each time that the store is opened."""

    def __init__(self, store: LmdbStore, cells: Cells) -> None:
        self._store = store
        self._cells = cells
        self._known: dict[bytes, tuple[int, bool]] = {}
        self.evictions = 0
        """The column of evicted entries: fixed, since it is written to within a transaction."""

    def column(self, name: bytes) -> int:
        """The column of an integer of this name."""
        return self._find_or_make(name, is_float=False)[0]

    def _find_or_make(self, name: bytes, *, is_float: bool) -> tuple[int, bool]:
        known = self._known.get(name)
        if known is None:
            key = b"n" + name
            record = self._store.read(lambda txn: txn.get(key))
            if record is None:
                record = self._store.write(lambda txn: _give_out(txn, key, is_float=is_float))
            known = self._known[name] = _RECORD.unpack(record)
        return known

    def add(self, name: bytes, amount: float) -> None:
        known = self._known.get(name)
        if known is None:
            known = self._find_or_make(name, is_float=isinstance(amount, float))
        column, is_float = known
        if is_float:
            self._cells.add_float(column, amount)
        else:
            self._cells.add(column, amount)  # type: ignore[arg-type]  # a float is refused there

    def value(self, name: bytes) -> float:
        known = self._known.get(name)
        if known is None:
            record = self._store.read(lambda txn: txn.get(b"n" + name))
            if record is None:
                return 0
            known = self._known[name] = _RECORD.unpack(record)
        return self._cells.value(known[0], is_float=known[1])

    def values(self, prefix: bytes) -> dict[bytes, float]:
        begin = b"n" + prefix

        def look(txn: Any) -> list[tuple[bytes, bytes]]:
            found = []
            cursor = txn.cursor()
            if cursor.set_range(begin):
                for key, record in cursor:
                    if not key.startswith(begin):
                        break
                    found.append((key[1:], record))
            return found

        columns = [(name, _RECORD.unpack(record)) for name, record in self._store.read(look)]
        return {name: self._cells.value(column, is_float=kind) for name, (column, kind) in columns}

    def reset(self, name: bytes) -> float:
        if not self.value(name):
            return 0
        column, is_float = self._known[name]
        return self._store.write(lambda _txn: self._cells.reset(column, is_float=is_float))


def _give_out(txn: Any, key: bytes, *, is_float: bool) -> bytes:
    record: bytes | None = txn.get(key)
    if record is not None:  # another process was first
        return record
    column = int(txn.get(_LAST, b"0")) + 1
    if column >= NOWHERE:
        raise StoreFullError(
            f"{COLUMNS} counters and metrics are all that a store has room for: use fewer names or labels, or entries "
            "of a cache (`Cache.increment`)"
        )
    txn.put(_LAST, b"%d" % column)
    record = _RECORD.pack(column, is_float)
    txn.put(key, record)
    return record
