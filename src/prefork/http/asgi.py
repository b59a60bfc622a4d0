"""ASGI 3 over HTTP: scope, `receive`, `send` (HTTP protocol, specification version 2.4).

Rules:

* Each exchange runs in a task and a context of its own; where Python can (3.12+) the task starts eagerly, so that an
  application that waits for nothing has answered before the read event is over.
* A mistake of the application (an exception, a message out of order, an impossible header) is logged with its traceback.
* `send` raises `ClientDisconnectedError`, an OSError, once the client is gone. That is no mistake, and is not logged.
* Extensions: `http.response.pathsend` and `http.response.zerocopysend` (by sendfile where there is no TLS),
  `http.response.early_hint`, `http.response.trailers` (sent if the client says `TE: trailers`, RFC 9110 §6.5.1).

Not here: what goes over the wire (`exchange`), WebSockets.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from prefork.errors import DrainedError
from prefork.http.connection import Connection
from prefork.http.exchange import (
    COMPLETE,
    HEAD_GIVEN,
    JOIN_BYTES,
    NOTHING,
    ClientDisconnectedError,
    Exchange,
    LogFields,
    logger,
)
from prefork.http.files import send_open_file, send_path
from prefork.http.forwarded import Client, Origin
from prefork.http.request import HOST, Target
from prefork.http.response import ResponseError, trailer_section
from prefork.http.tls_scope import tls_extension

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SPEC_VERSION: Final = "2.4"
"""Of the ASGI HTTP protocol: with it came `state`, and the OSError of a `send` to nobody."""

EXTENSIONS: Final[tuple[str, ...]] = (
    "http.response.early_hint",
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.zerocopysend",
)


class ASGIExchange(Exchange):
    """A request and its answer, for an ASGI application."""

    _is_body_taken = False
    _takes_trailers = False
    _waiters: list[asyncio.Future[None]] | None = None

    @staticmethod
    def scope_of(
        connection: Connection, method: str, target: Target, headers: list[tuple[bytes, bytes]]
    ) -> dict[str, Any]:
        scope = connection.template.copy()
        scope["client"] = connection.client
        scope["headers"] = headers
        _aim(scope, method, target)
        scope["asgi"] = scope["asgi"].copy()
        scope["extensions"] = extensions = scope["extensions"].copy()
        if "tls" in extensions:
            extensions["tls"] = extensions["tls"].copy()
        scope["state"] = connection.engine.state.copy()
        return scope

    @staticmethod
    def renewed(scope: dict[str, Any], connection: Connection) -> dict[str, Any]:
        scope = scope.copy()
        scope["client"] = connection.client
        scope["headers"] = scope["headers"].copy()
        scope["asgi"] = scope["asgi"].copy()
        scope["extensions"] = extensions = scope["extensions"].copy()
        if "tls" in extensions:
            extensions["tls"] = extensions["tls"].copy()
        scope["state"] = connection.engine.state.copy()
        return scope

    @staticmethod
    def retargeted(
        scope: dict[str, Any], connection: Connection, method: str, target: Target
    ) -> dict[str, Any]:
        scope = ASGIExchange.renewed(scope, connection)
        _aim(scope, method, target)
        return scope

    @staticmethod
    def own(client: Client) -> dict[str, Any]:  # noqa: ARG004
        return {}  # `client` is set each time

    @classmethod
    def template(
        cls,
        *,
        scheme: str,
        server: tuple[str, int | None] | None,
        root_path: str,
        tls: ssl.SSLObject | None,
    ) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
            "http_version": "1.1",
            "server": server,
            "client": None,
            "scheme": scheme,
            "root_path": root_path,
            "method": "",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": [],
            "state": {},
            "extensions": {name: {} for name in EXTENSIONS} | tls_extension(tls),
        }

    # -- the application ---------------------------------------------------------------------------

    if sys.version_info >= (3, 12):

        def start(self) -> None:
            """Run the application, up to its first wait."""
            # A name of its own for each task, which is the default, costs as much as the task.
            task = asyncio.Task(
                self._run(), loop=self.connection.engine.loop, eager_start=True, name="request"
            )
            if not task.done():
                self.task = task
                self.connection.engine.running.add(self)
    else:

        def start(self) -> None:
            """Run the application, from the loop's next turn on."""
            engine = self.connection.engine
            self.task = asyncio.Task(self._run(), loop=engine.loop, name="request")
            engine.running.add(self)

    async def _run(self) -> None:
        try:
            await self.connection.engine.app(self.scope, self.receive, self.send)
            if self.stage != COMPLETE and not self.is_disconnected:
                self._leave_off()
        except ClientDisconnectedError:
            logger.debug("the client left: %s", self.describe())
        except Exception:
            logger.exception("the application raised: %s", self.describe())
        except SystemExit as error:
            if isinstance(error, DrainedError):  # not the application's: this process is told to leave
                raise
            logger.exception("the application called exit(): %s", self.describe())
        finally:
            if self.stage != COMPLETE:
                self.give_up()
            if self.task is not None:
                self.connection.engine.ended(self)

    def _leave_off(self) -> None:
        """The application has returned without a whole answer."""
        if self.is_half_closed:  # it was told that nobody is there
            self.disconnect()
            self.connection.abort()
        else:
            logger.error("the application returned before its answer was complete: %s", self.describe())

    def be_http_1_0(self) -> None:
        Exchange.be_http_1_0(self)
        self.scope["http_version"] = "1.0"

    def set_origin(self, origin: Origin) -> None:
        scope = self.scope
        scope["client"], scope["scheme"] = origin.client, origin.scheme
        if origin.host is not None:
            scope["headers"] = [(HOST, origin.host), *[each for each in scope["headers"] if each[0] != HOST]]

    def describe(self) -> str:
        return f"{self.scope['method']} {self.scope['path']!r}"

    def log_fields(self) -> LogFields:
        scope = self.scope
        query, client = scope["query_string"], scope["client"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        return scope["method"], target, scope["headers"], client[0] if client else None, scope["scheme"]

    # -- what comes in -----------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI: the next piece of the body; after the last one, wait for the client to leave or the answer to end."""
        if not self._is_body_taken:
            if not self.body and not self.is_body_complete and not self._is_over():
                await self._wait_for_body()
            if not self._is_over() or self._is_body_left():
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

    def _is_body_left(self) -> bool:
        """The client has ended its side behind the whole body, and still listens: it is to be answered."""
        return (
            self.is_half_closed
            and self.is_body_complete
            and not self.is_disconnected
            and self.stage != COMPLETE
        )

    async def _wait_for_body(self) -> None:
        self.send_continue()
        self.is_waiting_for_body = True
        self.connection.want_body()
        try:
            while not (self.body or self.is_body_complete or self._is_over()):
                await self._wait()
        finally:
            self.is_waiting_for_body = False

    async def _wait(self) -> None:
        # One future for each who waits: a shared one would be cancelled for all.
        self.is_ordinary = False
        waiter = self.connection.engine.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # -- what goes out -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI: the head (kept back until the first piece of the body), or a piece of the body."""
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            is_last = not message.get("more_body")
            if is_last and self.stage == HEAD_GIVEN and self.is_ordinary:
                # What nearly every answer is, in as few steps as there can be; `send_whole` does the same for all.
                lines, length, flags = self._head
                if not flags and type(body) is bytes and length == len(body) <= JOIN_BYTES:
                    connection = self.connection
                    clock = connection.engine.clock
                    if not clock.is_awake:
                        clock.wake()
                    self.stage = COMPLETE
                    self.sent_bytes = length
                    connection.answer(b"".join((lines, clock.date_line, b"\r\n\r\n", body)))
                    return
            self.send_piece(body, is_last=is_last)
            if self.connection.is_write_paused and self.stage != COMPLETE:
                await self._writable()
        elif kind == "http.response.start":
            if self.stage != NOTHING:
                raise ResponseError("http.response.start was sent twice")
            composer, headers = self.connection.engine.composer, tuple(message.get("headers", ()))
            try:
                self._head = composer.remembered(message["status"], headers)
            except TypeError:  # pairs that are lists cannot be looked up
                self._head = composer.head(message["status"], headers)
            if message.get("trailers"):
                self._expect_trailers()
            self.stage = HEAD_GIVEN
        else:
            await self._send_extended(kind, message)

    def completed(self) -> None:
        Exchange.completed(self)
        if self._waiters is not None:
            self.wake()

    async def _writable(self) -> None:
        await self.connection.writable()
        if self.is_disconnected:
            raise ClientDisconnectedError

    async def _send_extended(self, kind: str, message: Message) -> None:
        if kind == "http.response.pathsend":
            await send_path(self, message["path"])
        elif kind == "http.response.zerocopysend":
            more = bool(message.get("more_body"))
            await send_open_file(
                self, message["file"], message.get("offset"), message.get("count"), is_last=not more
            )
        elif kind == "http.response.early_hint":
            self.send_early_hint(message.get("links", ()))
        elif kind == "http.response.trailers":
            self._send_trailers(message)
        else:
            raise ResponseError(f"{kind!r} is no message that an HTTP answer has")

    def _expect_trailers(self) -> None:
        self._has_trailers = True
        self.is_ordinary = False
        fields = [value for name, value in self.scope["headers"] if name == b"te"]
        self._takes_trailers = b"trailers" in {each.strip().lower() for each in b",".join(fields).split(b",")}

    def _send_trailers(self, message: Message) -> None:
        if not self._has_trailers or self.stage == NOTHING:
            raise ResponseError("http.response.trailers was sent, and the head has not said so")
        if self.stage == HEAD_GIVEN:
            self.send_piece(b"", is_last=True)
        self.add_trailers(trailer_section(message.get("headers", ())), is_sent=self._takes_trailers)
        if not message.get("more_trailers"):
            self.end_trailers()


def _aim(scope: dict[str, Any], method: str, target: Target) -> None:
    scope["method"] = method
    path, scope["raw_path"], scope["query_string"] = target
    root_path = scope["root_path"]
    scope["path"] = root_path + path if root_path else path
