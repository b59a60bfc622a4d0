"""What a worker counts, and when it tells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from prefork.http.tally import TIMED_A_SECOND, Tally
from prefork.scoreboard import Entry, Scoreboard, Told


@pytest.fixture
def board(no_descriptor_leaks: None) -> Iterator[Scoreboard]:
    board = Scoreboard.create(1)
    yield board
    board.close()


@pytest.fixture
def entry(board: Scoreboard) -> Iterator[Entry]:
    entry = Entry(board.fileno(), board.take() or 0)
    yield entry
    entry.close()


@dataclass
class Wear:
    """How much is asked of a worker, and whether it has said that it was enough."""

    requests: int
    said: list[int] = field(default_factory=list)

    def say_worn(self) -> None:
        self.said.append(1)


def serve(tally: Tally, requests: int) -> int:
    """Begin and answer so many: how many were timed."""
    timed = 0
    for _ in range(requests):
        tally.until_timed -= 1
        begun_ns = tally.time() if tally.until_timed <= 0 else 0
        tally.statuses[2] += 1
        if begun_ns:
            tally.took(begun_ns)
            timed += 1
    return timed


def told(board: Scoreboard) -> Told:
    return board.told(0)


def test_few_requests_are_timed_each(board: Scoreboard, entry: Entry) -> None:
    tally = Tally({1, 2, 3}, entry)
    assert serve(tally, 7) == 7
    tally.tick()
    assert (told(board).requests, sum(told(board).latencies), told(board).in_flight) == (7, 7, 3)


def test_of_many_requests_one_is_timed_for_many(board: Scoreboard, entry: Entry) -> None:
    """As many as `TIMED_A_SECOND`, each counted as those that it stands for."""
    tally = Tally((), entry)
    a_second = 20 * TIMED_A_SECOND
    serve(tally, a_second)
    tally.tick()
    timed = serve(tally, a_second)
    assert timed == pytest.approx(TIMED_A_SECOND, abs=2)
    tally.tick()
    assert told(board).requests == 2 * a_second
    assert sum(told(board).latencies) == pytest.approx(2 * a_second, abs=40)
    serve(tally, 10)
    tally.tick()
    assert serve(tally, 30) >= 10  # it is quiet again; what was counted down is used up first


def test_awake_and_at_rest(board: Scoreboard, entry: Entry) -> None:
    """Nothing is told between two ticks but that there is something."""
    tally = Tally((), entry)
    tally.wake()
    serve(tally, 1)
    assert (told(board).is_awake, told(board).requests) == (True, 0)
    tally.tick(is_awake=False)
    assert (told(board).is_awake, told(board).requests) == (False, 1)
    assert told(board).tick_ms > 0


@pytest.mark.parametrize("rate", [1, 50 * TIMED_A_SECOND])
def test_enough_is_said_with_the_last_request_and_once(rate: int) -> None:
    """Exactly, whether each request is timed or one of many."""
    wear = Wear(requests=1000 + rate)
    tally = Tally((), None, wear)
    serve(tally, rate)
    tally.tick()
    serve(tally, 999)
    assert not wear.said
    serve(tally, 1)
    assert wear.said == [1]
    serve(tally, 3 * rate)
    assert wear.said == [1]


def test_without_a_bound_nothing_is_said() -> None:
    wear = Wear(requests=0)
    tally = Tally((), None, wear)
    serve(tally, 500)
    assert not wear.said


class Pulse:
    """How often a worker has said that it is awake."""

    said = 0

    def say_awake(self) -> None:
        self.said += 1


def test_the_first_request_after_a_rest_is_told_of(board: Scoreboard, entry: Entry) -> None:
    """Before its application is called, which may never return; and the master hears of it once."""
    pulse = Pulse()
    tally = Tally((), entry, None, pulse)
    tally.on_first = tally.wake
    for rests in range(1, 4):
        serve(tally, 1)
        assert (told(board).is_awake, pulse.said) == (True, rests)
        serve(tally, 10)
        tally.tick()
        serve(tally, 10)
        assert pulse.said == rests
        tally.tick(is_awake=False)


def test_what_was_not_timed_before_a_rest_counts_all_the_same() -> None:
    """Of many requests one is timed: how many had begun is known when the next one is."""
    wear = Wear(requests=60 * TIMED_A_SECOND)
    tally = Tally((), None, wear)
    serve(tally, 50 * TIMED_A_SECOND)
    tally.tick()
    serve(tally, 7)
    tally.tick(is_awake=False)
    serve(tally, 10 * TIMED_A_SECOND - 8)
    assert not wear.said
    serve(tally, 1)
    assert wear.said == [1]


def test_a_worker_that_wakes_up_has_just_turned(board: Scoreboard, entry: Entry) -> None:
    """Nobody is to see that it is awake beside the time of its last tick, which may be an hour ago."""
    tally = Tally((), entry)
    tally.tick(is_awake=False)
    before_ms = time.monotonic_ns() // 1_000_000
    tally.wake()
    assert told(board).is_awake
    assert told(board).tick_ms >= before_ms
