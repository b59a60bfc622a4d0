"""The clock of a worker: it ticks while anything happens, and stops when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, cast

from prefork.http.clock import TICK_S, Clock


class Timer:
    """What a loop gives back for a call in the future."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """A loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.calls: list[tuple[float, Callable[[], None], Timer]] = []
        self.troubles: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.troubles.append(context)

    def call_at(self, when_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer()
        self.calls.append((when_s, call, timer))
        return timer

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now_s + delay_s, call)

    @property
    def due_s(self) -> float | None:
        """When the loop will wake up next."""
        return min((when for when, _, timer in self.calls if not timer.is_cancelled), default=None)

    def advance(self) -> None:
        """Go to the next call, and make it."""
        due_s = self.due_s
        assert due_s is not None
        self.now_s = due_s
        calls, self.calls = self.calls, []
        for _, call, timer in calls:
            if not timer.is_cancelled:
                call()


class Member:
    """Something that expires, and then never again."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.expired_s: float | None = None

    def on_deadline(self, now_s: float) -> None:
        self.expired_s, self.deadline_s = now_s, inf


def clock_of(loop: Loop, *members: Member) -> Clock:
    return Clock(cast(asyncio.AbstractEventLoop, cast(Any, loop)), members, lambda: loop.now_s)


def test_a_time_out_that_wakes_the_clock_leaves_it_with_one_timer() -> None:
    """It fell due while the worker rested, and is acted upon; or else the clock would tick twice as often from then on."""
    loop = Loop()

    class Acting(Member):
        def on_deadline(self, now_s: float) -> None:
            super().on_deadline(now_s)
            clock.wake()

    clock = clock_of(loop, Acting(200.0))
    clock.wake()
    while loop.now_s < 200 + TICK_S:
        loop.advance()
    assert [timer.is_cancelled for *_, timer in loop.calls].count(False) == 1


def test_an_idle_worker_does_not_wake_up() -> None:
    """After the last activity: one tick to see that there is none, and no more."""
    loop = Loop()
    clock = clock_of(loop)
    assert loop.due_s is None
    clock.wake()
    loop.advance()
    assert not clock.is_awake
    loop.advance()
    assert loop.due_s is None


def test_a_busy_worker_wakes_up_once_a_second() -> None:
    loop = Loop()
    clock = clock_of(loop)
    for second in range(1, 5):
        clock.wake()
        clock.wake()
        loop.advance()
        assert loop.now_s == 100 + second * TICK_S


def test_the_date_is_of_this_second() -> None:
    """Read at every waking, however long the sleep was."""
    loop = Loop()
    clock = clock_of(loop)
    clock.wake()
    assert clock.date_line == b"\r\ndate: Thu, 01 Jan 1970 00:01:40 GMT"
    loop.advance()
    loop.advance()
    loop.now_s = 3700.5
    clock.wake()
    assert clock.date_line == b"\r\ndate: Thu, 01 Jan 1970 01:01:40 GMT"
    assert clock.now_s == 3700.5


def test_deadlines_are_kept_while_asleep() -> None:
    """A sleeping clock wakes up for the next deadline, once, not each second until then."""
    loop = Loop()
    early, late, never = Member(150.0), Member(175.0), Member(inf)
    clock = clock_of(loop, late, early, never)
    clock.wake()
    loop.advance()
    loop.advance()
    assert loop.due_s == 151.0
    loop.advance()
    assert (early.expired_s, loop.due_s) == (151.0, 176.0)
    loop.advance()
    assert (late.expired_s, never.expired_s, loop.due_s) == (176.0, None, None)


def test_no_deadline_is_early_although_the_time_is_old() -> None:
    """Set at the end of a tick, from a reading of its beginning: it has its whole second all the same."""
    loop = Loop()
    member = Member(inf)
    clock = clock_of(loop, member)
    clock.wake()
    loop.now_s += 0.999 * TICK_S
    set_s, member.deadline_s = loop.now_s, clock.now_s + 1.0
    while member.expired_s is None:
        loop.advance()
    assert set_s + 1.0 <= member.expired_s <= set_s + 1.0 + 2 * TICK_S


def test_waking_brings_a_far_timer_forward() -> None:
    """What happens while it sleeps until a far deadline may have set a nearer one."""
    loop = Loop()
    member = Member(500.0)
    clock = clock_of(loop, member)
    clock.wake()
    loop.advance()
    loop.advance()
    assert loop.due_s == 501.0
    clock.wake()
    member.deadline_s = loop.now_s + 1.5
    assert loop.due_s == loop.now_s + TICK_S
    loop.advance()
    loop.advance()
    assert member.expired_s is None
    loop.advance()
    assert member.expired_s == loop.now_s


def test_stopped_it_wakes_nobody() -> None:
    loop = Loop()
    clock = clock_of(loop)
    clock.wake()
    clock.stop()
    assert loop.due_s is None


def test_who_keeps_the_books_hears_of_work_and_of_rest() -> None:
    """When it begins, once a second while it lasts, and once when it is over; not when a deadline alone wakes it."""
    loop, heard = Loop(), list[str]()
    clock = clock_of(loop, Member(200.0))
    clock.on_wake, clock.on_tick, clock.on_rest = (
        lambda what=what: heard.append(what) for what in ("wake", "tick", "rest")
    )
    clock.wake()
    loop.advance()
    clock.wake()
    loop.advance()
    loop.advance()
    assert heard == ["wake", "tick", "tick", "tick", "rest"]
    loop.advance()
    assert (loop.now_s, loop.due_s) == (201.0, None)
    clock.wake()
    assert heard[5:] == ["wake"]


def test_a_time_out_that_fails_stops_no_other() -> None:
    """It is told, and the clock ticks on."""

    class Broken(Member):
        def on_deadline(self, now_s: float) -> None:
            super().on_deadline(now_s)
            raise OSError("no such connection")

    loop = Loop()
    other = Member(100.5)
    clock = clock_of(loop, Broken(100.5), other)
    clock.wake()
    loop.advance()
    loop.advance()
    assert other.expired_s == 102.0
    assert [str(each["exception"]) for each in loop.troubles] == ["no such connection"]
    clock.wake()
    assert loop.due_s == 103.0


def test_it_ticks_on_while_somebody_needs_it() -> None:
    """A request that waits for something else wakes nobody, and its worker is to be watched all the same."""
    loop = Loop()
    clock = clock_of(loop)
    needed = [True, True, False]
    clock.is_needed = lambda: needed.pop(0)
    clock.wake()
    ticks = 0
    while loop.due_s is not None:
        loop.advance()
        ticks += 1
    assert (ticks, needed) == (4, [])
    clock.is_needed = lambda: True
    assert loop.due_s is None, "at rest it is not asked"
