"""One coarse clock for a worker: the Date line, and every time-out of every connection.

Rules:

* While anything happens it ticks once a second; a connection has no timer of its own.
* When nothing happens it stops. An idle worker wakes up for the next time-out that falls due, or never.
* Whoever reads `now_s` or `date_line`, or brings a deadline forward, calls `wake()` first if `is_awake` is false.

* A deadline is set from `now_s`, which may be a tick old by then. So it is acted upon a tick after it has passed: without
  that, with a keep-alive time of a second, each tick would close connections that were answered a moment ago.

Hence a deadline is kept to within two ticks, late and never early (but by as long as the loop was blocked); `Date` is up to
one second old.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from math import inf
from typing import Final, Protocol

TICK_S: Final = 1.0
"""Date has a resolution of one second (RFC 9110 §5.6.7); no time-out needs a finer one."""


class Expires(Protocol):
    """Something with a deadline, in the loop's time; `inf` stands for none."""

    deadline_s: float

    def on_deadline(self, now_s: float) -> None:
        """The deadline has passed: act, and set another."""


class Clock:
    """The clock of one event loop, over `members`, which may change at any time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        members: Iterable[Expires],
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.is_awake = False
        self.now_s = loop.time()
        self.date_line = b""
        """CR LF, then the whole header line without its end."""
        self.others: list[Expires] = []
        """What else has deadlines, besides the members."""
        self.on_wake: Callable[[], object] = _nothing
        """Called when something happens after a rest."""
        self.on_tick: Callable[[], object] = _nothing
        """Called once a second from then on, and a last time when nothing has happened for a second."""
        self.on_rest: Callable[[], object] = _nothing
        """Called after that."""
        self.is_needed: Callable[[], bool] = _is_not
        """Whether it is to tick although nothing happens: somebody waits for what does not wake it."""
        self._loop = loop
        self._members = members
        self._wall_s = wall_s
        self._second = -1
        self._timer: asyncio.TimerHandle | None = None
        self._is_ticking = False

    def wake(self) -> None:
        """Bring `now_s` and `date_line` up to date, and tick from here on."""
        self.is_awake = True
        self._read()
        if not self._is_ticking:
            self.stop()
            self._is_ticking = True
            self._timer = self._loop.call_later(TICK_S, self._tick)
            self.on_wake()

    def stop(self) -> None:
        """Wake the loop up no more, until the next `wake()`."""
        self._is_ticking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read(self) -> None:
        self.now_s = self._loop.time()
        second = int(self._wall_s())
        if second != self._second:
            self._second = second
            self.date_line = b"\r\ndate: " + formatdate(second, usegmt=True).encode("ascii")

    def _tick(self) -> None:
        was_awake, self.is_awake = self.is_awake, False
        self._read()
        now_s, soonest_s = self.now_s, inf
        for member in [*self._members, *self.others]:
            if member.deadline_s + TICK_S <= now_s:
                try:
                    member.on_deadline(now_s)
                except Exception as error:  # all others' time-outs depend on the next tick
                    self._loop.call_exception_handler({"message": "a time-out failed", "exception": error})
            soonest_s = min(soonest_s, member.deadline_s)
        was_ticking = self._is_ticking
        if was_ticking:
            self.on_tick()
        if self._timer is not None:
            self._timer.cancel()  # another than this, if a time-out has woken us
        if was_awake or self.is_awake or (was_ticking and self.is_needed()):
            self._timer = self._loop.call_later(TICK_S, self._tick)
            return
        self._is_ticking = False
        if was_ticking:
            self.on_rest()
        self._timer = None
        if soonest_s < inf:
            self._timer = self._loop.call_at(max(soonest_s, now_s) + TICK_S, self._tick)


def _is_not() -> bool:
    return False


def _nothing() -> None:
    """Whoever wants to be called takes its place."""
