"""WSGI with the application in a thread of a pool, so that one that waits holds up nobody else.

Rules:

* Application, iterable and `close` run in one thread, in the request's context. What touches the connection runs on the
  loop's thread, in the order in which it was handed over.
* A whole answer is handed over once. Of a stream one piece is on its way while the application makes the next; the thread
  waits with that until the client has taken enough of the first, or is gone.
* A file is sent by the loop, and its thread is free meanwhile; closed is it in a thread again.
* Nothing that an application raises ends a thread.

Not here: the threads (`wsgi_pool`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from prefork.http.exchange import (
    COMPLETE,
    HEAD_GIVEN,
    HEAD_SENT,
    JOIN_BYTES,
    NOTHING,
    ClientDisconnectedError,
    logger,
)
from prefork.http.files import send_range
from prefork.http.response import ResponseError
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_file import FileWrapper
from prefork.http.wsgi_pieces import check, joined, only


class PooledWSGIExchange(WSGIExchange):
    """A request and its answer, for a WSGI application that runs in a thread of `engine.pool`."""

    is_multithread = True
    _context: Context
    _gate: threading.Lock | None = None
    """Held while a piece is on its way."""
    _has_failed = False
    _is_begun = False
    """The thread has handed a piece over; the loop may not have got to it."""

    # -- on the loop's thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Have the application called in a thread; once the body is there."""
        if self.has_body and not self._is_body_read:
            self._read_body()
            return
        self._context = copy_context()
        engine = self.connection.engine
        engine.running.add(self)
        try:
            engine.pool.submit(self._run)
        except RuntimeError as error:
            self._reject(error)
            self._rest()

    def _take(self, piece: bytes) -> None:
        """Send a piece; then the thread may hand the next one over, once the client has taken enough."""
        gate = self._gate
        assert gate is not None
        try:
            WSGIExchange._send(self, piece)  # noqa: SLF001  (our own, past the override)
        except Exception as error:
            self._reject(error)
        if self.connection.is_write_paused and self.stage != COMPLETE:
            self.task = asyncio.Task(self._open_later(gate), loop=self.connection.engine.loop)
        else:
            gate.release()

    async def _open_later(self, gate: threading.Lock) -> None:
        try:
            await self.connection.writable()
        finally:
            gate.release()

    def _take_last(self, piece: bytes) -> None:
        """Send what is the end of the body."""
        try:
            self.send_piece(piece, is_last=True)
        except Exception as error:
            self._reject(error)

    def _take_whole(self, piece: bytes) -> None:
        self._take_last(piece)
        self._ended()

    def _take_file(self, fd: int, offset: int, count: int) -> None:
        engine = self.connection.engine
        engine.pool.done()
        self.task = asyncio.Task(self._send_extent(fd, offset, count), loop=engine.loop, name="request")

    async def _send_extent(self, fd: int, offset: int, count: int) -> None:
        try:
            await send_range(self, fd, offset, count, is_last=True)
        except Exception as error:
            self._reject(error)
        finally:
            self.connection.engine.pool.submit(self._run_close)

    def _reject(self, error: Exception) -> None:
        """What the application has sent cannot be sent; the thread hears of it when it sends more."""
        self._has_failed = True
        self.log(error)
        self.give_up()

    def _ended(self) -> None:
        """The thread has done with this request."""
        if self.stage != COMPLETE and not self._has_failed:
            try:
                self.finish()
            except Exception as error:
                self._reject(error)
        self.connection.engine.pool.done()
        self._rest()

    def _rest(self) -> None:
        self._forget_body()
        self.connection.engine.ended(self)

    # -- in a thread of the pool -----------------------------------------------------------------------

    def _run(self) -> None:
        self._context.run(self._serve)

    def _run_close(self) -> None:
        # A copy: the thread that handed the file over may not have left the context yet.
        self._context.copy().run(self._close_and_end)

    def _serve(self) -> None:
        if self.stage == COMPLETE:  # timed out while it waited for a thread
            self._hand_over(self._ended)
            return
        try:
            body = self._iterable = self.connection.engine.app(self.scope, self.start_response)
            kind = type(body)
            if kind is list or kind is tuple:
                pieces = joined(body)
                if len(pieces) < 2 and self.stage == HEAD_GIVEN:
                    self._hand_over(self._take_whole, only(pieces))
                    return
            elif kind is FileWrapper and self._hand_file_over(body):
                return
            for piece in body:
                if piece:
                    self._send(piece)
        except BaseException as error:
            self._has_failed = True
            self.log(error)
            self._hand_over(self.give_up)
        self._close_and_end()

    def _close_and_end(self) -> None:
        try:
            self.close_iterable()
        except BaseException as error:
            self.log(error)
        self._hand_over(self._ended)

    def _hand_file_over(self, wrapper: FileWrapper) -> bool:
        """True if the loop does the rest. Raises OSError, ResponseError."""
        extent = self.extent_of(wrapper)
        if extent is None:
            return False
        fd, offset, count = extent
        if count > JOIN_BYTES or self.is_bodiless:
            self._hand_over(self._take_file, *extent)
            return True
        self._hand_over(self._take_last, os.pread(fd, count, offset))
        self._close_and_end()
        return True

    def _send(self, piece: bytes) -> None:
        """Hand a piece over, when its turn has come. Raises ResponseError, ClientDisconnectedError."""
        check(piece)
        if self.stage == NOTHING:
            raise ResponseError("the application has not called start_response")
        gate = self._gate
        if gate is None:
            gate = self._gate = threading.Lock()
        gate.acquire()
        if self.is_disconnected or self._has_failed or self.stage == COMPLETE:
            gate.release()
            if self.stage == COMPLETE and not self._has_failed and not self.is_disconnected:
                raise ResponseError("the body is longer than its content-length")
            raise ClientDisconnectedError
        self._is_begun = True
        if not self._hand_over(self._take, piece):
            gate.release()
            raise ClientDisconnectedError

    @property
    def is_begun(self) -> bool:
        return self._is_begun or self.stage >= HEAD_SENT

    def _hand_over(self, call: Callable[..., object], *arguments: Any) -> bool:
        """Have the loop do something; False if it is closed, since the worker has left without this thread."""
        try:
            self.connection.engine.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            logger.debug("nobody waits for an answer any more: %s", self.describe())
            return False
        return True
