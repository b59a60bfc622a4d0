"""Requests whose worker leaves behind what it was at, and refuses what has killed others: `--refuse-after-kills`.

Rules:

* Exchanges of their own: where the option is off, nothing of this is there, and nothing asks for it.
* An application's coroutine is run by `Steps`, which says before each step whose code it is, and after it that nobody's is.
  So of all that are in flight the one is known that the loop was at. In a thread of the pool a request is run from its
  first line to its last.
* A request that is refused is answered by us, 503 with the seconds that are left (RFC 9110 §15.6.4, §10.2.3), before the
  application hears of it. The connection stays, as after any answer.
* WebSockets are neither told of nor refused: one address takes all messages of all clients, and which of them it was is in
  no name.

What is not seen: tasks that an application makes, and threads of its own making (`run_in_executor`, anyio's). While they
work for a request, that request waits.

Not here: the pages (`recorder`), who is to blame (`master.refusals`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine, Generator
from typing import Any, Final

from prefork.http.asgi import ASGIExchange
from prefork.http.engine import Engine
from prefork.http.exchange import HEAD_SENT, Exchange, logger
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_threads import PooledWSGIExchange
from prefork.recorder import NUMBER, RUNS, Recorder, name_of

TEXT: Final = (
    b"Service Unavailable\nRequests like this one have crashed the server, and are refused for now.\n"
)
_STEP_S: Final = 60
"""Retry-After is rounded up to minutes: a head is remembered, and one a second would drive the others out."""


class Steps(Coroutine[Any, Any, Any]):
    """The coroutine of a request: runs another, and says of each step that it is run."""

    __slots__ = ("_at", "_coroutine", "_exchange", "_name", "_recorder")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], recorder: Recorder, name: bytes, exchange: Exchange
    ) -> None:
        self._coroutine = coroutine
        self._recorder = recorder
        self._name = name
        self._exchange = exchange
        self._at = 0

    def send(self, value: Any) -> Any:
        at, recorder, name = self._at, self._recorder, self._name
        if not at:  # taken with the first step: requests that never wait take turns in one
            at = self._at = recorder.begin(name)
        elif at == recorder.shared:
            recorder.share(name)
        recorder.words[at] = len(name) | RUNS
        try:
            awaited = self._coroutine.send(value)
        except BaseException:  # StopIteration, too: its end
            recorder.end(at, name)
            self._at = 0
            raise
        # Once the client has the beginning of an answer, the rest may take hours: nobody to suspect of what others do.
        recorder.words[at] = len(name) if self._exchange.stage < HEAD_SENT else 0
        return awaited

    def throw(self, *error: Any) -> Any:
        recorder, name = self._recorder, self._name
        at = self._at = self._at or recorder.begin(name)
        if at == recorder.shared:
            recorder.share(name)
        recorder.words[at] = len(name) | RUNS
        try:
            awaited = self._coroutine.throw(*error)
        except BaseException:
            recorder.end(at, name)
            self._at = 0
            raise
        recorder.words[at] = len(name) if self._exchange.stage < HEAD_SENT else 0
        return awaited

    def close(self) -> None:
        try:
            self._coroutine.close()
        finally:
            if self._at:
                self._recorder.end(self._at, self._name)
                self._at = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        """What debuggers and stacks look at (`cr_frame`, `cr_await`, `__qualname__`) is the other's."""
        return getattr(self._coroutine, name)


class RecordedASGIExchange(ASGIExchange):
    """As `ASGIExchange`."""

    _name: bytes

    def start(self) -> None:
        scope = self.scope
        name = self._name = name_of(scope["method"], scope["raw_path"], scope["query_string"])
        recorder: Recorder = self.connection.engine.recorder
        is_news = recorder.words[NUMBER] != recorder.number
        if (is_news or recorder.refused) and is_refused(self, name):
            return
        ASGIExchange.start(self)

    def _run(self) -> Coroutine[Any, Any, None]:
        recorder = self.connection.engine.recorder
        return Steps(ASGIExchange._run(self), recorder, self._name, self)  # noqa: SLF001  (our own)


class RecordedWSGIExchange(WSGIExchange):
    """As `WSGIExchange`."""

    _name = b""

    def start(self) -> None:
        self._name = self._name or _name_in(self.scope)
        if is_refused(self, self._name):
            return
        if self.has_body and not self._is_body_read:
            WSGIExchange.start(self)  # comes back when the body is there
            return
        recorder = self.connection.engine.recorder
        at = recorder.begin(self._name)
        recorder.words[at] = len(self._name) | RUNS
        try:
            WSGIExchange.start(self)
        finally:
            if self.task is None:
                recorder.end(at, self._name)
            else:
                recorder.give_up(at)  # it sends on, piece by piece

    def _see_to(self, rest: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        recorder = self.connection.engine.recorder
        return Steps(WSGIExchange._see_to(self, rest), recorder, self._name, self)  # noqa: SLF001  (our own)


class RecordedPooledWSGIExchange(PooledWSGIExchange):
    """As `PooledWSGIExchange`."""

    _name = b""

    def start(self) -> None:
        self._name = self._name or _name_in(self.scope)
        if not is_refused(self, self._name):
            PooledWSGIExchange.start(self)

    def _run(self) -> None:
        recorder = self.connection.engine.recorder
        at = recorder.begin(self._name)
        recorder.words[at] = len(self._name) | RUNS
        try:
            PooledWSGIExchange._run(self)  # noqa: SLF001  (our own)
        finally:
            recorder.end(at, self._name)


_RECORDED: Final[tuple[type[Exchange], ...]] = (
    RecordedASGIExchange,
    RecordedWSGIExchange,
    RecordedPooledWSGIExchange,
)


def record(engine: Engine, recorder: Recorder) -> None:
    """From now on the requests of this worker are told of. Before the first of them."""
    engine.recorder = recorder
    (engine.exchange,) = (kind for kind in _RECORDED if kind.__base__ is engine.exchange)


def is_refused(exchange: Exchange, name: bytes) -> bool:
    """Whether a request has killed too many workers: then it is answered."""
    engine = exchange.connection.engine
    recorder: Recorder = engine.recorder
    until_ms = recorder.refused_until_ms(name)
    if until_ms is None:
        return False
    recorder.count_refused()
    if recorder.is_first_refusal(name):
        logger.warning(
            "refused, as all like it will be, since it has killed workers: %s", exchange.describe()
        )
    left_s = until_ms / 1000 - time.monotonic()
    headers = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(TEXT)),
        (b"retry-after", b"%d" % (_STEP_S * math.ceil(left_s / _STEP_S))),
    )
    exchange._head = engine.composer.head(503, headers)  # noqa: SLF001  (our own)
    exchange.send_whole(TEXT)
    return True


def _name_in(environ: dict[str, Any]) -> bytes:
    return name_of(environ["REQUEST_METHOD"], environ["RAW_URI"].encode("latin-1"))
