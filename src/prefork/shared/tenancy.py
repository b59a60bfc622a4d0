"""Directories that come and go with their users.

How a directory is known to be in use: whoever uses it holds a shared lock on its file `in-use` (flock(2)), which the
kernel takes back however the holder ends. Who leaves removes the directory if it gets the lock for itself alone; who
starts does the same with what killed masters have left. So no upgrade takes away what the new master uses, and
nothing is left for good.

Runs in the master too: nothing here imports lmdb, starts a thread, or opens a store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from typing import Final

from prefork.errors import StoreUnavailableError

_IN_USE: Final = "in-use"
_PREFIX: Final = "prefork-shared-"
_FORMAT: Final = "v1"
"""Of the files. In the name, so that a master of another version does not take over what it cannot read."""
_MEGA: Final = 2**20
_TRIES: Final = 5
"""A start that looks for leftovers may take a directory for one between its making and its lock: then another is made."""


class Tenancy:
    """This process's use of a directory. Made by `move_in` or `build`; ends with the process, or with `leave`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._pid = os.getpid()

    def is_alone(self) -> bool:
        """Whether no other process uses the directory."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            # Also where it failed: Linux gives the old lock up before it tries for the new one (flock(2), "Converting").
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self, *, is_kept: bool = False) -> bool:
        """Use it no more, and remove it if nobody else uses it; whether it was removed. A fork leaves without a trace.

        is_kept: the directory is the user's: leave it there.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return False
        if is_kept or self._pid != os.getpid():
            os.close(fd)  # in a fork, the lock belongs to the open description, which the parent still has
            return False
        try:
            return _remove_unused(self.path, fd)
        finally:
            os.close(fd)


def move_in(path: str) -> Tenancy:
    """Begin to use a directory, so that nobody removes it. Raises StoreUnavailableError."""
    name = os.path.join(path, _IN_USE)  # noqa: PTH118  (Path costs the master an import of its own)
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailableError(
            f"shared store {path}: {error.strerror}; whoever made it has removed it, or it is another user's"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if _is_same(fd, name):
            return Tenancy(path, fd)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise StoreUnavailableError(f"shared store {path}: it was removed just now, with its last user")


def build(size_mb: float) -> Tenancy:
    """Make a directory of this user's in memory, where there is room for so much, and use it. Raises StoreUnavailableError."""
    base = _base(size_mb)
    for tries_left in reversed(range(_TRIES)):
        name = f"{_PREFIX}{os.getuid()}-{_FORMAT}-{os.urandom(6).hex()}"
        making = f"{base}/.{name}"
        try:
            os.mkdir(making, 0o700)  # noqa: PTH102  (see move_in)
            tenancy = move_in(making)
            os.rename(making, f"{base}/{name}")  # noqa: PTH104  (in use from its first moment under this name)
        except StoreUnavailableError:
            if not tries_left:
                raise
        except OSError as error:
            raise StoreUnavailableError(
                f"no directory for shared state can be made in {base}: {error.strerror}"
            ) from error
        else:
            tenancy.path = f"{base}/{name}"
            return tenancy
    raise AssertionError("unreachable")


def _base(size_mb: float) -> str:
    """Memory where it has room (a container's /dev/shm is often 64 MB), else the directory for temporary files.

    Raises StoreUnavailableError.
    """
    memory = "/dev/shm"  # noqa: S108  (the directory made below it is ours alone, and has a random name)
    if sys.platform == "linux" and os.access(memory, os.W_OK | os.X_OK):
        free = os.statvfs(memory)
        if free.f_bavail * free.f_frsize >= size_mb * _MEGA:
            return memory
    import tempfile  # noqa: PLC0415  (hardly ever needed, and the master carries what it imports about for ever)

    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:  # a read-only root
        raise StoreUnavailableError(
            f"no directory for shared state: {memory} has no room, or is not ours to write, and there is no other"
        ) from error


def _bases() -> list[str]:
    """Where `build` may have made something."""
    return ["/dev/shm", os.environ.get("TMPDIR") or "/tmp"]  # noqa: S108  (see _base)


def remove_leftovers() -> list[str]:
    """Remove directories of this user that nobody uses: their masters were killed. Returns their paths."""
    removed = []
    mine = f"{_PREFIX}{os.getuid()}-"
    for base in _bases():
        try:
            # With a dot: killed while they were being made.
            names = [name for name in os.listdir(base) if name.removeprefix(".").startswith(mine)]
        except OSError:  # there is no such place here
            continue
        for name in names:
            path = f"{base}/{name}"
            if not _is_mine(path):
                continue
            try:
                fd = os.open(f"{path}/{_IN_USE}", os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # removed meanwhile
                continue
            try:
                if _remove_unused(path, fd):
                    removed.append(path)
            finally:
                os.close(fd)
    return removed


def _is_mine(path: str) -> bool:
    """Whether it is a directory of this user's: in a place where all may write, anyone may give anything our name."""
    with contextlib.suppress(OSError):  # removed meanwhile
        status = os.lstat(path)
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return False


def _remove_unused(path: str, fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    import shutil  # noqa: PLC0415  (see _base)

    shutil.rmtree(path, ignore_errors=True)
    return True


def _is_same(fd: int, name: str) -> bool:
    with contextlib.suppress(OSError):  # gone
        return os.path.samestat(os.fstat(fd), os.stat(name))  # noqa: PTH116  (see move_in)
    return False


def is_of_this_format(path: str) -> bool:
    """Whether a directory that `build` made, here or in a master before us, holds files that we can read."""
    return f"-{_FORMAT}-" in path
