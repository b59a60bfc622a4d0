"""One connection without a socket: bytes in, bytes out, in turns of a loop that a fuzzer can repeat exactly.

Nothing here waits or reads a clock, so that the same input does the same each time, thousands of times a second.

Not here: what must hold of it (`oracle`), and what is fed (`fuzz_connection`, `seeds`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from prefork.http.connections import Connections
from prefork.http.engine import Engine
from prefork.http.exchange import Exchange
from prefork.http.limits import HttpLimits
from prefork.http.logged import LoggedHttpProtocol
from prefork.http.protocol import HttpProtocol
from prefork.http.request import NameCache
from prefork.http.websocket import WebSocketProtocol

DATE: Final = b"\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT"
MOST_TURNS: Final = 10_000
"""A conversation that is not at rest then goes round in circles."""


@dataclass(frozen=True)
class Request:
    """What an application was given. `body` is None if it did not get all of it."""

    method: str
    target: tuple[bytes, bytes]
    """Raw path and query."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    version: str


@dataclass
class Heard:
    """What came of a conversation."""

    raw: bytes = b""
    """All that the connection has written."""
    requests: list[Request] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    """The statuses that a log was told, if there was one."""
    clients: list[tuple[Any, str]] = field(default_factory=list)
    """Who the application was told that the requests are from, and by what scheme."""
    messages: list[str | bytes] = field(default_factory=list)
    """Of WebSockets."""
    end: tuple[int, str] | None = None
    """What a WebSocket's application heard of its end."""
    is_closed: bool = False
    is_eof: bool = False
    """The connection has ended its side."""
    was_aborted: bool = False
    taken_bytes: int = 0
    """How much of the input was fed until the connection closed."""


@dataclass(frozen=True)
class Course:
    """How bytes are fed."""

    pieces: tuple[bytes, ...]
    turns: int = 1
    """Of the loop for each piece; 0: all that is read comes in one."""
    ends: bool = False
    """The client ends its side at the end."""
    is_slow: bool = False
    """The client takes 100 bytes a turn."""
    is_late: bool = False
    """Much time passes at the end."""
    drains: bool = False
    """A drain begins before the last piece."""


class FixedClock:
    """Time stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.is_awake = True
        self.date_line = DATE
        self.others: list[Any] = []

    def wake(self) -> None: ...


class Wire:
    """An asyncio transport that keeps what is written; a slow client takes it 100 bytes at a time.

    It has a descriptor, too: what is written there, past it, comes out of `far`.
    """

    def __init__(self, talker: Talker, heard: Heard, peer: tuple[str, int], *, is_slow: bool) -> None:
        self._loop = talker.loop
        self._near, self._far = talker.near, talker.far
        self._peer = peer
        self.heard = heard
        self._pending = b""
        self._is_closing = False
        self._is_lost = False
        self._is_write_paused = False
        self._is_slow = is_slow
        self.is_reading = True
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": self._peer, "sockname": ("127.0.0.1", 80), "socket": self._near}
        return known.get(name, default)

    def look(self) -> None:
        """Take what was written past the transport, which may only be while it has nothing to write itself."""
        with contextlib.suppress(BlockingIOError):
            data = self._far.recv(2**20)
            assert not self._pending, "written past what waits to be written"
            is_over = self._is_lost or self._is_closing or self.heard.is_eof
            assert not is_over, "written past the end"
            self.heard.raw += data

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.look()
        assert not self._is_lost, "write_eof on a connection that is gone"
        self.heard.is_eof = True

    def write(self, data: bytes) -> None:
        assert isinstance(data, (bytes, bytearray, memoryview)), type(data)
        self.look()
        if self._is_lost or self._is_closing:
            return
        assert not self.heard.is_eof, f"{bytes(data)!r} was written after the end"
        if not self._is_slow:
            self.heard.raw += data
            return
        self._pending += data
        if len(self._pending) > 100 and not self._is_write_paused:
            self._is_write_paused = True
            self.protocol.pause_writing()

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return len(self._pending)

    def set_write_buffer_limits(self, *_limits: int) -> None: ...

    def pause_reading(self) -> None:
        assert self.is_reading or self._is_closing, "paused twice"
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def take(self) -> None:
        """A slow client takes something."""
        self.look()
        self.heard.raw += self._pending[:100]
        self._pending = self._pending[100:]
        if self._is_write_paused and not self._pending and not self._is_lost:
            self._is_write_paused = False
            self.protocol.resume_writing()
        if self._is_closing and not self._pending:
            self._lose()

    def close(self) -> None:
        self.look()
        if not self._is_closing:
            self._is_closing = True
            self.is_reading = False
            if not self._pending:
                self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.look()
        self.heard.was_aborted = True
        self._is_closing = True
        self.is_reading = False
        self._pending = b""
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        self.look()
        if not self._is_lost:
            self._is_lost = True
            self.heard.is_closed = True
            self.protocol.connection_lost(None)

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    @property
    def is_at_rest(self) -> bool:
        return not self._pending


class Log:
    """An access log that keeps the statuses."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def record(self, host: Any, method: Any, target: Any, version: Any, status: Any, *rest: Any) -> None:
        """As `AccessLog` has it."""
        size, headers, scheme, began_s = rest
        assert isinstance(method, str)
        assert isinstance(target, bytes)
        assert version in ("1.0", "1.1")
        assert scheme in ("http", "https")
        assert size >= 0
        assert began_s > 0
        assert all(isinstance(name, bytes) and isinstance(value, bytes) for name, value in headers)
        self._heard.records.append(status)


App = Callable[[Heard], Any]
"""Makes an application that writes down what it is given."""


class Talker:
    """Holds conversations on one loop. `escaped` is what the loop's exception handler was told."""

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.escaped: list[Any] = []
        self.logged: list[logging.LogRecord] = []
        self.loop.set_exception_handler(lambda _loop, context: self.escaped.append(context))
        self._handler = logging.Handler(logging.ERROR)
        self._handler.emit = self.logged.append  # type: ignore[method-assign,assignment]
        self._logger = logging.getLogger("prefork.http")
        self._logger.addHandler(self._handler)
        self._logger.propagate = False

    def close(self) -> None:
        """Leave loop and log as they were."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = True
        self.near.close()
        self.far.close()
        self.loop.close()

    @property
    def is_busy(self) -> bool:
        """The loop has something to do."""
        return bool(cast(Any, self.loop)._ready)

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def hold(
        self,
        app: App,
        exchange: type[Exchange],
        limits: HttpLimits,
        course: Course,
        *,
        websocket: bool,
        is_logged: bool = False,
        before: Sequence[tuple[str, App, Course]] = (),
    ) -> Heard:
        """Feed all of `course` to a new connection: what came of it. Raises what the connection raises.

        `before`: what others hold before it, of the same worker: their address, whom they talk to, and what they feed.
        """
        engine = Engine(None, self.loop, cast(Any, FixedClock()), {"known": 1}, exchange)
        if websocket:
            engine.websocket = WebSocketProtocol
        for host, their_app, their_course in before:
            self._hold(engine, (host, 6), their_app, limits, their_course, is_logged=is_logged)
        return self._hold(engine, ("127.0.0.1", 5), app, limits, course, is_logged=is_logged)

    def _hold(
        self,
        engine: Engine,
        peer: tuple[str, int],
        app: App,
        limits: HttpLimits,
        course: Course,
        *,
        is_logged: bool,
    ) -> Heard:
        heard = Heard()
        clock = cast(FixedClock, engine.clock)
        connections: Connections[Any] = Connections(self.loop.time)
        engine.app = app(heard)
        wire = Wire(self, heard, peer, is_slow=course.is_slow)
        kind = LoggedHttpProtocol if is_logged else HttpProtocol
        wire.protocol = kind(engine, limits, connections, NameCache())
        if is_logged:
            wire.protocol.log = Log(heard)
        self._call(lambda: wire.protocol.connection_made(cast(Any, wire)))
        self._feed(wire, engine, course)
        self._settle(wire)
        if course.is_late:
            self._pass_time(wire, clock, connections)
        if not wire.is_lost:
            result = (heard.is_closed, heard.was_aborted)
            wire.abort()
            self._settle(wire)
            heard.is_closed, heard.was_aborted = result
        assert not connections, "a connection that is gone is still counted"
        self._wait(wire, lambda: not engine.running)
        return heard

    def _feed(self, wire: Wire, engine: Engine, course: Course) -> None:
        """All the pieces, then the end. Without turns all of it comes in one turn of the loop, if it is read at all."""

        def begin_drain() -> None:
            engine.keeps_alive = False
            wire.protocol.say_close()

        def end() -> None:
            if not wire.is_closing() and not wire.protocol.eof_received():
                wire.close()

        steps: list[Callable[[], object]] = [partial(self._take, wire, piece) for piece in course.pieces]
        if course.drains:
            steps.insert(max(0, len(steps) - 1), begin_drain)
        if course.ends:
            steps.append(end)
        while steps:
            self._wait(wire, lambda: wire.is_reading or wire.is_closing())
            if wire.is_closing():
                return

            def go() -> None:
                steps.pop(0)()
                while steps and wire.is_reading and not course.turns:
                    steps.pop(0)()

            self._call(go)
            for _ in range(course.turns - 1):
                self._turn_with(wire)

    def _take(self, wire: Wire, piece: bytes) -> None:
        if not wire.is_closing():
            wire.heard.taken_bytes += len(piece)
            wire.protocol.data_received(piece)

    def _pass_time(self, wire: Wire, clock: FixedClock, connections: Connections[Any]) -> None:
        def look() -> None:
            for each in list(connections):
                if each.deadline_s <= clock.now_s:
                    each.on_deadline(clock.now_s)

        for _ in range(4):
            clock.now_s += 1000
            self._call(look)
            self._settle(wire)
        assert not connections, "nothing ends this connection"

    def _call(self, call: Callable[[], object]) -> None:
        """One turn, in which the loop calls it. Raises what it raises."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                failed.append(error)

        self.loop.call_soon(run)
        self.turn()
        if failed:
            raise failed[0]

    def _turn_with(self, wire: Wire) -> bool:
        """One turn, in which a slow client takes something; False if nothing was to be done."""
        is_busy = self.is_busy or not wire.is_at_rest
        self._call(wire.take)
        return is_busy

    def _settle(self, wire: Wire) -> None:
        """Until nothing is to be done."""
        for _ in range(MOST_TURNS):
            if not self._turn_with(wire):
                return
        raise AssertionError("it never comes to rest")

    def _wait(self, wire: Wire, condition: Callable[[], object]) -> None:
        for _ in range(MOST_TURNS):
            if condition() or not self._turn_with(wire):
                break
        assert condition(), "it waits for nothing: reading is paused, or an application never ends"
