"""Unix sockets that live in the file system: bound, given their mode and owner, removed at the end.

Rules:

* A file is removed only when it is a socket that nobody answers on. A live one and a file of any other
  type are refused.
* A path accepts nobody before it has the mode and the owner asked for: it is bound with no permission at
  all, then given away, then opened, and it listens last.
* At the end a path is removed only by the process that bound it, and only while it is still the same
  file. The kernel keeps a bound socket's inode for as long as the socket is open, so while we hold the
  socket, device and inode number cannot belong to anyone else's file.

Rejected: binding under a temporary name and renaming it into place. That closes the moment between the
look at a stale file and our bind, but `getsockname()` would name the temporary path for ever.
Not here: abstract sockets (they have no file; `sockets.py`), and who owns the listener (`listeners.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefork.errors import AddressError
from prefork.net.owner import group_id, user_id


@dataclass(frozen=True, slots=True)
class UnixOptions:
    """How the file of a Unix socket is to look. None leaves it to the process: its umask, ids, directory.

    `mode` is permission bits, as 0o660; `user` and `group` are names or numeric ids. Connecting needs
    write permission (unix(7)).
    """

    mode: int | None = None
    user: str | int | None = None
    group: str | int | None = None


@dataclass(frozen=True, slots=True)
class OwnedPath:
    """A socket's file, and by what marks it is known to be ours."""

    path: Path
    device: int
    inode: int
    pid: int

    @classmethod
    def claim(cls, path: str) -> OwnedPath:
        """Take note of the file at `path` as bound, or adopted, by this process. Raises `OSError`."""
        # Absolute, so that a later chdir of the program does not make it another file.
        given = Path(path)
        absolute = given.parent.resolve() / given.name
        found = absolute.lstat()
        return cls(absolute, found.st_dev, found.st_ino, os.getpid())

    def remove(self) -> None:
        """Unlink the file if it is still ours. To be called while the socket is still open."""
        if os.getpid() != self.pid:
            return
        # A file that is gone, or that may no longer be removed, must not stand in the way of the stop.
        with contextlib.suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                self.path.unlink()


def bind_path(sock: socket.socket, path: str, options: UnixOptions) -> OwnedPath:
    """Bind `sock`, a fresh Unix stream socket, to `path` with `options`; it does not listen yet.

    Raises `AddressError` with one line that says what to do, and leaves no file behind. Runs in the
    master, in its only thread: the umask is the process's, and is changed for the moment of the bind.
    """
    uid = user_id(options.user)
    gid = group_id(options.group)
    _clear_the_way(path)
    with _umask(0o777) as umask:
        try:
            sock.bind(path)
        except OSError as error:
            raise AddressError(_bind_trouble(path, error)) from error
    owned = OwnedPath.claim(path)
    try:
        if (uid, gid) != (-1, -1):
            os.chown(path, uid, gid, follow_symlinks=False)
        Path(path).chmod(0o777 & ~umask if options.mode is None else options.mode)
    except OSError as error:
        owned.remove()
        raise AddressError(
            f"cannot set mode and owner of unix:{path}: {error.strerror}; run as root, or leave the"
            " owner out, or name a group that this user is in"
        ) from error
    return owned


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[int]:
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


def _clear_the_way(path: str) -> None:
    """Remove a stale socket at `path`; raise `AddressError` for anything else that is there."""
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(_bind_trouble(path, error)) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise AddressError(
            f"unix:{path} is not a socket but {_what(found.st_mode)}: move it, or choose another path"
        )
    if _is_answering(path):
        raise AddressError(f"unix:{path} is in use by a running program: stop it, or choose another path")
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(f"cannot replace stale unix:{path}: {error.strerror}; remove it") from error


def _is_answering(path: str) -> bool:
    """Whether a program listens at `path`. Does not wait: a full queue answers at once with EAGAIN."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # somebody's socket, of another type, and bound
                return True
            raise AddressError(
                f"cannot tell whether unix:{path} is in use: {error.strerror}; remove it if it is not"
            ) from error
    return True


def _bind_trouble(path: str, error: OSError) -> str:
    directory = Path(path).parent.resolve()
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"cannot bind unix:{path}: {directory} is not a directory; make it first"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot bind unix:{path}: no permission to write in {directory}; choose another directory"
    if error.errno == errno.EADDRINUSE:
        return f"unix:{path} was taken by another program just now: stop it, or choose another path"
    return f"cannot bind unix:{path}: {error.strerror or error}; choose another path"


def _what(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a regular file"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
