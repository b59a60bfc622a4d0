"""A number that all workers count together: prefork.shared's where that is there, else eight bytes of a shared file."""

import fcntl
import os
import tempfile
from pathlib import Path

from prefork.errors import PreforkError


def shared_counter():
    """The demo's counter. Made in the zygote, whose parent is the master, and opened by each worker."""
    return SharedCounter(FileCounter(os.getppid()))


class SharedCounter:
    """prefork.shared's, or, where that cannot be had (no lmdb), another one in its place."""

    def __init__(self, otherwise):
        self.otherwise = otherwise
        self.is_shared = True

    def add(self, amount):
        try:
            if self.is_shared:
                from prefork.shared import Counter

                counter = Counter("demo")
                counter.add(amount)
                return counter.get()
        except (ImportError, PreforkError):
            self.is_shared = False
        return self.otherwise.add(amount)


class FileCounter:
    """Counts in a file that is named for the master, so that it goes on after a reload. A lock keeps each step whole."""

    def __init__(self, master_pid):
        folder = Path(tempfile.gettempdir())
        for path in folder.glob("prefork-demo-*"):
            if not Path(f"/proc/{path.name.rpartition('-')[2]}").exists():  # its master is gone
                path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path = str(folder / f"prefork-demo-{master_pid}")
        os.close(os.open(self.path, flags, 0o600))
        self.fd = -1
        self.pid = 0

    def add(self, amount):
        if self.pid != os.getpid():  # flock(2) belongs to the open file: each worker opens its own
            self.fd, self.pid = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), os.getpid()
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        try:
            value = int.from_bytes(os.pread(self.fd, 8, 0), "little") + amount
            os.pwrite(self.fd, value.to_bytes(8, "little"), 0)
            return value
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
