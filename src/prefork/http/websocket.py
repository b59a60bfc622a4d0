"""One WebSocket connection: RFC 6455 to the client, a session to the application (`websocket_session`: states, too).

Rules:

* Nothing grows without a bound: messages that are not taken stop the reading; a client that takes nothing stops `send` and
  the answers to its pings, and loses the connection after `send_s`.
* A client that says nothing for `ping_s` is pinged, and given up (1011) if it says nothing for as long again. Whatever it
  sends shows that it lives; nothing is asked while we do not read.
* Our close frame is answered within `CLOSE_S`, or not waited for. A client that has broken the protocol is told why and
  not heard any more, but read for a while: a close with unread input resets the connection, and the close frame with it.
* A drain closes with 1012. An application that has not accepted yet still may; then it is closed at once.

Not here: frames (`websocket_frames`), the opening request (`websocket_handshake`), when a deadline is looked at (`clock`).
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

from prefork.http import websocket_control as control
from prefork.http.connections import Connections
from prefork.http.limits import LINGER_S, HttpLimits
from prefork.http.outside import end_writing
from prefork.http.response import refusal
from prefork.http.websocket_control import FrameError, close_frame, control_frame, parse_close
from prefork.http.websocket_deflate import Deflater, Inflater
from prefork.http.websocket_frames import HIGH_WATER_BYTES, FrameReader
from prefork.http.websocket_handshake import Handshake, HandshakeError, check, websocket_scope
from prefork.http.websocket_session import CLOSED, CLOSING, CONNECTING, FINISHING, OPEN, Session

if TYPE_CHECKING:
    from prefork.http.engine import Engine

CLOSE_S: Final = 10.0
"""How long a client may take to answer our close frame. websockets: 10 s."""


class WebSocketProtocol(asyncio.Protocol):
    """A connection from its request to upgrade on; made by the connection that has read it, which then calls `begin`.

    `scope` is the finished ASGI scope of that request. asyncio calls its methods, and so do its session and the clock.
    """

    __slots__ = (
        "_clock",
        "_connections",
        "_early",
        "_handshake",
        "_heard_s",
        "_limits",
        "_pinged_s",
        "_pong",
        "_reader",
        "_scope",
        "_session",
        "_stuck_bytes",
        "_transport",
        "_writers",
        "deadline_s",
        "engine",
        "is_read_paused",
        "is_write_paused",
        "state",
        "write",
    )

    def __init__(
        self,
        engine: Engine,
        limits: HttpLimits,
        connections: Connections[Any],
        transport: asyncio.Transport,
        scope: MutableMapping[str, Any],
    ) -> None:
        self.deadline_s = inf
        self.engine = engine
        self.is_read_paused = False
        self.is_write_paused = False
        self.state = CONNECTING
        self.write = transport.write
        self._clock = engine.clock
        self._connections = connections
        self._early = bytearray()  # what came before we accepted
        self._handshake: Handshake | None = None
        self._heard_s = 0.0
        self._limits = limits
        self._pinged_s = -inf
        self._pong: bytes | None = None  # the last ping that came while nothing could be written
        self._reader: FrameReader | None = None  # while frames are read
        self._scope = scope
        self._session: Session | None = None  # until nobody is there
        self._stuck_bytes = 0
        self._transport = transport
        self._writers: list[asyncio.Future[None]] | None = None

    def begin(self, rest: bytes, *, compresses: bool = True) -> None:
        """Take the transport over from its protocol, and start the application; `rest` was read behind the request.

        An impossible request is answered with 400 or 426, one that comes while draining with 503. All answers before it
        must be written, and the transport not be paused for writing.
        """
        transport, connections = self._transport, self._connections
        before = transport.get_protocol()
        transport.set_protocol(self)
        connections.add(self)  # in this order: there is no moment when nobody is connected
        connections.discard(before)
        transport.resume_reading()
        if not self.engine.keeps_alive:
            self.refuse(503)
            return
        try:
            self._handshake = check(self._scope, compresses=compresses)
        except HandshakeError as error:
            self.refuse(error.status, error.lines)
            return
        self._early += rest
        scope, self._scope = self._scope, {}  # the session has its own
        self._session = Session(self, websocket_scope(scope, self._handshake))
        self._session.start()

    # -- asyncio calls -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        clock = self._clock
        if not clock.is_awake:
            clock.wake()
        self._heard_s = clock.now_s
        if self.state != OPEN:
            self._take_in(data)
            return
        reader, session = self._reader, self._session
        assert reader is not None
        assert session is not None
        try:
            reader.feed(data)
        except (FrameError, UnicodeDecodeError) as error:
            self._fail(error)
        if session.waiters is not None and session.messages:
            session.wake()
        if reader.calls:
            self._heed(reader)

    def eof_received(self) -> bool:
        """Without a close frame before it this is an end of its own (RFC 6455 §7.1.5: 1006). The transport closes itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.state = CLOSED
        self.is_write_paused = False  # nobody is left to wait for
        self._connections.discard(self)
        self._early = bytearray()
        self._reader = None
        session, self._session = self._session, None
        if session is not None:
            session.disconnect(control.ABNORMAL)
        self._wake_writers()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._stuck_bytes = self._transport.get_write_buffer_size()
        self.deadline_s = self._now_s() + self._limits.send_s

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.state == OPEN:
            self.deadline_s = self._now_s() + self._limits.ping_s
            if self._pong is not None:
                payload, self._pong = self._pong, None
                self.write(control_frame(control.PONG, payload))
        elif self.state < OPEN:
            self.deadline_s = inf
        self._wake_writers()

    # -- what comes in -----------------------------------------------------------------------------

    def _take_in(self, data: bytes) -> None:
        """Input when we are not open."""
        if self.state < OPEN:
            self._early += data
            if len(self._early) > HIGH_WATER_BYTES:
                self._pause_reading()
        elif self.state == CLOSING:
            self._look_for_close(data)

    def _heed(self, reader: FrameReader) -> None:
        """There is more than messages."""
        reader.calls = False
        pings, reader.pings = reader.pings, []
        if pings and self.state == OPEN:
            if self.is_write_paused:  # the latest will do (RFC 6455 §5.5.3), and a flood fills no memory
                self._pong = pings[-1]
            else:
                self.write(b"".join([control_frame(control.PONG, payload) for payload in pings]))
        if reader.close is not None:
            self._heard_close(reader.close)
        elif reader.is_full and self.state == OPEN:
            self._pause_reading()

    def _heard_close(self, payload: bytes) -> None:
        """The client closes, or answers our close."""
        try:
            code, reason = parse_close(payload)
        except (FrameError, UnicodeDecodeError) as error:
            self._fail(error)
            return
        if self.state == OPEN:
            self.write(control_frame(control.CLOSE) if code == control.NO_CODE else close_frame(code))
        self._end(code, reason)
        self._hang_up()

    def _look_for_close(self, data: bytes) -> None:
        """Drop messages until the client's close frame."""
        reader = self._reader
        assert reader is not None
        try:
            reader.feed(data)
            while reader.messages:
                reader.messages.clear()
                reader.feed(b"")
        except (FrameError, UnicodeDecodeError):
            self._finish()
            return
        reader.pings.clear()
        if reader.close is not None:
            self._heard_close(reader.close)

    def _pause_reading(self) -> None:
        self.is_read_paused = True
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.is_read_paused:
            self.is_read_paused = False
            self._transport.resume_reading()

    # -- the session calls -------------------------------------------------------------------------

    def accept(self, message: MutableMapping[str, Any]) -> None:
        """Answer 101. Raises ResponseError for what `message` (ASGI's `websocket.accept`) may not say."""
        handshake, session = self._handshake, self._session
        assert handshake is not None
        assert session is not None
        self.write(handshake.answer(message, self.engine.composer))
        self.engine.tally.statuses[1] += 1
        self._handshake = inflater = None
        if handshake.agreement is not None:
            session.deflater, inflater = Deflater(handshake.agreement), Inflater(handshake.agreement)
        self._reader = FrameReader(session.messages, self._limits.message_bytes, inflater)
        self.state = OPEN
        self._heard_s = self._now_s()
        self.deadline_s = self._heard_s + self._limits.ping_s
        early, self._early = bytes(self._early), bytearray()
        self._resume_reading()
        if not self.engine.keeps_alive:  # a drain has begun meanwhile
            self.say_close()
        if early:
            self.data_received(early)

    def read_on(self) -> None:
        """All messages are taken: read what is here, then more."""
        reader, session = self._reader, self._session
        if self.state != OPEN or reader is None or session is None:
            return
        try:
            reader.feed(b"")
        except (FrameError, UnicodeDecodeError) as error:
            self._fail(error)
        session.wake()
        if reader.calls:
            self._heed(reader)
        if not reader.is_full:
            self._resume_reading()

    async def writable(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""
        while self.is_write_paused:
            writer = self.engine.loop.create_future()
            self._writers = [*(self._writers or ()), writer]
            await writer

    def refuse(self, status: int, lines: bytes = b"") -> None:
        """Answer the request to upgrade with an HTTP status; `lines` are headers, each behind its line break."""
        self._now_s()
        self.write(refusal(status, self._clock.date_line + lines))
        self.engine.tally.statuses[status // 100] += 1
        self.response_done()

    def write_large(self, before: bytes, body: bytes, after: bytes) -> None:
        """A piece of an answer other than 101 (`Connection`). Hardly ever: it goes the usual way."""
        self.write(b"".join((before, body, after)))

    def response_done(self) -> None:
        """An answer other than 101 is written."""
        self._end(control.ABNORMAL, "")
        self._finish()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. Raises ValueError for what no close frame can say."""
        reader = self._reader
        assert reader is not None
        self.write(close_frame(code, reason))
        self.state = CLOSING
        self._stuck_bytes = self._transport.get_write_buffer_size() + 1
        self.deadline_s = self._now_s() + CLOSE_S
        self._end(code, reason)
        reader.messages = []  # what was read before is the application's, the rest nobody's
        self._resume_reading()
        self._look_for_close(b"")

    def abort(self) -> None:
        """Reset: what was sent is not to be taken for the whole."""
        self.state = max(self.state, FINISHING)
        self.deadline_s = inf
        self._transport.abort()

    # -- the end -----------------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        if self._session is not None:
            self._session.end(code, reason)

    def _fail(self, error: FrameError | UnicodeDecodeError) -> None:
        """The client has broken the protocol: say so, and hear no more (RFC 6455 §7.1.7)."""
        if not isinstance(error, FrameError):
            error = FrameError(control.BAD_DATA, "not UTF-8")
        if self.state == OPEN:
            self.write(close_frame(error.code, error.reason))
        self._end(error.code, error.reason)
        self._finish()

    def _finish(self) -> None:
        """All is said, and the client may be sending still: close once it has, or `LINGER_S` later."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._leave(LINGER_S)
            end_writing(self._transport)
            self._resume_reading()
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        """All is said, and heard: close once it is sent."""
        self._leave(self._limits.send_s)
        self._transport.close()

    def _leave(self, patience_s: float) -> None:
        self.state = FINISHING
        self._early = bytearray()
        self._reader = None
        self._stuck_bytes = self._transport.get_write_buffer_size() + 1
        self.deadline_s = self._now_s() + patience_s

    # -- time and leaving --------------------------------------------------------------------------

    def _now_s(self) -> float:
        clock = self._clock
        if not clock.is_awake:
            clock.wake()
        return clock.now_s

    def on_deadline(self, now_s: float) -> None:
        """Called by the clock."""
        pending_bytes = self._transport.get_write_buffer_size()
        if self.is_write_paused or (self.state >= CLOSING and pending_bytes):
            if pending_bytes < self._stuck_bytes:
                self._stuck_bytes = pending_bytes
                self.deadline_s = now_s + self._limits.send_s
            else:
                self.abort()
        elif self.state == OPEN:
            self._keep_alive(now_s)
        elif self.state == CLOSING:
            self._hang_up()
        elif self.state == FINISHING:
            self.abort()
        else:
            self.deadline_s = inf

    def _keep_alive(self, now_s: float) -> None:
        """Ping, or give up."""
        ping_s = self._limits.ping_s
        if self.is_read_paused:
            self.deadline_s = now_s + ping_s
        elif self._heard_s < self._pinged_s:
            self._fail(FrameError(control.INTERNAL_ERROR, "no answer to a ping"))
        elif now_s < self._heard_s + ping_s:
            self.deadline_s = self._heard_s + ping_s
        else:
            self._pinged_s = now_s
            self.deadline_s = now_s + ping_s
            self.write(control_frame(control.PING))

    def say_close(self) -> None:
        """Draining: the client may connect again, elsewhere. An application that has not answered yet still may."""
        if self.state == OPEN:
            self.close(control.RESTART, "service restart")

    def close_when_idle(self) -> None:
        """Draining: whoever has had its time to answer our close is left."""
        self.say_close()
        if self.state == CLOSING and not self._transport.get_write_buffer_size():
            self._hang_up()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, None
        for writer in writers or ():
            if not writer.done():
                writer.set_result(None)
