r"""The store of one machine, as one process uses it: LMDB opened behind the fork, and what lies beside it.

The object itself survives forks. Nothing of LMDB may cross one: a process without other threads closes it before, and
the next call on either side opens it anew (0.3 ms). Where there are threads, one of them may be reading, so it stays
open, and the child keeps its copy for ever and opens another: to close the copy would end, in the reader table that
all share, what the parent still reads. `begin` is the switch: LMDB's own when the store is open, and
`_open_and_begin` when it is not, so that a `get` asks nothing.

One database holds everything; the first byte of a key says what it is. Rejected: a named database for each kind. Each
costs another tree to copy on the way to the root in every transaction, and opening one made a `get` of 0.4 µs one of
0.9.

    e space NUL key     which record has the entry                             entries.py
    \xff number         a record: when it ends, the key, the payload           queue.py
    n name              column and kind of a number                            numbers.py
    d name              a text
    t topic NUL number  a message                                              topics.py
    T topic             the number of its next message
    f                   the last fencing number

A write is LMDB's transaction, one at a time on the machine. It waits for its turn, which is a few microseconds a
waiting process, and a few milliseconds where a large value pushes thousands of small ones out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import lmdb

from prefork.errors import SharedError, StoreDamagedError, StoreError, StoreFullError, StoreUnavailableError
from prefork.shared.limits import take
from prefork.shared.local.cells import Cells
from prefork.shared.local.entries import LmdbSpace
from prefork.shared.local.files import Files, leave
from prefork.shared.local.locks import FifoLocks
from prefork.shared.local.numbers import Numbers
from prefork.shared.local.queue import Queue
from prefork.shared.local.quick import WHAT_IS_BROKEN
from prefork.shared.local.topics import Topics
from prefork.shared.local.usage import Usage
from prefork.shared.place import Place
from prefork.shared.store import Bucket, Hold, Space, Subscription, Verdict, Waiter, Window
from prefork.shared.tenancy import Tenancy

_T = TypeVar("_T")

_LIMITS: Final = b"e\x01limits\x00"
"""Rate limits are entries too: they end, and are evicted where they are not used. No name of a cache begins so."""

_PATIENCE_S: Final = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""Waits for a reader that was interrupted in its microsecond: until it goes on, no page that it might see is used again."""


class LmdbStore:
    """See `store.Store`."""

    is_local = True

    def __init__(self, place: Place) -> None:
        self.place = place
        # Across a reboot only the wall clock goes on, and a stepped one is the price. Where files are in memory, the
        # clock that nobody steps, and that counts the sleep of a laptop.
        is_lasting = not place.options.is_anonymous
        self.clock: Callable[[], float] = time.time if is_lasting else _boot_clock()
        self._inherited: list[object] = []
        self._spaces: dict[bytes, LmdbSpace] = {}
        self._locks: FifoLocks | None = None
        self._topics: Topics | None = None
        self._tenancy: Tenancy | None = None
        self._start_afresh()
        os.register_at_fork(before=self._close_before_fork, after_in_child=self._forsake)

    # -- opening ----------------------------------------------------------------------------------

    def _start_afresh(self) -> None:
        self._opening = threading.Lock()
        self._files: Files | None = None
        self.begin: Callable[..., Any] = self._open_and_begin
        self.most_bytes = 0
        """Largest payload; 0 until the store is open."""
        for space in self._spaces.values():
            space.unbind()

    def _close_before_fork(self) -> None:
        """Before a fork. What other threads may be using stays open, and the child inherits it."""
        if self._files is not None and threading.active_count() == 1:
            self._tenancy = self._files.close()
            self.cells.close()
            self._start_afresh()

    def _forsake(self) -> None:
        """In a fork. What was inherited is kept for ever, or it would be closed when it is destroyed."""
        if self._locks is not None:
            self._locks.forsake()
            self._locks = None
        self._topics = None
        if self._files is not None:
            self._inherited.append((self._files, self.usage, self.cells))
        self._start_afresh()
        if self._tenancy is not None:
            self._tenancy.leave()  # a copy
            self._tenancy = None

    def _open_and_begin(self, *arguments: Any, **options: Any) -> Any:
        self.open()
        return self.begin(*arguments, **options)

    def open(self) -> None:
        """Open it in this process, if it is not open. Raises SharedError."""
        with self._opening:
            if self._files is not None:
                return
            files = Files(self.place, is_second=bool(self._inherited))
            try:
                with files.setting_up():
                    try:
                        self._map_pages(files)
                    except StoreDamagedError:
                        if not files.may_begin_anew():
                            raise
                        files.forget_pages()
                        self._map_pages(files)
            except BaseException:
                leave(files.close(), self.place)
                raise
            self._files = files
            self.most_bytes = files.map_bytes // 8
            self.begin = files.env.begin
            if self._tenancy is not None:
                self._tenancy.leave(is_kept=True)  # the new one holds the place
                self._tenancy = None

    def _map_pages(self, files: Files) -> None:
        self.usage = Usage(files)
        self.cells = Cells(files)
        self.queue = Queue(self.usage, files.map_bytes, self.clock)
        self.queue.recover(files.env)
        self.numbers_of = Numbers(self, self.cells)
        # These outlive a closing: what is held stays held.
        self._locks = self._locks or FifoLocks(files.path / "locks", self.clock, self._next_fencing)
        self._topics = self._topics or Topics(self, files.path / "topics")

    @property
    def files(self) -> Files:
        """The open directory."""
        if self._files is None:
            self.open()
        assert self._files is not None
        return self._files

    def close(self) -> None:
        """Let go of LMDB in this process. Locks and listeners live on."""
        with self._opening:
            files, self._files = self._files, None
            self.begin = self._open_and_begin
            for space in self._spaces.values():
                space.unbind()
        tenancy, self._tenancy = self._tenancy, None
        if files is not None:
            self.cells.close()
            tenancy = files.close()
        if tenancy is not None:
            leave(tenancy, self.place)

    # -- transactions -----------------------------------------------------------------------------

    def write(self, change: Callable[[Any], _T]) -> _T:
        """Do `change(transaction)` and commit; all or nothing. Raises SharedError.

        May be done several times before it succeeds, so `change` must have no other effect.
        """
        for wait_s in _PATIENCE_S:
            try:
                return self._write_once(change)
            except lmdb.MapFullError:
                self._make_room(wait_s)
        raise StoreFullError(
            f"shared store {self.place.path}: no room, after all that could be evicted was: make it larger "
            "(size_mb), or store less"
        )

    def _write_once(self, change: Callable[[Any], _T]) -> _T:
        try:
            txn = self.begin(None, None, True)
        except lmdb.Error as error:
            raise self.translated(error) from error
        try:
            result = change(txn)
            txn.commit()
        except lmdb.MapFullError:
            txn.abort()
            raise
        except lmdb.Error as error:
            txn.abort()
            raise self.translated(error) from error
        except BaseException:
            txn.abort()
            raise
        return result

    def _make_room(self, wait_s: float) -> None:
        """The map is full: of entries, of pages that a dead reader seems to see, or of those that a live one does."""
        self.files.env.reader_check()
        time.sleep(wait_s)
        try:
            self._write_once(self.queue.evict_some)
        except lmdb.MapFullError:  # not even for that; the next wait is longer
            return

    def read(self, look: Callable[[Any], _T]) -> _T:
        """Do `look(transaction)`. Raises SharedError."""
        try:
            return look(self.begin())
        except lmdb.Error as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> SharedError:
        """An error of LMDB as one of ours."""
        damage = (
            lmdb.CorruptedError,
            lmdb.PageNotFoundError,
            lmdb.PanicError,
            lmdb.InvalidError,
            *WHAT_IS_BROKEN,
        )
        if isinstance(error, damage):
            return self.files.damaged(error)
        if isinstance(error, lmdb.ReadersFullError):
            return StoreFullError(
                f"shared store {self.place.path}: too many threads read at one time: {error}"
            )
        if isinstance(error, (lmdb.DiskError, lmdb.MemoryError, lmdb.LockError, lmdb.MapResizedError)):
            return StoreUnavailableError(f"shared store {self.place.path}: {error}")
        return StoreError(f"shared store {self.place.path}: {error}")

    # -- entries ----------------------------------------------------------------------------------

    def space(self, name: bytes) -> Space:
        return self._spaces.setdefault(name, LmdbSpace(self, name))

    # -- numbers and texts ------------------------------------------------------------------------

    def add(self, name: bytes, amount: float) -> None:
        if self._files is None:
            self.open()
        self.numbers_of.add(name, amount)

    def add_many(self, items: Sequence[tuple[bytes, float]]) -> None:
        for name, amount in items:
            self.add(name, amount)

    def numbers(self, prefix: bytes) -> dict[bytes, float]:
        self.open()
        return self.numbers_of.values(prefix)

    def number(self, name: bytes) -> float:
        self.open()
        return self.numbers_of.value(name)

    def reset(self, name: bytes) -> float:
        self.open()
        return self.numbers_of.reset(name)

    def describe(self, name: bytes, text: bytes) -> None:
        key = b"d" + name
        if self.read(lambda txn: txn.get(key)) != text:
            self.write(lambda txn: txn.put(key, text))

    def descriptions(self, prefix: bytes) -> dict[bytes, bytes]:
        return self.read(lambda txn: dict(_below(txn, b"d" + prefix, 1)))

    # -- rate limits ------------------------------------------------------------------------------

    def take(self, key: bytes, limit: Bucket | Window, amount: float) -> Verdict:
        full = _LIMITS + key

        def change(txn: Any) -> Verdict:
            now_s = self.clock()
            old = self.queue.read(txn, full, now_s)
            state, lasts_s, verdict = take(None if old is None else old.payload, limit, amount, now_s)
            if state is not None:
                self.queue.write(txn, full, state, now_s + lasts_s, is_used=True)
            return verdict

        return self.write(change)

    def forget(self, key: bytes) -> None:
        self.write(lambda txn: self.queue.remove(txn, _LIMITS + key))

    # -- locks and topics -------------------------------------------------------------------------

    @property
    def locks(self) -> FifoLocks:
        """The locks of this process."""
        if self._locks is None:
            self.open()
        assert self._locks is not None
        return self._locks

    def _next_fencing(self) -> int:
        def change(txn: Any) -> int:
            number = int(txn.get(b"f", b"0")) + 1
            txn.put(b"f", b"%d" % number)
            return number

        return self.write(change)

    def try_lock(self, name: bytes, lease_s: float | None) -> Hold | None:
        return self.locks.try_lock(name, lease_s)

    def lock_waiter(self, name: bytes) -> Waiter:
        return self.locks.waiter(name)

    @property
    def topics(self) -> Topics:
        """The topics, as this process speaks and listens."""
        if self._topics is None:
            self.open()
        assert self._topics is not None
        return self._topics

    def publish(self, topic: bytes, message: bytes) -> None:
        self.topics.publish(topic, message)

    def subscribe(self, topic: bytes) -> Subscription:
        return self.topics.subscribe(topic)

    # -- all of it --------------------------------------------------------------------------------

    def clear(self) -> None:
        self.open()
        self.queue.clear(self.write, b"e")
        for name in self.numbers_of.values(b""):
            self.numbers_of.reset(name)


def _boot_clock() -> Callable[[], float]:
    number = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    read = time.clock_gettime

    def clock() -> float:
        return read(number)

    return clock


def _below(txn: Any, prefix: bytes, cut: int) -> list[tuple[bytes, bytes]]:
    """Keys that begin so, without their first `cut` bytes, and their values."""
    found = []
    cursor = txn.cursor()
    if cursor.set_range(prefix):
        for key, value in cursor:
            if not key.startswith(prefix):
                break
            found.append((key[cut:], value))
    return found
