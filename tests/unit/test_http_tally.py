"""What a worker counts, and when it tells."""

from __future__ import annotations

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
