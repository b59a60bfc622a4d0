"""One request and its answer, as the application sees them: scope, `receive`, `send` (ASGI 3, spec version 2.4).

Rules:

* Each exchange runs in a task and a context of its own; where Python can (3.12+) the task starts eagerly, so that an
  application that waits for nothing has answered before the read event is over.
* An answer that fits one message is one write. What goes out is what was declared: a body longer than its
  `content-length` is not sent, one that is shorter closes the connection.
* A mistake of the application (an exception, a message out of order, an impossible header) is logged with its traceback;
  the client gets 500 if nothing has been sent, a closed connection otherwise.
* `send` raises `ClientDisconnectedError`, an OSError, once the client is gone. That is no mistake, and is not logged.

Not here: bytes that come in (`protocol`), heads (`response`), WebSockets, extensions.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from prefork.errors import DrainedError
from prefork.http.clock import Clock
from prefork.http.response import CONTINUE, HAS_DATE, HAS_NO_BODY, WANTS_CLOSE, Composer, Head, ResponseError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SPEC_VERSION: Final = "2.4"
"""Of the ASGI HTTP protocol: with it came `state`, and the OSError of a `send` to nobody."""

_JOIN_BYTES: Final = 64 * 1024
"""Up to this a head and its body are joined for one write; above it the copy costs more than a second buffer."""

logger: Final = logging.getLogger("prefork.http")


class ClientDisconnectedError(ConnectionError):
    """The client is gone, so nothing can be sent to it any more. Raised by `send`."""


# How far an answer has come, in order. Plain numbers: an enum's attribute costs more than the comparison.
NOTHING: Final = 0
HEAD_GIVEN: Final = 1
HEAD_SENT: Final = 2
COMPLETE: Final = 3


class Engine:
    """What all connections of one worker share."""

    def __init__(
        self, app: ASGIApplication, loop: asyncio.AbstractEventLoop, clock: Clock, state: dict[str, Any]
    ) -> None:
        self.app = app
        self.loop = loop
        self.clock = clock
        self.state = state
        self.composer = Composer()
        self.running: set[Exchange] = set()
        """Exchanges whose application has not returned; some outlive their connections."""
        self.keeps_alive = True
        """False while draining: every head that is sent from then on says `connection: close`."""
        self.on_rest: Callable[[], object] | None = None
        """Called when the last exchange has ended."""

    def ended(self, exchange: Exchange) -> None:
        self.running.discard(exchange)
        if self.on_rest is not None and not self.running:
            self.on_rest()


class Connection(Protocol):
    """What an exchange asks of the connection that it came by."""

    engine: Engine
    is_write_paused: bool

    def write(self, data: bytes) -> None: ...

    async def writable(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""

    def want_body(self) -> None:
        """The application waits for more of the body."""

    def response_done(self) -> None:
        """The current exchange's answer is complete."""

    def abort(self) -> None:
        """Reset: what was sent is not to be taken for a whole answer."""


class Exchange:
    """One request and its answer. Made for each request, so that no later one can be mistaken for it."""

    # No slots, and defaults in the class: of all the values here few requests change more than three.
    _head: Head
    _body_left: int | None = None
    _is_body_taken = False
    _is_chunked = False
    _waiters: list[asyncio.Future[None]] | None = None
    body = b""
    """What the application has not taken yet."""
    body_bytes = 0
    expects_continue = False
    is_body_complete = False
    is_disconnected = False
    is_half_closed = False
    is_http_1_0 = False
    is_waiting_for_body = False
    stage = NOTHING
    task: asyncio.Task[None] | None = None

    def __init__(self, connection: Connection, scope: dict[str, Any], keep_alive: bool) -> None:  # noqa: FBT001
        self.connection = connection
        self.scope = scope
        self.keep_alive = keep_alive

    # -- the application ---------------------------------------------------------------------------

    if sys.version_info >= (3, 12):

        def start(self) -> None:
            """Run the application, up to its first wait."""
            engine = self.connection.engine
            task = asyncio.Task(self._run(), loop=engine.loop, eager_start=True)
            if not task.done():
                self.task = task
                engine.running.add(self)
    else:

        def start(self) -> None:
            """Run the application, from the loop's next turn on."""
            engine = self.connection.engine
            self.task = asyncio.Task(self._run(), loop=engine.loop)
            engine.running.add(self)

    async def _run(self) -> None:
        engine = self.connection.engine
        try:
            await engine.app(self.scope, self.receive, self.send)
            if self.stage != COMPLETE and not self.is_disconnected:
                logger.error("the application returned before its answer was complete: %s", self._describe())
        except ClientDisconnectedError:
            logger.debug("the client left: %s", self._describe())
        except Exception:
            logger.exception("the application raised: %s", self._describe())
        except SystemExit as error:
            if isinstance(error, DrainedError):  # not the application's: this process is told to leave
                raise
            logger.exception("the application called exit(): %s", self._describe())
        finally:
            if self.stage != COMPLETE:
                self._give_up()
            if self.task is not None:
                engine.ended(self)

    def _describe(self) -> str:
        return f"{self.scope['method']} {self.scope['path']!r}"

    def _give_up(self) -> None:
        """The application has ended without a whole answer."""
        if self.is_disconnected:
            return
        if self.stage == HEAD_SENT:
            self.stage = COMPLETE
            self.connection.abort()
            return
        self.keep_alive = False
        text = b"Internal Server Error\n"
        headers = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text)))
        self._head = self.connection.engine.composer.head(500, headers)
        self._send_whole(text)

    # -- what comes in -----------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI: the next piece of the body; after the last one, wait for the client to leave or the answer to end."""
        if not self._is_body_taken:
            if not self.body and not self.is_body_complete and not self._is_over():
                await self._wait_for_body()
            if not self._is_over():
                body, self.body = self.body, b""
                if self.is_body_complete:
                    self._is_body_taken = True
                    return {"type": "http.request", "body": body, "more_body": False}
                self.connection.want_body()
                return {"type": "http.request", "body": body, "more_body": True}
        while not self._is_over():
            await self._wait()
        return {"type": "http.disconnect"}

    def _is_over(self) -> bool:
        return self.is_disconnected or self.is_half_closed or self.stage == COMPLETE

    async def _wait_for_body(self) -> None:
        if self.expects_continue:
            self.expects_continue = False
            if self.stage < HEAD_SENT:
                self.connection.write(CONTINUE)
        self.is_waiting_for_body = True
        self.connection.want_body()
        try:
            while not (self.body or self.is_body_complete or self._is_over()):
                await self._wait()
        finally:
            self.is_waiting_for_body = False

    async def _wait(self) -> None:
        # One future for each who waits: a shared one would be cancelled for all.
        waiter = self.connection.engine.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Something has changed: whoever waits in `receive` looks again."""
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def half_close(self) -> None:
        """The client sends nothing more; most that do this are gone, the rest still read. Hence `receive` says so."""
        self.is_half_closed = True
        self.wake()

    def disconnect(self) -> None:
        """Nobody will read the rest of the answer."""
        self.is_disconnected = True
        self.body = b""
        self.wake()

    # -- what goes out -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI: the head (kept back until the first piece of the body), or a piece of the body."""
        kind = message["type"]
        if kind == "http.response.body":
            if self.stage == HEAD_GIVEN and not message.get("more_body"):
                if self.is_disconnected:
                    raise ClientDisconnectedError
                self._send_whole(message.get("body", b""))
            else:
                await self._send_piece(message.get("body", b""), is_last=not message.get("more_body"))
        elif kind == "http.response.start":
            if self.stage != NOTHING:
                raise ResponseError("http.response.start was sent twice")
            self._head = self.connection.engine.composer.head(message["status"], message.get("headers", ()))
            self.stage = HEAD_GIVEN
        else:
            raise ResponseError(f"{kind!r} is no message that an HTTP answer has")

    def _send_whole(self, body: bytes) -> None:
        """Send an answer that is one message: head, length and body in one write."""
        lines, length, flags = self._head
        connection = self.connection
        clock = connection.engine.clock
        if not clock.is_awake:
            clock.wake()
        size = len(body)
        if flags & HAS_NO_BODY or self.scope["method"] == "HEAD":
            body = b""
        elif length is None:
            lines += b"\r\ncontent-length: %d" % size
        elif length != size:
            raise ResponseError(f"content-length is {length}, and the body has {size} bytes")
        if flags or not self.keep_alive or self.expects_continue or self.is_http_1_0:
            date = b"" if flags & HAS_DATE else clock.date_line
            end = self._close_line(flags) + b"\r\n\r\n"
        else:
            date, end = clock.date_line, b"\r\n\r\n"
        if size <= _JOIN_BYTES:
            connection.write(b"".join((lines, date, end, body)))
        else:
            connection.write(b"".join((lines, date, end)))
            connection.write(bytes(body))
        self.stage = COMPLETE
        if self._waiters is not None:
            self.wake()
        connection.response_done()

    def _close_line(self, flags: int) -> bytes:
        """The connection header that this answer needs, if any; decides whether the connection stays."""
        if flags & WANTS_CLOSE or self.expects_continue:
            # The client may send its body or not, now that it gets no 100: the next byte has no certain meaning.
            self.keep_alive = False
        if not self.keep_alive:
            return b"\r\nconnection: close"
        return b"\r\nconnection: keep-alive" if self.is_http_1_0 else b""

    async def _send_piece(self, body: bytes, *, is_last: bool) -> None:
        if self.stage == NOTHING:
            raise ResponseError("http.response.body was sent before http.response.start")
        if self.stage == COMPLETE:
            raise ResponseError("http.response.body was sent after the end of the body")
        if self.is_disconnected:
            raise ClientDisconnectedError
        head = b"" if self.stage == HEAD_SENT else self._streaming_head()
        piece = self._framed(body, is_last=is_last)
        if head or piece:
            connection = self.connection
            if len(piece) <= _JOIN_BYTES:
                connection.write(head + piece)
            else:
                if head:
                    connection.write(head)
                connection.write(piece)
        self.stage = HEAD_SENT
        if is_last:
            self._completed()
        elif self.connection.is_write_paused:
            await self.connection.writable()
            if self.is_disconnected:
                raise ClientDisconnectedError

    def _streaming_head(self) -> bytes:
        """The head of an answer of several pieces; settles how its end is told."""
        lines, length, flags = self._head
        clock = self.connection.engine.clock
        if not clock.is_awake:
            clock.wake()
        is_bodiless = bool(flags & HAS_NO_BODY) or self.scope["method"] == "HEAD"
        self._is_chunked = length is None and not is_bodiless and not self.is_http_1_0
        self._body_left = length
        if length is None and self.is_http_1_0 and not is_bodiless:
            self.keep_alive = False  # only the close tells where the body ends
        end = b"\r\ntransfer-encoding: chunked" if self._is_chunked else b""
        date = b"" if flags & HAS_DATE else clock.date_line
        return b"".join((lines, date, end, self._close_line(flags), b"\r\n\r\n"))

    def _framed(self, body: bytes, *, is_last: bool) -> bytes:
        """The bytes of a piece on the wire. Raises ResponseError, with nothing sent, if it does not fit."""
        if self._head[2] & HAS_NO_BODY or self.scope["method"] == "HEAD":
            return b""
        if self._is_chunked:
            # An empty chunk is the end: it may only be sent as such.
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk + b"0\r\n\r\n" if is_last else chunk
        if self._body_left is not None:
            self._body_left -= len(body)
            if self._body_left < 0 or (is_last and self._body_left > 0):
                excess, self._body_left = -self._body_left, -1  # whatever else is tried fails, too
                raise ResponseError(f"the body differs from its content-length by {excess} bytes")
        return bytes(body)

    def _completed(self) -> None:
        self.stage = COMPLETE
        if self._waiters is not None:
            self.wake()
        self.connection.response_done()
