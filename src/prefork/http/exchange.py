"""One request and its answer: what an exchange is to its connection, and how its answer gets onto the wire.

Rules:

* An answer that fits one message is one write. What goes out is what was declared: a body longer than its
  `content-length` is not sent, one that is shorter closes the connection.
* `stage` is ahead of the bytes: whoever interrupts us (`parting`) never takes an answer for one that has not begun.
* Nothing here waits. Whoever sends pieces looks at `connection.is_write_paused` after each.
* An application that has ended without a whole answer: the client gets 500 if nothing was sent, a closed connection
  otherwise (`give_up`).

What an application sees of it is its interface's: `asgi`, `wsgi`. Not here: bytes that come in (`protocol`), heads
(`response`), files (`files`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from prefork.http.connection import Connection
from prefork.http.request import Target
from prefork.http.response import (
    CONTINUE,
    HAS_DATE,
    HAS_NO_BODY,
    STATUS_LINES,
    WANTS_CLOSE,
    Head,
    ResponseError,
    early_hint,
)
from prefork.http.standing import stack_of

if TYPE_CHECKING:
    import asyncio
    import ssl
    from types import FrameType

    from prefork.http.forwarded import Client, Origin

JOIN_BYTES: Final = 64 * 1024
"""Up to this a head and its body are joined for one write; above it the copy costs more than a second buffer."""

LARGE_BYTES: Final = 16 * 1024
"""From this on a piece of a body is written at once and uncopied; smaller ones may wait for each other, to be one write."""

logger: Final = logging.getLogger("prefork.http")

_GIVEN_UP: Final = {500: b"Internal Server Error\n", 504: b"Gateway Timeout\n"}

# How far an answer has come, in order. Plain numbers: an enum's attribute costs more than the comparison.
NOTHING: Final = 0
HEAD_GIVEN: Final = 1
HEAD_SENT: Final = 2
COMPLETE: Final = 3


LogFields = tuple[str, bytes, list[tuple[bytes, bytes]], str | None, str]
"""method, target, headers, client's host, scheme."""


class ClientDisconnectedError(ConnectionError):
    """The client is gone, so nothing can be sent to it any more."""


class Exchange:
    """One request and its answer. Made for each request, so that no later one can be mistaken for it."""

    # What every request reads is set when it is made, what few change has its default in the class: a default that
    # instances sometimes hide is what CPython looks up the slow way, 40 ns each time. No slots: a class with them is made
    # the slow way.
    _head: Head
    _body_left: int | None = None
    _is_chunked = False
    _has_trailers = False
    _is_body_over = False
    _trailers = b""
    body = b""
    """What the application has not taken yet."""
    body_bytes = 0
    """What has come of the body."""
    connection: Connection
    expects_continue = False
    has_body: bool
    """The request has announced a body that is not empty."""
    is_body_complete: bool
    is_disconnected: bool
    is_half_closed = False
    is_head_only = False
    """The request is a HEAD: its answer has no body."""
    is_http_1_0 = False
    is_ordinary: bool
    """Nothing is special about request and answer: no HEAD, no close, no 100-continue, no trailers, nobody gone, nobody waiting."""
    is_waiting_for_body = False
    keep_alive: bool
    pristine: tuple[dict[str, Any], list[tuple[bytes, bytes]]] | None = None
    """Of a request with headers about forwarding: its scope as if it had none, and its headers."""
    scope: dict[str, Any]
    """What the application is told of the request: a scope, or an environ."""
    sent_bytes: int
    """Of the answer's body, without its framing."""
    stage: int
    """How far the answer has come."""
    task: asyncio.Task[None] | None
    """Runs the application, or sends what it has left to send; None for one that never waits."""
    wants_websocket = False
    """It is a handshake of RFC 6455, as far as the parser can tell."""

    def __init__(self, connection: Connection, scope: dict[str, Any], keep_alive: bool) -> None:  # noqa: FBT001  (called for each request: a keyword costs)
        self.connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.stage = NOTHING
        self.is_ordinary = True
        self.has_body = self.is_body_complete = self.is_disconnected = False
        self.task = None
        self.sent_bytes = 0

    @classmethod
    def template(
        cls,
        *,
        scheme: str,
        server: tuple[str, int | None] | None,
        root_path: str,
        tls: ssl.SSLObject | None,
    ) -> dict[str, Any]:
        """What the scopes of all connections begin with that came the same way."""
        raise NotImplementedError

    @staticmethod
    def own(client: Client) -> dict[str, Any]:
        """What is a connection's own in them."""
        raise NotImplementedError

    @staticmethod
    def scope_of(
        connection: Connection, method: str, target: Target, headers: list[tuple[bytes, bytes]]
    ) -> dict[str, Any]:
        """What the application is told of a request."""
        raise NotImplementedError

    @staticmethod
    def renewed(scope: dict[str, Any], connection: Connection) -> dict[str, Any]:
        """A scope like `scope`, which no application has had; nothing that one may change is shared."""
        raise NotImplementedError

    @staticmethod
    def retargeted(
        scope: dict[str, Any], connection: Connection, method: str, target: Target
    ) -> dict[str, Any]:
        """As `renewed`, of a request that differs in method and target."""
        raise NotImplementedError

    # -- the connection calls: what each interface does its own way ----------------------------------

    def start(self) -> None:
        """Run the application."""
        raise NotImplementedError

    def wake(self) -> None:
        """Something has changed: whoever waits for the client looks again."""
        raise NotImplementedError

    def be_http_1_0(self) -> None:
        """The client speaks HTTP/1.0."""
        self.is_http_1_0 = True
        self.is_ordinary = False

    def be_last(self) -> None:
        """The answer says `connection: close`, unless its head is gone."""
        if self.stage < HEAD_SENT:
            self.keep_alive = False
            self.is_ordinary = False

    def set_origin(self, origin: Origin) -> None:
        """The request was forwarded, by a proxy that is trusted."""
        raise NotImplementedError

    def describe(self) -> str:
        """The request in a few words, for the log."""
        raise NotImplementedError

    def log_fields(self) -> LogFields:
        """What the access log says of the request."""
        raise NotImplementedError

    @property
    def status(self) -> int:
        """The status of the answer, once there is one."""
        return int(self._head[0][len(b"HTTP/1.1 ") : len(b"HTTP/1.1 200")])

    def half_close(self) -> None:
        """The client sends nothing more; most that do this are gone, the rest still read. So waiting readers hear of it."""
        self.is_half_closed = True
        self.is_ordinary = False
        self.wake()

    def disconnect(self) -> None:
        """Nobody will read the rest of the answer."""
        self.is_disconnected = True
        self.is_ordinary = False
        self.body = b""
        self.wake()

    # -- what goes out -----------------------------------------------------------------------------

    def send_continue(self) -> None:
        """The application wants the body: ask the client for it, if it waits to be asked (RFC 9110 §10.1.1)."""
        if self.expects_continue:
            self.expects_continue = False
            if self.stage < HEAD_SENT:
                self.connection.write(CONTINUE)

    def send_early_hint(self, links: Any) -> None:
        """103 with `link` headers (RFC 8297). HTTP/1.0 has no interim answers: nothing is sent.

        Raises ResponseError, ClientDisconnectedError.
        """
        if self.stage >= HEAD_SENT:
            raise ResponseError("an early hint was sent after the head of the answer")
        if self.is_disconnected:
            raise ClientDisconnectedError
        hint = early_hint(links)
        if not self.is_http_1_0:
            self.connection.write(hint)

    def send_whole(self, body: bytes) -> None:
        """Send an answer that is one piece: head, length and body in one write. Raises ResponseError."""
        if type(body) is not bytes:
            body = bytes(body)  # raises for a str; and a memoryview may count something else than bytes
        lines, length, flags = self._head
        connection = self.connection
        clock = connection.engine.clock
        if not clock.is_awake:
            clock.wake()
        size = len(body)
        if length is not None:
            if length != size and not (flags & HAS_NO_BODY or self.is_head_only):
                raise ResponseError(f"content-length is {length}, and the body has {size} bytes")
        elif not (flags & HAS_NO_BODY or self.is_head_only):
            lines += b"\r\ncontent-length: %d" % size
        if flags or self.is_head_only or not self.keep_alive or self.expects_continue or self.is_http_1_0:
            if flags & HAS_NO_BODY or self.is_head_only:
                body = b""
                size = 0
            date = b"" if flags & HAS_DATE else clock.date_line
            end = self._close_line(flags) + b"\r\n\r\n"
        else:
            date, end = clock.date_line, b"\r\n\r\n"
        self.stage = COMPLETE  # before the first byte is out
        if size <= JOIN_BYTES:
            connection.write(b"".join((lines, date, end, body)))
        else:
            connection.write_large(b"".join((lines, date, end)), body, b"")
        self.sent_bytes = size
        self.completed()

    def completed(self) -> None:
        """The last byte of the answer was given to the connection."""
        self.stage = COMPLETE
        self.connection.response_done()

    def _close_line(self, flags: int) -> bytes:
        """The connection header that this answer needs, if any; decides whether the connection stays."""
        if flags & WANTS_CLOSE or self.expects_continue:
            # The client may send its body or not, now that it gets no 100: the next byte has no certain meaning. Nor is
            # it taken for certain where something has come already: proxies differ in what they make of expectations.
            self.keep_alive = False
        if not self.keep_alive:
            return b"\r\nconnection: close"
        return b"\r\nconnection: keep-alive" if self.is_http_1_0 else b""

    def send_piece(self, body: bytes, *, is_last: bool) -> None:
        """Send a piece of the body, the head before it if it is the first. Raises ResponseError, ClientDisconnectedError."""
        if self.stage == NOTHING:
            raise ResponseError("the body was sent before the head")
        if self.stage == COMPLETE or self._is_body_over:
            raise ResponseError("the body was sent after its end")
        if self.is_disconnected:
            raise ClientDisconnectedError
        if is_last and self.stage == HEAD_GIVEN and not self._has_trailers:
            self.send_whole(body)
            return
        if type(body) is not bytes:
            body = bytes(body)
        head = b"" if self.stage == HEAD_SENT else self.streaming_head()
        if self.is_bodiless:
            body, before, after = b"", b"", b""
        else:
            before, after = self._frame(len(body), is_last=is_last)
        self.stage = HEAD_SENT
        if len(body) >= LARGE_BYTES:
            self.connection.write_large(head + before, body, after)
        elif data := b"".join((head, before, body, after)):
            self.connection.write(data)
        if is_last:
            self._end_body()

    def _end_body(self) -> None:
        if self._has_trailers:
            self._is_body_over = True
        else:
            self.completed()

    @property
    def is_bodiless(self) -> bool:
        """The answer has no body, whatever the application sends (RFC 9110 §6.4.1)."""
        return self.is_head_only or bool(self._head[2] & HAS_NO_BODY)

    def begin_file(self, count: int, *, is_last: bool) -> bytes:
        """Send all that stands before `count` bytes of a file: what stands behind them. Raises as `send_piece` does."""
        if self.stage not in (HEAD_GIVEN, HEAD_SENT) or self._is_body_over:
            raise ResponseError("a file was sent before the head, or after the end of the body")
        if self.is_disconnected:
            raise ClientDisconnectedError
        lines, length, flags = self._head
        has_length = length is not None or lines.startswith(STATUS_LINES[204])  # which must not have one
        if self.stage == HEAD_GIVEN and is_last and not has_length and not self._has_trailers:
            self._head = (lines + b"\r\ncontent-length: %d" % count, count, flags)
        head = b"" if self.stage == HEAD_SENT else self.streaming_head()
        end = b""
        if self._is_chunked:
            head += b"%x\r\n" % count
            end = b"\r\n0\r\n\r\n" if is_last and not self._has_trailers else b"\r\n"
        elif not self.is_bodiless:
            self._count(count, is_last=is_last)
        self.stage = HEAD_SENT
        self.connection.write(head)
        return end

    def end_file(self, end: bytes, *, is_last: bool) -> None:
        """The file's bytes are gone: go on."""
        if end:
            self.connection.write(end)
        if is_last:
            self._end_body()

    def streaming_head(self) -> bytes:
        """The head of an answer of several pieces; settles how its end is told."""
        lines, length, flags = self._head
        clock = self.connection.engine.clock
        if not clock.is_awake:
            clock.wake()
        is_bodiless = self.is_bodiless
        self._is_chunked = length is None and not is_bodiless and not self.is_http_1_0
        self._body_left = length
        if length is None and self.is_http_1_0 and not is_bodiless:
            self.keep_alive = False  # only the close tells where the body ends
        end = b"\r\ntransfer-encoding: chunked" if self._is_chunked else b""
        date = b"" if flags & HAS_DATE else clock.date_line
        return b"".join((lines, date, end, self._close_line(flags), b"\r\n\r\n"))

    def _frame(self, size: int, *, is_last: bool) -> tuple[bytes, bytes]:
        """What stands before and behind a piece on the wire. Raises ResponseError, with nothing sent, if it does not fit."""
        self.sent_bytes += size
        if not self._is_chunked:
            self._count(size, is_last=is_last)
            return b"", b""
        end = b"0\r\n\r\n" if is_last and not self._has_trailers else b""
        if not size:  # an empty chunk is the end: it may only be sent as such
            return b"", end
        return b"%x\r\n" % size, b"\r\n" + end

    def _count(self, size: int, *, is_last: bool) -> None:
        """Hold a body against its content-length. Raises ResponseError."""
        if self._body_left is not None:
            self._body_left -= size
            if self._body_left < 0 or (is_last and self._body_left > 0):
                excess, self._body_left = -self._body_left, -1  # whatever else is tried fails, too
                raise ResponseError(f"the body differs from its content-length by {excess} bytes")

    def add_trailers(self, section: bytes, *, is_sent: bool) -> None:
        """Keep the lines of a trailer section for the end of the answer; those that nobody takes are dropped."""
        if is_sent and self._is_chunked:
            self._trailers += section

    def end_trailers(self) -> None:
        """The answer is complete. Raises ResponseError, ClientDisconnectedError."""
        if self.stage != HEAD_SENT or not self._is_body_over:
            raise ResponseError("the trailers were sent before the end of the body, or twice")
        if self.is_disconnected:
            raise ClientDisconnectedError
        if self._is_chunked:
            self.connection.write(b"0\r\n" + self._trailers + b"\r\n")
        self.completed()

    def time_out(self, age_s: float, frame: FrameType | None) -> None:
        """The application has taken too long: 504 if the head is not gone, a reset otherwise; what can be ended is.

        `frame`: where the thread stands that it runs in; None where it runs in a task.
        """
        logger.error(
            "timed out after %.0f s: %s; it stands at:\n%s",
            age_s,
            self.describe(),
            stack_of(self.task, frame),
        )
        self.give_up(504)
        self.disconnect()
        if self.task is not None:
            self.task.cancel()

    def give_up(self, status: int = 500) -> None:
        """The application has ended without a whole answer, or is given up."""
        if self.is_disconnected or self.stage == COMPLETE:
            return
        if self.stage == HEAD_SENT:
            self.stage = COMPLETE
            self.connection.abort()
            return
        self.keep_alive = False
        text = _GIVEN_UP[status]
        headers = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text)))
        self._head = self.connection.engine.composer.head(status, headers)
        self.send_whole(text)
