"""Topics: one tells all others, and who has nothing to hear is not woken.

A message stands in LMDB, in a log of the last `KEPT` of its topic. Each listener has a FIFO in the topic's directory,
and a byte in it says "look": a speaker writes one to each. A FIFO that is full has bytes enough, so no wake-up is
lost; a FIFO that nobody reads (ENXIO) was a dead listener's, and is removed. A listener knows the number of the next
message, so it neither misses one nor hears one twice; if that is older than the log, it is told that messages are
lost.

Rejected: the message itself in a datagram socket (its queue holds 10 on a stock kernel, and the rest is lost or
waited for); inotify (a listener is woken for each file of the directory, and reads no more than that).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefork.errors import MessagesLostError, StoreFullError, StoreUnavailableError, ValueTooLargeError

if TYPE_CHECKING:
    from prefork.shared.local.store import LmdbStore

KEPT: Final = 256
MESSAGE_BYTES: Final = 16 * 1024


class Topics:
    """The topics of one store, as one process speaks and listens."""

    def __init__(self, store: LmdbStore, path: Path) -> None:
        self._store = store
        self._path = path

    def folder(self, topic: bytes) -> Path:
        """The directory of a topic's listeners."""
        return self._path / hashlib.blake2b(topic, digest_size=16).hexdigest()

    def publish(self, topic: bytes, message: bytes) -> None:
        """See `store.Store.publish`. A few microseconds, and five for each listener."""
        if len(message) > MESSAGE_BYTES:
            raise ValueTooLargeError(
                f"a message of {len(message)} bytes is more than {MESSAGE_BYTES}: store the value, and tell its key"
            )
        head = b"T" + topic

        def change(txn: Any) -> None:
            number = int(txn.get(head, b"0"))
            txn.put(_key(topic, number), message)
            txn.put(head, b"%d" % (number + 1))
            if number >= KEPT:
                txn.delete(_key(topic, number - KEPT))
            self._store.queue.evict(txn, b"", len(message))

        self._store.write(change)
        self._wake(self.folder(topic))

    def _wake(self, folder: Path) -> None:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:  # nobody has ever listened
            return
        for name in names:
            path = f"{folder}/{name}"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    with contextlib.suppress(FileNotFoundError):  # another speaker was first
                        os.unlink(path)  # noqa: PTH108  (a path as text: nothing here is slow)
                elif error.errno != errno.ENOENT:  # it has gone by itself
                    raise StoreUnavailableError(f"shared store {path}: {error.strerror}") from error
                continue
            try:
                # It has 65,536 bytes that say the same; or it has left since we opened it, and its FIFO is gone, or found by the
                # next speaker.
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    os.write(fd, b"!")
            finally:
                os.close(fd)

    def subscribe(self, topic: bytes) -> FifoSubscription:
        """See `store.Store.subscribe`."""
        folder = self.folder(topic)
        path = folder / f"{os.getpid()}-{os.urandom(6).hex()}"
        aside = self._path / path.name
        try:
            self._path.mkdir(0o700, exist_ok=True)
            folder.mkdir(0o700, exist_ok=True)
            os.mkfifo(aside, 0o600)
            fd = os.open(aside, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            aside.rename(path)  # read from the first moment, so no speaker takes it for a dead one's
        except OSError as error:
            kind = StoreFullError if error.errno == errno.ENOSPC else StoreUnavailableError
            raise kind(f"shared store {folder}: {error.strerror}") from error
        return FifoSubscription(self._store, topic, path, fd)


class FifoSubscription:
    """See `store.Subscription`."""

    def __init__(self, store: LmdbStore, topic: bytes, path: Path, fd: int) -> None:
        self._store = store
        self._topic = topic
        self._path = path
        self._fd = fd
        self._pid = os.getpid()
        self._next = self._newest(None)

    def _newest(self, txn: Any) -> int:
        if txn is None:
            return self._store.read(self._newest)
        return int(txn.get(b"T" + self._topic, b"0"))

    def fileno(self) -> int:
        return self._fd

    def take(self) -> list[bytes]:
        with contextlib.suppress(BlockingIOError):  # nobody has spoken
            while len(os.read(self._fd, 4096)) == 4096:
                pass
        found: list[bytes | None] = []

        def look(txn: Any) -> None:
            found.clear()
            newest = self._newest(txn)
            begin = max(self._next, newest - KEPT)
            found.extend([None] * (begin > self._next))
            found.extend(txn.get(_key(self._topic, number)) for number in range(begin, newest))
            self._next = newest

        # What is lost is told alone, and what is left is told with the next call: nobody takes it for all.
        before = self._next
        self._store.read(look)
        if None in found:
            lost = found.index(None) + 1
            self._next = max(before, self._next - (len(found) - lost))
            os.write(self._fd, b"!")
            raise MessagesLostError(
                "messages were lost, this listener was more than "
                f"{KEPT} behind: take it that anything was said (a cache: clear it)"
            )
        return [message for message in found if message is not None]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._pid == os.getpid():  # the name is its maker's
            self._path.unlink(missing_ok=True)
        os.close(fd)


def _key(topic: bytes, number: int) -> bytes:
    return b"t" + topic + b"\0" + number.to_bytes(8, "big")
