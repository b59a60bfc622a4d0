"""One connection: bytes in, exchanges in order, bytes out. A state machine around httptools' parser.

How it works:

* What was read waits in `_unfed`, is parsed in slices while there is room (`_step`), and parsed requests wait in the reader's
  queue; one exchange at a time is current. Reading is paused while anything waits.
* A refusal takes its place behind the answers that are due before it.
* Once the last request has been told apart (`connection: close`, a refusal, a drain), further input has no meaning: it
  is dropped, and read for a while so that the close does not reset the connection under the answer (`_finish`).
* An application is never called in another one's context: from within a `send` the next is put off to the loop.

This is the whole of it, and right for whatever comes. Not here: the short way for what nearly always comes (`protocol`), how a
request is read (`reader`, `request`), what an application sees (`asgi`), how bytes go out (`sending`), when a deadline is looked
at (`clock`).
"""

from __future__ import annotations

import asyncio
import contextvars
from math import inf
from typing import Any

import httptools

from prefork.http.caller import identify
from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.exchange import COMPLETE, HEAD_SENT, Exchange
from prefork.http.forwarded import Origin, apply
from prefork.http.limits import BODY_HIGH_WATER_BYTES, LINGER_S, SLICE_BYTES, HttpLimits
from prefork.http.outside import end_writing, status_for
from prefork.http.proxy_protocol import Preface
from prefork.http.reader import RequestReader
from prefork.http.request import NameCache
from prefork.http.response import refusal
from prefork.http.sending import CLOSING, IDLE, IN_HEAD, LINGERING, Sending, owes_body
from prefork.http.site import Site, WebSocketFactory
from prefork.http.tls_scope import tls_key


class Conversation(Sending):
    """One connection of a worker. asyncio calls its methods, and so do its current exchange and the clock."""

    __slots__ = (
        "_begun_ns",
        "_connections",
        "_context",
        "_entrance",
        "_is_eof",
        "_is_head_refused",
        "_is_proceeding",
        "_is_read_paused",
        "_names",
        "_preface",
        "_reader",
        "_refusal",
        "_site",
        "_unfed",
        "client",
        "is_proxy_trusted",
        "own",
        "scheme",
        "template",
    )

    def __init__(
        self,
        engine: Engine,
        limits: HttpLimits,
        connections: Connections[Any],
        names: NameCache,
        site: Site | None = None,
        *,
        preface: Preface | None = None,
    ) -> None:
        super().__init__(engine, limits)
        self.is_proxy_trusted = False
        self._connections = connections
        self._names = names
        self._preface = preface
        self._site = site or Site()
        self._refusal = 0
        self._is_head_refused = False
        self._begun_ns = 0
        self._unfed: bytes | memoryview = b""
        self._is_eof = False
        self._is_proceeding = False
        self._is_read_paused = False

    # -- asyncio calls -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._take_over(transport)
        self._context = contextvars.copy_context()
        self._open()
        self._connections.add(self)
        self.deadline_s = self._now_s() + self._limits.head_s

    def _open(self) -> None:
        """Learn who is there, for all requests of this connection, and find those who came the same way."""
        caller = identify(self._transport, self._preface, self._site)
        self.client, self.scheme, self.is_proxy_trusted = (
            caller.client,
            caller.scheme,
            caller.is_proxy_trusted,
        )
        engine = self.engine
        told = tls_key(caller.tls)
        key = None if told is None else (caller.scheme, caller.server, told)
        entrance = engine.entrances.get(key)
        if entrance is None:
            template = engine.exchange.template(
                scheme=caller.scheme, server=caller.server, root_path=self._site.root_path, tls=caller.tls
            )
            entrance = engine.entrances.open(key, template, self._limits)
        self._entrance = entrance
        self.template = entrance.template
        self.own = engine.exchange.own(caller.client)
        self._reader = RequestReader(self, self._limits, self._names)
        if caller.is_gone:
            self.abort()

    def origin_of(self, headers: list[tuple[bytes, bytes]]) -> Origin:
        """Where a forwarded request came from."""
        return apply(headers, self.client, self.scheme, self._site.trusted)

    def data_received(self, data: bytes) -> None:
        self._take_in(data)

    def eof_received(self) -> bool:
        """The client sends nothing more. It may still read: what it has asked for is answered, then all is closed."""
        self._is_eof = True
        if self._phase >= LINGERING:
            return False
        last = self._last()
        if last is None or not last.is_body_complete or self._transport.get_extra_info("sslcontext"):
            return False
        last.keep_alive = False
        if self._exchange is not None:
            self._exchange.half_close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._phase = CLOSING
        self._is_plain = False
        self._fd = -1
        self.is_closed = True
        self._connections.discard(self)
        exchange, self._exchange = self._exchange, None
        self._unfed = b""
        self._reader.close()
        if exchange is not None:
            exchange.disconnect()
        if self._outlet is not None:
            self._outlet.wake()
        self._wake_writers()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._phase < LINGERING:
            if self._exchange is None:
                self._idle()
            else:
                self.deadline_s = self._body_deadline_s(self._exchange)
        self._wake_writers()
        self._later()  # asyncio's own loop calls this in the context of the application that has written

    # -- what comes in -----------------------------------------------------------------------------

    def _take_in(self, data: bytes) -> None:
        if self._phase >= LINGERING:
            return
        self._is_plain = False
        if self._unfed:
            self._unfed = bytes(self._unfed) + data
        else:
            # A plain body is taken as it came; all else is sliced.
            self._unfed = data if self._reader.is_in_plain_body else memoryview(data)
        if self._exchange is not None and owes_body(self._exchange):
            self.deadline_s = self._now_s() + self._limits.body_s
        self._proceed()

    def _proceed(self) -> None:
        """Do all that can be done now: parse, start, refuse; then read on, or not."""
        if self._is_proceeding:
            return
        self._is_proceeding = True
        try:
            while self._phase < LINGERING and self._step():
                pass
        finally:
            self._is_proceeding = False
        self._regulate()

    def _step(self) -> bool:
        """One thing at a time; False if there is nothing to do but wait."""
        exchange = self._exchange
        if exchange is not None:
            if exchange.stage == COMPLETE and exchange.is_body_complete:
                self._exchange = None
                self._idle()
                return True
            return self._parse()
        if self.is_write_paused:
            return False  # a client that takes no answers gets no further ones
        if self._reader.queue:
            exchange = self._exchange = self._reader.queue.pop(0)
            tally = self.engine.tally
            tally.until_timed -= 1
            if tally.until_timed <= 0:
                self._begun_ns = tally.time()
            if exchange.wants_websocket and self.engine.websocket is not None:
                self._switch(exchange, self.engine.websocket)
                return False
            exchange.start()
            return True
        if self._parse():
            return True
        if self._refusal:
            self.refuse_now(self._refusal)
        return False

    def refuse_now(self, status: int) -> None:
        """Send a refusal, the last answer of this connection."""
        clock = self.engine.clock
        clock.wake()
        self.engine.tally.statuses[status // 100] += 1
        self.write(refusal(status, clock.date_line, is_bodiless=self._is_head_refused))
        self._finish(is_lingering=True)

    def _parse(self) -> bool:
        """Parse one slice, if there is one, and room for what it may bring."""
        if not self._unfed or self._reader.queue or self._refusal:
            return False
        reader = self._reader
        incoming = reader.incoming
        if reader.is_at_end:
            return False
        if incoming is not None and len(incoming.body) > BODY_HIGH_WATER_BYTES:
            return False
        is_plain_body = reader.is_in_plain_body
        size = reader.body_left_bytes if is_plain_body else SLICE_BYTES
        piece, self._unfed = self._unfed[:size], self._unfed[size:]
        try:
            if is_plain_body:
                reader.take_body(bytes(piece))
            else:
                reader.carried_bytes += len(piece)
                reader.feed(piece)
        except Exception as error:  # also whatever a callback raised
            self._failed(error, piece)
        else:
            if self._exchange is None and not reader.queue:
                self._in_head(0)
            elif reader.is_overfull:
                self._refuse(431)
        if self._exchange is not None:
            self._exchange.wake()
        return True

    def _in_head(self, read_bytes: int) -> None:
        """A head has begun and is not complete."""
        self._is_plain = False
        reader = self._reader
        reader.carried_bytes += read_bytes
        if reader.is_overfull:
            self._refuse(431)
            self._proceed()
        elif self._phase < IN_HEAD:
            if self._phase == IDLE:
                self.deadline_s = self._now_s() + self._limits.head_s
            self._phase = IN_HEAD

    def _failed(self, error: Exception, piece: bytes | memoryview) -> None:
        """The parser has stopped in the midst of `piece`."""
        if isinstance(error, httptools.HttpParserUpgrade):
            self._unfed = self._reader.take_upgrade(bytes(piece[error.args[0] :])) + bytes(self._unfed)
        elif self._reader.is_at_end:
            self._unfed = piece  # data after the last request: never parsed, but it makes us linger
        else:
            self._reader.is_mangled = not self._reader.refused
            self._refuse(self._reader.refused or status_for(error))

    def _refuse(self, status: int) -> None:
        """Answer what is on its way in with `status`, in its turn."""
        incoming = self._reader.incoming
        self._unfed = b""
        self._is_head_refused = self._reader.is_refused_as_head()
        if incoming is not None and not incoming.is_body_complete:
            if incoming in self._reader.queue:
                self._reader.queue.remove(incoming)
            elif incoming is self._exchange:
                incoming.disconnect()
                if incoming.stage == HEAD_SENT:
                    self.abort()
                    return
                self._exchange = None
                if incoming.stage == COMPLETE:
                    self._finish(is_lingering=True)
                    return
        self._refusal = status

    def _regulate(self) -> None:
        """Read on only while there is room for what comes."""
        if self._phase >= LINGERING:
            return
        # Not for a body that the application has not taken yet: it mostly has when more comes, and each pause costs
        # two system calls. What comes before is not parsed, and stops the reading.
        is_full = bool(self._unfed or self._reader.queue or self._refusal)
        if is_full != self._is_read_paused and not self._is_eof:
            if is_full:
                self._is_read_paused = True
                self._transport.pause_reading()
            else:
                self._resume_reading()

    def _resume_reading(self) -> None:
        # asyncio's own loop reads on in the context of the caller: mostly an application that has taken its body, and
        # all later requests of this connection would see what it has set.
        self._is_read_paused = False
        self._context.copy().run(self._transport.resume_reading)

    def _switch(self, exchange: Exchange, websocket: WebSocketFactory) -> None:
        """Leave the transport to a connection of the other protocol, with what was read of it already."""
        rest, self._unfed = bytes(self._unfed), b""
        self._exchange = None
        self._phase = CLOSING
        self._is_plain = False
        self._reader.close()
        if self._is_read_paused:
            self._resume_reading()
        websocket(self.engine, self._limits, self._connections, self._transport, exchange.scope).begin(rest)

    # -- the exchange calls ------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        self.write(data)
        self.response_done()

    def response_done(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self.engine.tally.statuses[exchange._head[0][9] & 7] += 1  # noqa: SLF001  (as in `answer`)
        if self._begun_ns:
            self._time()
        if not exchange.keep_alive:
            self._finish(
                is_lingering=bool(not exchange.is_body_complete or self._unfed or self._reader.queue)
            )
        elif exchange.is_body_complete:
            self._exchange = None
            self._idle()
            if (self._reader.queue or self._unfed or self._refusal) and not self._is_proceeding:
                self._later()
        else:
            exchange.body = b""
            exchange.body_bytes = 0  # from here on what is discarded
            self.deadline_s = self._now_s() + self._limits.body_s
            self._later()

    def _time(self) -> None:
        """A request that is timed has its answer."""
        begun_ns, self._begun_ns = self._begun_ns, 0
        self.engine.tally.took(begun_ns)

    def _later(self) -> None:
        self.engine.loop.call_soon(self._proceed, context=self._context)

    def want_body(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.is_waiting_for_body:
            self.deadline_s = self._now_s() + self._limits.body_s
        if self._unfed or self._is_read_paused:
            self._proceed()

    # -- time and leaving --------------------------------------------------------------------------

    def _idle(self) -> None:
        now_s, limits = self._now_s(), self._limits
        if self.is_write_paused or self._reader.url:
            is_in_head = not self.is_write_paused  # read along with the request before
            self._phase = IN_HEAD if is_in_head else IDLE
            self._is_plain = False
            self.deadline_s = now_s + (limits.head_s if is_in_head else limits.send_s)
        else:
            self._phase = IDLE
            self.deadline_s = now_s + limits.keep_alive_s
            self._is_plain = not (self._unfed or self._reader.queue or self._refusal)

    def on_deadline(self, now_s: float) -> None:
        """Called by the clock."""
        exchange = self._exchange
        pending_bytes = self._transport.get_write_buffer_size()
        if self._outlet is not None:
            self.abort()
        elif self.is_write_paused or (self._phase >= LINGERING and pending_bytes):
            if pending_bytes < self._stuck_bytes:
                self._stuck_bytes = pending_bytes
                self.deadline_s = now_s + self._limits.send_s
            else:
                self.abort()
        elif self._phase >= LINGERING:
            self._transport.abort()  # all is sent, and may be on its way yet
        elif exchange is None:
            if self._phase == IN_HEAD:
                self._refuse(408)
                self._proceed()
            else:
                self._finish(is_lingering=False)
        elif owes_body(exchange):
            self._refuse(408)
            self._proceed()
        else:
            self.deadline_s = inf

    def _finish(self, *, is_lingering: bool) -> None:
        """All is said: close once it is sent; `is_lingering` if the client may be sending still."""
        limits = self._limits
        self._is_plain = False
        self._fd = -1
        self._unfed = b""
        self._reader.queue.clear()
        self._stuck_bytes = self._transport.get_write_buffer_size() + 1
        if is_lingering and not self._is_eof and self._transport.can_write_eof():
            self._phase = LINGERING
            self.deadline_s = self._now_s() + LINGER_S
            end_writing(self._transport)
            if self._is_read_paused:
                self._resume_reading()
        else:
            self._phase = CLOSING
            self.deadline_s = self._now_s() + limits.send_s
            self._transport.close()

    def _last(self) -> Exchange | None:
        """The last request that will be answered, as things are."""
        return self._reader.queue[-1] if self._reader.queue else self._exchange

    def say_close(self) -> None:
        """Draining: the last answer that is due says `connection: close`, unless its head is gone."""
        last = self._last()
        if last is not None:
            last.be_last()

    def close_when_idle(self) -> None:
        """Draining: close now, or after what is due. A head that has begun is waited for, for its time."""
        last = self._last()
        if last is not None and last.stage == COMPLETE:
            self._finish(is_lingering=True)  # answered; the rest of its body is nobody's
        elif last is not None:
            last.keep_alive = False
        elif self._phase < IN_HEAD:
            self._finish(is_lingering=False)
