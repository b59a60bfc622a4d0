"""Answers that are files: sent by the kernel (sendfile(2)) where nothing has to be done to the bytes.

Rules:

* A file of up to 64 KiB is read and joined to its head: one write is cheaper than two system calls and a descriptor.
* A whole file gets a `content-length` if the application gave none. A file that is shorter than was announced, as it
  has been cut meanwhile, closes the connection.
* Over TLS the bytes are read and written a piece at a time.

Rejected: `loop.sendfile`, which uvloop does not have. Reading in a thread: the pages of what is served often are in
memory, and a thread costs more than the copy.

Not here: byte ranges and conditions, which are the application's (RFC 9110 §13, §14).
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from typing import Any, Final, Protocol

from prefork.http.exchange import JOIN_BYTES, NOTHING, ClientDisconnectedError, Exchange
from prefork.http.response import ResponseError

_PIECE_BYTES: Final = 256 * 1024
"""Read at once where the kernel cannot send the file itself."""
_MOST_BYTES: Final = 2**30
"""One sendfile(2) sends 2 GiB at most; and other connections wait until it returns."""


async def send_path(exchange: Exchange, path: str) -> None:
    """ASGI `http.response.pathsend`: the whole of a regular file, as all of the body.

    Raises OSError if it cannot be opened, ResponseError for what is no regular file or not as long as announced.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a FIFO would hold up the worker
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ResponseError(f"{path!r} is not a regular file")
        await send_range(exchange, fd, 0, found.st_size, is_last=True)
    finally:
        os.close(fd)


async def send_open_file(
    exchange: Exchange, file: Any, offset: int | None, count: int | None, *, is_last: bool
) -> None:
    """ASGI `http.response.zerocopysend`: `count` bytes of an open file from `offset` on, as a piece of the body.

    Without an offset from where the file stands; without a count to its end. Raises ResponseError, OSError.
    """
    fd = file if isinstance(file, int) else file.fileno()
    if offset is None:
        offset = file.tell() if hasattr(file, "tell") else os.lseek(fd, 0, os.SEEK_CUR)
    if count is None:
        count = max(0, os.fstat(fd).st_size - offset)
    await send_range(exchange, fd, offset, count, is_last=is_last)


async def send_range(exchange: Exchange, fd: int, offset: int, count: int, *, is_last: bool) -> None:
    """Send a part of a file as a piece of the body. Raises ResponseError, ClientDisconnectedError."""
    connection = exchange.connection
    if count <= JOIN_BYTES and exchange.stage != NOTHING and not exchange.is_bodiless:
        data = os.pread(fd, count, offset)
        if len(data) != count:
            raise _too_short(len(data), count)
        exchange.send_piece(data, is_last=is_last)
    else:
        end = exchange.begin_file(count, is_last=is_last)
        if not exchange.is_bodiless and (sent := await connection.send_file(fd, offset, count)) != count:
            connection.abort()
            if not connection.is_closed:
                raise _too_short(sent, count)
            exchange.disconnect()  # known here first
            raise ClientDisconnectedError
        exchange.end_file(end, is_last=is_last)
    if connection.is_write_paused:
        await connection.writable()
        if exchange.is_disconnected:
            raise ClientDisconnectedError


def _too_short(found: int, count: int) -> ResponseError:
    return ResponseError(f"the file has {found} bytes left of the {count} that were to be sent")


class Outlet:
    """The way of one file onto one socket, past the transport, whose buffer is empty meanwhile.

    The loop does not let anybody watch a descriptor that a transport has; so it is a duplicate that is watched.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket_fd: int) -> None:
        self._loop = loop
        self._fd = os.dup(socket_fd)
        self._writable: asyncio.Future[None] | None = None

    def close(self) -> None:
        os.close(self._fd)

    def wake(self) -> None:
        """Look again whether there is anybody to send to."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def pour(self, fd: int, offset: int, count: int, on_progress: Callable[[int], bool]) -> int:
        """Send a part of a file: how much there was of it. Raises OSError.

        `on_progress` is told how many bytes went, before each attempt, and says whether to go on.
        """
        sent = taken = 0
        while on_progress(taken) and sent < count:
            try:
                taken = os.sendfile(self._fd, fd, offset + sent, min(count - sent, _MOST_BYTES))
            except BlockingIOError:
                taken = 0
                await self._wait()
                continue
            if taken == 0:
                break  # the file is shorter than it was
            sent += taken
            await asyncio.sleep(0)  # a client as fast as we must not keep the others waiting
        return sent

    async def _wait(self) -> None:
        """Until the socket takes more, or `wake`."""
        self._writable = self._loop.create_future()
        self._loop.add_writer(self._fd, self.wake)
        try:
            await self._writable
        finally:
            self._loop.remove_writer(self._fd)
            self._writable = None


class Taker(Protocol):
    """What a file is copied to."""

    is_closed: bool

    def write(self, data: bytes) -> None: ...

    async def writable(self) -> None: ...


async def copy_file(connection: Taker, fd: int, offset: int, count: int) -> int:
    """Send a part of a file through the transport: how much there was, until the client left."""
    sent = 0
    while sent < count:
        data = os.pread(fd, min(_PIECE_BYTES, count - sent), offset + sent)
        if not data:
            break
        connection.write(data)
        sent += len(data)
        await connection.writable()
        if connection.is_closed:
            break
    return sent
