"""WSGI (PEP 3333): one request and its answer, with the application on the loop's own thread.

Rules:

* The application is called once the whole body is there (`wsgi_input`), in a context of its own, and as if no loop ran:
  Django refuses its database, and `asyncio.run` itself, where one does.
* An answer whose length is known is one write, as early as its last byte is there. Of any other each piece goes out before
  the next is asked for; between two pieces the loop serves the others, for as long as the client takes to read.
* An iterable is closed exactly once, whatever happens.
* A mistake of the application (an exception, `start_response` twice, a wrong length) is logged with its traceback.

A slow application holds up all connections of its worker: that is what `wsgi_threads` is for.

Not here: environ (`wsgi_environ`), heads (`wsgi_head`), what goes over the wire (`exchange`). `write`, with which an
application sends before it returns, cannot wait here: what it is given is kept until the client takes it.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from asyncio.events import _set_running_loop as set_running_loop
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

from prefork.errors import DrainedError
from prefork.http.connection import Connection
from prefork.http.exchange import (
    COMPLETE,
    HEAD_GIVEN,
    HEAD_SENT,
    JOIN_BYTES,
    NOTHING,
    ClientDisconnectedError,
    Exchange,
    LogFields,
    logger,
)
from prefork.http.files import send_range
from prefork.http.forwarded import Origin
from prefork.http.request import Target
from prefork.http.response import ResponseError
from prefork.http.wsgi_environ import aim, beginning, environ_of, log_fields, own_of, set_origin
from prefork.http.wsgi_file import FileWrapper
from prefork.http.wsgi_head import compose, remembered
from prefork.http.wsgi_input import MEMORY_BYTES, BodyBuffer
from prefork.http.wsgi_pieces import check, joined, only

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
Write = Callable[[bytes], object]
WSGIApplication = Callable[[Environ, Callable[..., Write]], Iterable[bytes]]


class WSGIExchange(Exchange):
    """A request and its answer, for a WSGI application that runs on the loop's thread."""

    is_multithread = False
    """PEP 3333's `wsgi.multithread`."""
    _buffer: BodyBuffer | None = None
    _is_body_read = False
    _iterable: Any = None
    """What the application has returned, until it is closed."""
    _pieces: Iterator[bytes]

    scope_of = staticmethod(environ_of)

    @staticmethod
    def renewed(scope: Environ, connection: Connection) -> Environ:
        return scope | connection.own  # a copy

    @staticmethod
    def retargeted(scope: Environ, connection: Connection, method: str, target: Target) -> Environ:
        environ = scope | connection.own
        aim(environ, method, target)
        return environ

    own = staticmethod(own_of)

    @classmethod
    def template(
        cls,
        *,
        scheme: str,
        server: tuple[str, int | None] | None,
        root_path: str,
        tls: ssl.SSLObject | None,
    ) -> Environ:
        return beginning(
            scheme=scheme,
            server=server,
            root_path=root_path,
            tls=tls,
            is_multithread=cls.is_multithread,
        )

    # -- the connection calls ----------------------------------------------------------------------

    def start(self) -> None:
        """Call the application, and send what it returns; once the body is there."""
        if self.has_body and not self._is_body_read:
            self._read_body()
            return
        connection = self.connection
        engine = connection.engine
        context = copy_context()
        set_running_loop(None)
        try:
            body = context.run(engine.app, self.scope, self.start_response)
        except BaseException as error:
            set_running_loop(engine.loop)
            self.failed(error)
            return
        set_running_loop(engine.loop)
        if self.stage == HEAD_GIVEN and self.is_ordinary and type(body) is list and len(body) == 1:
            # What nearly every answer is, in as few steps as there can be; `send_piece` does the same for all.
            piece = body[0]
            lines, length, flags = self._head
            if type(piece) is bytes and not flags and length == len(piece) <= JOIN_BYTES:
                clock = engine.clock
                if not clock.is_awake:
                    clock.wake()
                self.stage = COMPLETE
                self.sent_bytes = length
                connection.answer(b"".join((lines, clock.date_line, b"\r\n\r\n", piece)))
                if self.has_body:
                    self._forget_body()
                return
        self._iterable = body
        self._answer(context)

    def wake(self) -> None:
        if self.is_waiting_for_body:
            self._take_body()

    def disconnect(self) -> None:
        if self.is_waiting_for_body:
            self.is_waiting_for_body = False
            self._forget_body()
        Exchange.disconnect(self)

    def be_http_1_0(self) -> None:
        Exchange.be_http_1_0(self)
        self.scope["SERVER_PROTOCOL"] = "HTTP/1.0"

    def set_origin(self, origin: Origin) -> None:
        set_origin(self.scope, origin)

    def describe(self) -> str:
        return f"{self.scope.get('REQUEST_METHOD')} {self.scope.get('PATH_INFO')!r}"

    def log_fields(self) -> LogFields:
        return log_fields(self.scope)

    # -- what comes in -----------------------------------------------------------------------------

    def _read_body(self) -> None:
        """Start again when all of the body is there."""
        if self.is_body_complete and len(self.body) <= MEMORY_BYTES:
            self.expects_continue = False  # the client has not waited for it
            body, self.body = self.body, b""
            self._begin(io.BytesIO(body))
        else:
            self.send_continue()
            self._buffer = BodyBuffer()
            self.is_waiting_for_body = True
            self._take_body()

    def _take_body(self) -> None:
        buffer = self._buffer
        assert buffer is not None
        body, self.body = self.body, b""
        try:
            buffer.add(body, self.body_bytes)
            file = buffer.finished() if self.is_body_complete else None
        except OSError as error:
            logger.error(
                "a request's body could not be kept, and is answered with 507: %s: %s", self.describe(), error
            )
            self._refuse_body()
            return
        if file is None:
            self.connection.want_body()
        else:
            self.is_waiting_for_body = False
            self._begin(file)

    def _begin(self, file: Any) -> None:
        environ = self.scope
        environ["wsgi.input"] = file
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:  # decoded (RFC 9112 §7.1.3)
            environ["CONTENT_LENGTH"] = str(self.body_bytes)
        self._is_body_read = True
        self.start()

    def _refuse_body(self) -> None:
        self.is_waiting_for_body = False
        self._forget_body()
        self.be_last()
        text = b"Insufficient Storage\n"
        headers = ((b"content-type", b"text/plain; charset=utf-8"),)
        self._head = self.connection.engine.composer.head(507, headers)
        self.send_whole(text)

    def _forget_body(self) -> None:
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    # -- the application calls -----------------------------------------------------------------------

    def start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None = None) -> Write:
        """PEP 3333: the head, kept back until the first piece of the body. Raises ResponseError, or what `exc_info` is."""
        if self.stage != NOTHING or exc_info:
            self._start_again(exc_info)
        headers = tuple(headers)
        composer = self.connection.engine.composer
        try:
            self._head = remembered(composer, status, headers)
        except TypeError:  # pairs that are lists
            self._head = compose(composer, status, headers)
        self.stage = HEAD_GIVEN
        return self.write

    def _start_again(self, exc_info: ExcInfo | None) -> None:
        """Another head may replace one that was not sent. Raises ResponseError, or what `exc_info` is."""
        if exc_info:
            try:
                if self.is_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a circle, through the traceback (PEP 3333, "Error Handling")
        elif self.is_disconnected:  # timed out, too
            raise ClientDisconnectedError
        elif self.stage != NOTHING:
            raise ResponseError("start_response was called twice, the second time without exc_info")

    @property
    def is_begun(self) -> bool:
        """The head is gone, and cannot be replaced."""
        return self.stage >= HEAD_SENT

    def write(self, data: bytes) -> None:
        """PEP 3333: send a piece before the application returns. Raises ResponseError, ClientDisconnectedError."""
        check(data)
        if data:
            self._send(data)

    # -- what goes out -----------------------------------------------------------------------------

    def _answer(self, context: Context) -> None:
        """Send what the application has returned, whatever it is."""
        body = self._iterable
        try:
            if type(body) is FileWrapper and self._send_file(body, context):
                return
            if type(body) is list or type(body) is tuple:
                body = joined(body)
                if len(body) < 2 and self.stage != NOTHING:
                    self.send_piece(only(body), is_last=True)
                    self._end()
                    return
            context.run(self._iterate, body)
            if context.run(self._advance):
                if self.stage != COMPLETE:
                    self._go_on(self._send_rest(), context)
                    return
                while context.run(self._advance):  # raises if there is more
                    pass
            self.finish()
        except BaseException as error:
            self.failed(error, context)
        else:
            self._end(context)

    def _iterate(self, body: Iterable[bytes]) -> None:
        """Ask for the pieces, as if no loop ran: an iterable may do all of its work here. Raises whatever it raises."""
        set_running_loop(None)
        try:
            self._pieces = iter(body)
        finally:
            set_running_loop(self.connection.engine.loop)

    def _advance(self) -> bool:
        """Send the next piece that is not empty; False if there is none. Raises whatever the application raises."""
        set_running_loop(None)
        try:
            for piece in self._pieces:
                if piece:
                    self._send(piece)
                    return True
            return False
        finally:
            set_running_loop(self.connection.engine.loop)

    def _send(self, piece: bytes) -> None:
        check(piece)
        is_last = self.stage == HEAD_GIVEN and self._head[1] == len(piece)
        self.send_piece(piece, is_last=is_last)

    def finish(self) -> None:
        """The body is at its end. Raises ResponseError."""
        if self.stage != COMPLETE:
            if self.stage == NOTHING:
                raise ResponseError("the application has not called start_response")
            self.send_piece(b"", is_last=True)

    async def _send_rest(self) -> None:
        """Go on where `_answer` has stopped: at the pace of the client, and of the others."""
        connection = self.connection
        is_more = True
        while is_more:
            # A turn of the loop sends what was written, which a transport may have put off until then.
            await (connection.writable() if connection.is_write_paused else asyncio.sleep(0))
            if self.is_disconnected:
                raise ClientDisconnectedError
            is_more = self._advance()
        self.finish()

    def _send_file(self, wrapper: FileWrapper, context: Context) -> bool:
        """Send a file as it is; False if it is none. Raises OSError, ResponseError, ClientDisconnectedError."""
        extent = self.extent_of(wrapper)
        if extent is None:
            return False
        fd, offset, count = extent
        if count > JOIN_BYTES or self.is_bodiless:
            self._go_on(send_range(self, fd, offset, count, is_last=True), context)
            return True
        self.send_piece(os.pread(fd, count, offset), is_last=True)
        self._end(context)
        return True

    def extent_of(self, wrapper: FileWrapper) -> tuple[int, int, int] | None:
        """Descriptor, offset and count of what is to be sent of a file. Raises OSError, ResponseError."""
        if self.stage == NOTHING:
            raise ResponseError("the application has not called start_response")
        extent = wrapper.extent()
        length = self._head[1]
        if extent is None or length is None:
            return extent
        fd, offset, count = extent
        return fd, offset, min(count, length - self.sent_bytes)

    def _go_on(self, rest: Coroutine[Any, Any, None], context: Context) -> None:
        engine = self.connection.engine
        self.task = asyncio.Task(self._see_to(rest), loop=engine.loop, name="request", context=context)
        engine.running.add(self)

    async def _see_to(self, rest: Coroutine[Any, Any, None]) -> None:
        try:
            await rest
        except BaseException as error:
            self.failed(error)
        else:
            self._end()

    # -- how it ends -------------------------------------------------------------------------------

    def failed(self, error: BaseException, context: Context | None = None) -> None:
        """The application, or its answer, has come to nothing. Raises what is not the application's."""
        self.log(error)
        self._end(context)
        if not isinstance(error, Exception) and (
            not isinstance(error, SystemExit) or isinstance(error, DrainedError)
        ):
            raise error

    def log(self, error: BaseException) -> None:
        """Tell what the application did. Any thread."""
        if isinstance(error, ClientDisconnectedError):
            logger.debug("the client left: %s", self.describe())
        elif isinstance(error, SystemExit):
            if not isinstance(error, DrainedError):
                logger.error("the application called exit(): %s", self.describe(), exc_info=error)
        else:
            logger.error("the application raised: %s", self.describe(), exc_info=error)

    def _end(self, context: Context | None = None) -> None:
        """Nothing more comes of the application. `context` is its own, unless this runs in it."""
        if self.stage != COMPLETE:
            self.give_up()
        if self._iterable is not None:
            set_running_loop(None)
            try:
                if context is None:
                    self.close_iterable()
                else:
                    context.run(self.close_iterable)
            finally:
                set_running_loop(self.connection.engine.loop)
        self._forget_body()
        if self.task is not None:
            self.connection.engine.ended(self)

    def close_iterable(self) -> None:
        """PEP 3333: `close`, once. Any thread; in the application's context."""
        iterable, self._iterable = self._iterable, None
        close = getattr(iterable, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                logger.exception("the application raised while its answer was closed: %s", self.describe())
            except SystemExit:
                logger.exception("the application called exit(): %s", self.describe())
