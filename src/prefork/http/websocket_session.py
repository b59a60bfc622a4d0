"""One WebSocket as its application sees it: `receive`, `send`, and the task that it runs in (ASGI, `websocket`).

Rules:

* The application's task ends the WebSocket: returned is 1000, raised is 1011; before it has accepted, 500.
* `receive` gives what was read before it tells of the end, and tells of it as often as it is asked.
* `send` raises ClientDisconnectedError, an OSError, once the WebSocket is not open any more, whoever has closed it.
* A mistake of the application (an exception, a message out of order, an impossible header) is logged with its traceback.

Not here: bytes, deadlines, the closing handshake (`websocket`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, cast

from prefork.errors import DrainedError
from prefork.http.exchange import HEAD_GIVEN, NOTHING, ClientDisconnectedError, Exchange, logger
from prefork.http.response import ResponseError
from prefork.http.websocket_control import INTERNAL_ERROR, NORMAL
from prefork.http.websocket_deflate import LEAST_BYTES, Deflater
from prefork.http.websocket_frames import COMPRESSED, WHOLE_BINARY, WHOLE_TEXT, frame_head

if TYPE_CHECKING:
    from prefork.http.websocket import WebSocketProtocol

Message = MutableMapping[str, Any]

# The order of a connection's life, each step only forward. Plain numbers: an enum's attribute costs more than the comparison.
CONNECTING: Final = 0
"""The application may accept or refuse; what the client sends is kept, up to a bound."""
DENYING: Final = 1
"""It sends an HTTP answer of its own (extension `websocket.http.response`)."""
OPEN: Final = 2
CLOSING: Final = 3
"""Our close frame is sent; messages are dropped until the client's comes, for a bounded time."""
FINISHING: Final = 4
"""All is said; what comes is dropped until the transport has closed."""
CLOSED: Final = 5
"""Nobody is there."""

_JOIN_BYTES: Final = 64 * 1024
"""Up to this a frame's head and payload are joined for one write."""

_REFUSAL: Final = "websocket.http.response."


class _Denial(Exchange):
    """The HTTP answer that an application gives in place of accepting."""

    def __init__(self, connection: WebSocketProtocol) -> None:
        # Of the connection it asks engine, write, response_done and abort.
        super().__init__(cast(Any, connection), {}, keep_alive=False)

    def wake(self) -> None:
        """Nobody waits here: `receive` is the session's."""

    def completed(self) -> None:
        self.connection.engine.tally.statuses[self._head[0][9] & 7] += 1  # as in `protocol`
        Exchange.completed(self)

    def take(self, kind: str, message: Message) -> None:
        """Its head, or a piece of its body. Raises ResponseError, ClientDisconnectedError."""
        if kind == _REFUSAL + "body":
            self.send_piece(message.get("body", b""), is_last=not message.get("more_body"))
        elif kind == _REFUSAL + "start" and self.stage == NOTHING:
            composer = self.connection.engine.composer
            self._head = composer.head(message["status"], message.get("headers", ()))
            self.stage = HEAD_GIVEN
        else:
            raise ResponseError(f"{kind!r} cannot follow the start of a refusal")


class Session:
    """The application's side of one WebSocket. `scope` is its ASGI scope."""

    __slots__ = (
        "_connection",
        "_denial",
        "_disconnect",
        "_scope",
        "_task",
        "deflater",
        "messages",
        "waiters",
    )

    def __init__(self, connection: WebSocketProtocol, scope: dict[str, Any]) -> None:
        self.deflater: Deflater | None = None
        self.messages: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        """What the application has not taken yet."""
        self.waiters: list[asyncio.Future[None]] | None = None
        """Those who wait in `receive`."""
        self._connection = connection
        self._denial: _Denial | None = None
        self._disconnect: dict[str, Any] | None = None
        self._scope = scope
        self._task: asyncio.Task[None] | None = None

    # -- the connection calls ----------------------------------------------------------------------

    def start(self) -> None:
        """Run the application; where Python can (3.12+) at once, up to its first wait."""
        engine = self._connection.engine
        if sys.version_info >= (3, 12):
            task = asyncio.Task(self._run(), loop=engine.loop, eager_start=True, name="websocket")
        else:
            task = asyncio.Task(self._run(), loop=engine.loop, name="websocket")
        if not task.done():
            self._task = task
            engine.running.add(self)

    def wake(self) -> None:
        """Something has come: whoever waits in `receive` looks again."""
        if self.waiters is not None:
            waiters, self.waiters = self.waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def end(self, code: int, reason: str) -> None:
        """The WebSocket is over; the application hears the first reason that there was."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.wake()

    def disconnect(self, code: int) -> None:
        """Nobody is there any more."""
        if self._denial is not None:
            self._denial.disconnect()
        self.end(code, "")

    # -- the application ---------------------------------------------------------------------------

    async def _run(self) -> None:
        engine = self._connection.engine
        code = INTERNAL_ERROR
        try:
            await engine.app(self._scope, self.receive, self.send)
            code = NORMAL
            if self._connection.state < OPEN:
                logger.error("the application returned and has not answered: %s", self.describe())
        except ClientDisconnectedError:
            logger.debug("the client left: %s", self.describe())
        except Exception:
            logger.exception("the application raised: %s", self.describe())
        except SystemExit as error:
            if isinstance(error, DrainedError):  # not the application's: this process is told to leave
                raise
            logger.exception("the application called exit(): %s", self.describe())
        finally:
            self._give_up(code)
            if self._task is not None:
                engine.ended(self)

    def _give_up(self, code: int) -> None:
        """The application has ended."""
        connection = self._connection
        if connection.state == CONNECTING:
            connection.refuse(500)
        elif connection.state == DENYING and self._denial is not None:
            self._denial.give_up()
        elif connection.state == OPEN:
            connection.close(code, "")
        self.messages.clear()

    def describe(self) -> str:
        """The request in a few words, for the log."""
        return f"WebSocket {self._scope['path']!r}"

    # -- ASGI --------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Connect, then messages as they come, then disconnect."""
        messages = self.messages
        while not messages:
            if self._disconnect is not None:
                return self._disconnect.copy()
            # One future for each who waits: a shared one would be cancelled for all.
            waiter = self._connection.engine.loop.create_future()
            if self.waiters is None:
                self.waiters = [waiter]
            else:
                self.waiters.append(waiter)
            await waiter
        message = messages.pop(0)
        if not messages and self._connection.is_read_paused:
            self._connection.read_on()
        return message

    async def send(self, message: Message) -> None:
        """Accept, messages, close; or a refusal. Raises ResponseError, ClientDisconnectedError."""
        connection = self._connection
        kind = message["type"]
        if connection.state != OPEN:
            self._answer(kind, message)
        elif kind == "websocket.send":
            self._send(message)
        elif kind == "websocket.close":
            code, reason = message.get("code"), message.get("reason")
            try:
                connection.close(NORMAL if code is None else code, reason or "")
            except (ValueError, TypeError, AttributeError) as error:
                raise ResponseError(f"websocket.close: {error}") from error
        else:
            raise ResponseError(f"{kind!r} is no message that an open WebSocket has")
        if connection.is_write_paused:
            await connection.writable()
            if connection.state == CLOSED:
                raise ClientDisconnectedError

    def _send(self, message: Message) -> None:
        text, payload = message.get("text"), message.get("bytes")
        if text is not None and payload is None:
            payload = text.encode()
            first = WHOLE_TEXT
        elif payload is not None and text is None:
            if type(payload) is not bytes:
                payload = bytes(payload)  # the application may change its buffer while we hold it
            first = WHOLE_BINARY
        else:
            raise ResponseError("websocket.send needs either text or bytes")
        size = len(payload)
        if size >= LEAST_BYTES and self.deflater is not None:
            payload = self.deflater.deflate(payload)
            size = len(payload)
            first |= COMPRESSED
        if size <= _JOIN_BYTES:
            self._connection.write(frame_head(first, size) + payload)
        else:
            self._connection.write(frame_head(first, size))
            self._connection.write(payload)

    def _answer(self, kind: str, message: Message) -> None:
        """The application accepts, or does not."""
        connection = self._connection
        if connection.state > OPEN:
            raise ClientDisconnectedError
        if self._denial is not None:
            self._denial.take(kind, message)
        elif kind == "websocket.accept":
            connection.accept(message)
        elif kind == "websocket.close":
            connection.refuse(403)
        elif kind.startswith(_REFUSAL):
            denial = _Denial(connection)
            denial.take(kind, message)
            self._denial = denial
            connection.state = DENYING
        else:
            raise ResponseError(f"{kind!r} was sent before websocket.accept")
