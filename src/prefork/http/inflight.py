"""The requests of one worker whose application has not returned: since when, and what is done with one that takes too long.

Rules:

* A request costs nothing here. Once a second, at the clock's tick, those that run are looked at; so a request is known from
  its first tick on, and its age to within a second. One that is over within a second is never seen.
* A time-out is kept late by up to two ticks and never early, and never a second time for one request.
* What is answered is not timed out: an application may go on behind its answer.

Used by the loop's thread; `describe` and `part` by a signal handler in it, at any moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from math import inf
from types import CodeType, FrameType
from typing import Any, Final

from prefork.http.asgi import ASGIExchange
from prefork.http.clock import TICK_S
from prefork.http.exchange import COMPLETE, Exchange, logger
from prefork.http.parting import answer_hung
from prefork.http.websocket_session import Session
from prefork.http.wsgi import WSGIExchange
from prefork.http.wsgi_threads import PooledWSGIExchange

MOST_DESCRIBED: Final = 50
"""Requests that are told of, the oldest first: a message to the master has its bound."""

_ENTRANCES: Final[frozenset[CodeType]] = frozenset(
    function.__code__
    for function in (
        ASGIExchange._run,  # noqa: SLF001  (our own: where an application is called)
        Session._run,  # noqa: SLF001
        WSGIExchange.start,
        WSGIExchange._answer,  # noqa: SLF001
        WSGIExchange._see_to,  # noqa: SLF001
        PooledWSGIExchange._serve,  # noqa: SLF001
    )
)
"""Functions of ours below which the application's frames lie; `self` in them is the request."""


class InFlight:
    """One for each worker. `running` are the exchanges whose application has not returned."""

    def __init__(
        self,
        running: Collection[Any],
        timeout_s: float = inf,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = running
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._since_s: dict[Any, float] = {}
        self._timed_out: set[Any] = set()
        self._looked_s = now_s()

    def is_any(self) -> bool:
        """Whether a request runs, for which the clock has to tick. WebSockets do not count: they are at rest mostly."""
        return any(isinstance(each, Exchange) for each in self._running)

    def wake(self) -> None:
        """Something happens after a rest: what runs from now on has begun after this."""
        self._looked_s = self._now_s()

    def look(self) -> None:
        """A second is over."""
        now_s = self._looked_s = self._now_s()
        if not self._running:
            if self._since_s:
                self._since_s, self._timed_out = {}, set()
            return
        before = self._since_s
        self._since_s = {each: before.get(each, now_s) for each in self._running}
        if self._timeout_s < inf:
            self._time_out(now_s)

    def _time_out(self, now_s: float) -> None:
        self._timed_out &= self._since_s.keys()
        for each, since_s in list(self._since_s.items()):
            if now_s - since_s < self._timeout_s or each in self._timed_out:
                continue
            if isinstance(each, Exchange) and each.stage != COMPLETE:
                self._timed_out.add(each)
                try:
                    each.time_out(now_s - since_s, thread_of(each))
                except (
                    Exception
                ):  # a thread may give it a head in this very moment; and the next tick must come
                    logger.exception("a request could not be timed out, and is reset: %s", each.describe())
                    each.connection.abort()

    def part(self, main: FrameType | None) -> None:
        """This worker is about to be killed, since its loop is blocked: tell the client of the request that it is at."""
        answer_hung(_request_in(main))

    def describe(self, main: FrameType | None) -> Iterator[str]:
        """A line for each request, the one that the loop is at first. `main`: where the main thread stands."""
        now_s = self._now_s()
        current = _request_in(main)
        if current is not None:
            age_s = now_s - self._since_s.get(current, self._looked_s)
            yield f"request: {current.describe()}, for {age_s:.0f} s: the loop is at it"
        running = [each for each in list(self._running) if each is not current]
        running.sort(key=lambda each: self._since_s.get(each, now_s))
        for each in running[:MOST_DESCRIBED]:
            since_s = self._since_s.get(each)
            age = f"for {now_s - since_s:.0f} s" if since_s is not None else f"for less than {TICK_S:g} s"
            yield f"request: {each.describe()}, {age}"
        if len(running) > MOST_DESCRIBED:
            yield f"and {len(running) - MOST_DESCRIBED} more requests"


def _request_in(frame: FrameType | None) -> Any:
    """The request whose application is called in this stack; None if there is none."""
    while frame is not None:
        if frame.f_code in _ENTRANCES:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def thread_of(exchange: Any) -> FrameType | None:
    """Where the thread stands in which this request's application is called; None if it is called in none."""
    for frame in sys._current_frames().values():  # noqa: SLF001  (the only way there is, and documented)
        if _request_in(frame) is exchange:
            return frame
    return None
