"""The directory of a local store: making it, reserving its memory, and opening LMDB in this process.

    boot        in which life of the machine a lasting store is used   power.py
    in-use      whoever uses the directory holds a shared lock on it   place.py
    setup       held while one process makes or mends what is here
    data.mdb, lock.mdb                                                 LMDB's
    usage       which entries were read, the next number               usage.py
    cells, rows a row of numbers for each process, and who has which   cells.py
    locks/      a FIFO for each lock that is held                      locks.py
    topics/     a FIFO for each listener                               topics.py

**Memory is reserved as a whole when the store is made.** LMDB writes through its memory map (WRITEMAP): a `set` costs
2.6 µs, where the same through write(2) costs 9.6. Where a file has a hole and its file system is full, such a write
is SIGBUS and the end of the worker. So there are no holes: posix_fallocate(3) gets all pages (16 to 36 ms for 64 MB),
or ENOSPC, which is an error that one can read. Rejected: growing as it fills.

A worker killed at any moment leaves nothing that needs mending: LMDB writes new pages and then turns one word, its
lock is a robust mutex, and its readers' slots are cleared by whoever opens the store next, such as the dead worker's
replacement.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import lmdb

from prefork.errors import SharedError, StoreDamagedError, StoreFullError, StoreUnavailableError
from prefork.shared import power
from prefork.shared.place import Place, older_generations
from prefork.shared.tenancy import Tenancy, move_in

_MEGA: Final = 2**20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READERS: Final = 1024
"""Read transactions at one moment: one for each thread that reads. LMDB's own 126 is few for 64 workers with threads."""
_LOCK_FILE_BYTES: Final = 8192 + 64 * _READERS
_NUMBERS_BYTES: Final = 17 * 16 * 1024
"""Of the whole, kept free for the rows of 16 processes (`cells.py`); each process more takes 16 KB beyond it."""
MAP_SHARE: Final = 0.985
"""What LMDB gets of the rest; what is left is for the usage page, and for what the file system rounds up."""


class Files:
    """The files of one local store, opened in this process. Raises SharedError of all kinds."""

    def __init__(self, place: Place, *, is_second: bool = False) -> None:
        """Open them. `is_second`: this process is a fork of one that had them open, too."""
        self._is_second = is_second
        self.path = Path(place.path)
        rest_bytes = place.options.size_mb * _MEGA - _NUMBERS_BYTES - _LOCK_FILE_BYTES
        self.map_bytes = int(rest_bytes * MAP_SHARE) // 4096 * 4096
        self._options = place.options
        self._make_directory()
        self._tenancy: Tenancy = move_in(place.path)
        try:
            with self.setting_up():
                self._remove_older_generations()
                self._look_for_power_failure()
                self.env = self._open_or_begin_anew()
        except BaseException:
            leave(self._tenancy, place)
            raise

    def _make_directory(self) -> None:
        if self._options.is_anonymous and not self.path.name.startswith("generation-"):
            return  # its maker made it; if it is gone, so is the fleet
        try:
            self.path.mkdir(0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"shared store {self.path}: {error.strerror}") from error
        if self.path.stat().st_mode & stat.S_IWOTH:
            raise StoreUnavailableError(
                f"shared store {self.path}: everybody may write there, and so have code run here (pickle): chmod o-w"
            )

    @contextlib.contextmanager
    def setting_up(self) -> Iterator[None]:
        """Keep other processes out while something is made. Blocks for as long as they take, some 40 ms at most."""
        fd = self.open_file("setup")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def open_file(self, name: str) -> int:
        """A descriptor of a file of ours, made if need be. Raises StoreUnavailableError."""
        try:
            return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"shared store {self.path / name}: {error.strerror}") from error

    def reserve(self, fd: int, begin: int, length: int) -> None:
        """Have the file system keep memory for a part of a file. Raises StoreFullError."""
        status = os.fstat(fd)
        if begin == 0 and status.st_size >= length and status.st_blocks * 512 >= status.st_size:
            return  # there are no holes: it need not look at each page, which takes milliseconds
        if not hasattr(os, "posix_fallocate"):
            return  # macOS: nobody knows a way there, and nobody has measured what happens
        try:
            os.posix_fallocate(fd, begin, length)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise StoreUnavailableError(f"shared store {self.path}: {error.strerror}") from error
            raise self._no_room(length) from error

    def _no_room(self, length: int) -> StoreFullError:
        free = shutil.disk_usage(self.path).free / _MEGA
        return StoreFullError(
            f"shared store {self.path}: {length / _MEGA:.0f} MB are wanted and {free:.0f} MB are free there: "
            "ask for less (size_mb), or give a directory with more room (lmdb:///path)"
        )

    def _open_or_begin_anew(self) -> Any:
        try:
            return self._open()
        except StoreDamagedError:
            if not self.may_begin_anew():
                raise
            self._forget_all()
            return self._open()

    def may_begin_anew(self) -> bool:
        """Whether what is damaged may be taken away: the user wants it, and nobody else uses it."""
        return self._options.damaged == "clear" and self._tenancy.is_alone()

    def _forget_all(self) -> None:
        for name in ("data.mdb", "lock.mdb"):
            (self.path / name).unlink(missing_ok=True)
        self.forget_pages()

    def forget_pages(self) -> None:
        """Remove what lies beside LMDB: it will be made anew."""
        for name in ("usage", "cells"):
            (self.path / name).unlink(missing_ok=True)

    def _open(self) -> Any:
        data = self.path / "data.mdb"
        is_new = not data.exists()
        self._reserve_lock_file()
        try:
            with _handle_of_parent_forgotten() if self._is_second else contextlib.nullcontext():
                env = lmdb.open(
                    str(self.path),
                    map_size=max(self.map_bytes, 0 if is_new else data.stat().st_size),
                    max_readers=_READERS,
                    max_dbs=0,
                    writemap=True,
                    sync=self._options.sync,
                    metasync=self._options.sync,
                    readahead=False,
                    meminit=False,
                    max_spare_txns=1,  # a read that finds one takes no lock: 0.2 µs less
                    mode=0o600,
                )
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError, lmdb.PanicError) as error:
            raise self.damaged(error) from error
        except (lmdb.Error, OSError) as error:
            if getattr(error, "code", getattr(error, "errno", 0)) in _NO_ROOM:
                raise self._no_room(self.map_bytes) from error
            raise StoreUnavailableError(f"shared store {self.path}: {error}") from error
        try:
            self.map_bytes = env.info()["map_size"]
            self._reserve_map()
            env.reader_check()
            with env.begin() as txn:  # as far as the first page, which tells most damage
                txn.cursor().last()
        except BaseException as error:
            env.close()
            if is_new:
                data.unlink(missing_ok=True)
            if isinstance(error, lmdb.Error):
                raise self.damaged(error) from error
            raise
        return env

    def _reserve_map(self) -> None:
        fd = os.open(self.path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
        try:
            self.reserve(fd, 0, self.map_bytes)
        finally:
            os.close(fd)

    def _reserve_lock_file(self) -> None:
        """LMDB takes a lock file as large as it finds it. Only before it has one: closing a descriptor takes its lock away."""
        if not (self.path / "lock.mdb").exists():
            fd = self.open_file("lock.mdb")
            try:
                self.reserve(fd, 0, _LOCK_FILE_BYTES)
            finally:
                os.close(fd)

    def _look_for_power_failure(self) -> None:
        if self._options.is_anonymous:
            return  # in memory: it does not outlive the machine's life
        boot = power.boot_id()
        if power.is_suspect(self.path, boot) and not self._options.sync:
            if not self.may_begin_anew():
                raise self.damaged("the machine stopped while they were in use, without sync=1")
            self._forget_all()
        power.enter(self.path, boot)

    def _remove_older_generations(self) -> None:
        for path in older_generations(str(self.path)):
            with contextlib.suppress(SharedError):  # removed meanwhile
                move_in(path).leave()

    def damaged(self, error: object) -> StoreDamagedError:
        """What to say of damage."""
        return StoreDamagedError(
            f"shared store {self.path}: its files are damaged ({error}): stop all that use it and remove it, or put "
            "?damaged=clear behind its URL, to begin empty"
        )

    def close(self) -> Tenancy:
        """Close LMDB in this process. What is returned uses the directory still: see `leave`."""
        self.env.close()
        return self._tenancy


def leave(tenancy: Tenancy, place: Place) -> None:
    """Use a directory no more: the last one removes it, or, if it is to last, has it written to the disk."""
    if place.options.is_anonymous:
        tenancy.leave()
        return
    if tenancy.is_alone():
        with contextlib.suppress(OSError):  # a full or broken disk: then the next life finds it suspect
            power.settle(Path(place.path))
    tenancy.leave(is_kept=True)


@contextlib.contextmanager
def _handle_of_parent_forgotten() -> Iterator[None]:
    """Have py-lmdb open files that a parent of ours had open, too.

    It refuses what it knows to be open in this process, and a fork inherits that knowledge with a handle that it must not
    close. LMDB itself is content: the parent's locks (fcntl(2)) are not ours. Older py-lmdb keeps no such list.
    """
    try:
        identity: Any = importlib.import_module("lmdb._envid")
    except ImportError:
        yield
        return
    keys = identity.env_keys
    identity.env_keys = lambda path, subdir: tuple((os.getpid(), key) for key in keys(path, subdir))
    try:
        yield
    finally:
        identity.env_keys = keys
