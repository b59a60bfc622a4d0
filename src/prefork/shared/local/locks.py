"""Locks that end with their holder, and waiting for them without polling: a FIFO for each lock that is held.

The holder has the FIFO open for reading and writing, and flock(2) on it. The kernel takes both back however the
holder ends, the lock first and then the end of writing, which hangs up (POLLHUP) on all who have the other end open:
they wait. So nobody polls, nobody has to be alive to wake them, and a descriptor is all that an event loop needs.

    try     open the FIFO, made if need be; flock without waiting; is it still the one of that name? then it is ours
    wait    open it for reading; try once more (between the two the holder may have gone); then poll(2)
    let go  remove the name, close

The name is removed by the holder while it holds, so there are only files for locks that are held, or whose holders
were killed; the next one of that name takes those over.

**A lease** is the time of modification of the FIFO, the moment at which it ends by the store's clock, where the FIFO
is marked as executable; else there is none. Past it anyone may remove the name, and begin with a FIFO of its own; the
late holder finds out that the name is not its own any more. What looks at leases or removes names of others does so
under flock on the file `guard`.

A FIFO that a fork holds too would outlive its holder's death: a fork closes it (`forsake`); a program that is
executed does not get it. Cost: 35 µs for taking and letting go, nine system calls. Rejected: one record lock a name
(F_SETLKW has no time-out, threads of a process share it); a record in LMDB with its owner's pid (whoever waits has to
ask again and again whether that lives).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prefork.errors import StoreFullError, StoreUnavailableError

_NANO: Final = 1_000_000_000
_MODE: Final = 0o600


class FifoLocks:
    """The locks of one directory, as one process holds them."""

    def __init__(self, path: Path, clock: Callable[[], float], next_fencing: Callable[[], int]) -> None:
        self._folder = str(path)
        self._clock = clock
        self._next_fencing = next_fencing
        self.held: set[int] = set()
        """Descriptors of what this process holds."""
        self._pid = os.getpid()
        with _told(self._folder):
            path.mkdir(0o700, exist_ok=True)

    def forsake(self) -> None:
        """In a fork: what the parent holds is the parent's alone."""
        for fd in self.held:
            with contextlib.suppress(OSError):  # closed by the program, wrongly or in a hurry
                os.close(fd)
        self.held.clear()

    def path_of(self, name: bytes) -> str:
        """Where the FIFO of a name is, while it is held."""
        return f"{self._folder}/{hashlib.blake2b(name, digest_size=16).hexdigest()}"

    def try_lock(self, name: bytes, lease_s: float | None) -> FifoHold | None:
        """Take it if it is free, or its lease has ended. Does not wait."""
        path = self.path_of(name)
        with _told(self._folder):
            while True:
                fd = _open_fifo(path)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    is_over = self._end_lease(path, fd)
                    os.close(fd)
                    if is_over:
                        continue
                    return None
                except BaseException:
                    os.close(fd)
                    raise
                if self._is_settled(path, fd, lease_s):
                    self.held.add(fd)
                    return FifoHold(self, path, fd, has_lease=lease_s is not None)
                os.close(fd)  # its name was removed between the two: there is another one, or none

    def _is_settled(self, path: str, fd: int, lease_s: float | None) -> bool:
        """Whether it has its name still; then with the new lease."""
        if lease_s is None and not _has_lease(os.fstat(fd)):
            return _is_named(path, fd)
        with self.guarded():
            if lease_s is None:
                os.fchmod(fd, _MODE)
            else:
                ends_ns = int((self._clock() + lease_s) * _NANO)
                os.utime(fd, ns=(ends_ns, ends_ns))
                os.fchmod(fd, _MODE | stat.S_IXUSR)
            return _is_named(path, fd)

    def _end_lease(self, path: str, fd: int) -> bool:
        """Remove the name if the lease of its holder has ended; whether it is worth trying again."""
        if not self._is_over(fd):
            return False
        with self.guarded():
            if self._is_over(fd) and _is_named(path, fd):
                os.unlink(path)  # noqa: PTH108  (a path as text: nothing here is slow)
        return True

    def _is_over(self, fd: int) -> bool:
        status = os.fstat(fd)
        return _has_lease(status) and status.st_mtime_ns <= self._clock() * _NANO

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Alone in looking at leases. Held for a few system calls."""
        fd = os.open(f"{self._folder}/guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def waiter(self, name: bytes) -> FifoWaiter:
        """Somebody who waits; to be closed."""
        with _told(self._folder):
            return FifoWaiter(self.path_of(name), self._clock)

    def next_fencing(self) -> int:
        """A number higher than all before."""
        return self._next_fencing()


class FifoHold:
    """See `store.Hold`."""

    def __init__(self, locks: FifoLocks, path: str, fd: int, *, has_lease: bool) -> None:
        self._locks = locks
        self._path = path
        self._fd = fd
        self._has_lease = has_lease
        self._pid = os.getpid()
        self._fencing = 0

    @property
    def fencing(self) -> int:
        if self._fencing == 0:
            self._fencing = self._locks.next_fencing()
        return self._fencing

    def is_held(self) -> bool:
        if self._fd < 0 or self._pid != os.getpid():
            return False
        # A lease that has ended is still ours until another takes it.
        return not self._has_lease or _is_named(self._path, self._fd)

    def release(self) -> bool:
        fd, self._fd = self._fd, -1
        if fd < 0 or self._pid != os.getpid():
            return False
        try:
            if self._has_lease:
                with self._locks.guarded():
                    return _remove_name(self._path, fd)
            return _remove_name(self._path, fd)
        finally:
            self._locks.held.discard(fd)
            os.close(fd)


class FifoWaiter:
    """See `store.Waiter`."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        _make_fifo(path)
        self._clock = clock
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # let go in this moment: a pipe without a writer has hung up
            self._fd, write = os.pipe()
            os.close(write)

    @property
    def retry_after_s(self) -> float | None:
        status = os.fstat(self._fd)
        return max(0.0, status.st_mtime_ns / _NANO - self._clock()) if _has_lease(status) else None

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open_fifo(path: str) -> int:
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            _make_fifo(path)


def _make_fifo(path: str) -> None:
    with contextlib.suppress(FileExistsError):  # another was first
        os.mkfifo(path, _MODE)


def _has_lease(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IXUSR)


def _is_named(path: str, fd: int) -> bool:
    try:
        there = os.stat(path)  # noqa: PTH116  (see _end_lease)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def _remove_name(path: str, fd: int) -> bool:
    if not _is_named(path, fd):
        return False
    os.unlink(path)  # noqa: PTH108  (see _end_lease)
    return True


@contextlib.contextmanager
def _told(folder: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreUnavailableError(f"shared store {folder}: it was removed: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreFullError(f"shared store {folder}: the file system has no room for a lock") from error
        raise StoreUnavailableError(f"shared store {folder}: {error.strerror}") from error
