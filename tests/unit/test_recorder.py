"""What a worker leaves behind, and what it is told of others: two views of the same pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork.recorder import (
    MOST_LISTED,
    NAME_BYTES,
    RUNS,
    SLOTS,
    LastWords,
    Listed,
    Recorder,
    name_of,
    route_of,
)
from prefork.scoreboard import Entry, Scoreboard

LATER_MS = 2**62


@pytest.fixture
def board(no_descriptor_leaks: None) -> Iterator[Scoreboard]:
    board = Scoreboard.create(3, records=True)
    try:
        yield board
    finally:
        board.close()


@pytest.fixture
def workers(board: Scoreboard) -> Iterator[list[Recorder]]:
    """Of two workers, as they map the pages themselves."""
    entries = [Entry(board.fileno(), taken) for taken in (board.take(), board.take()) if taken is not None]
    yield [entry.recorder for entry in entries if entry.recorder is not None]
    for entry in entries:
        entry.close()


def publish(board: Scoreboard, *listed: Listed) -> None:
    assert board.recorders is not None
    board.recorders.publish(listed)


def run(worker: Recorder, name: bytes) -> int:
    at = worker.begin(name)
    worker.words[at] = len(name) | RUNS
    return at


def wait(worker: Recorder, name: bytes) -> int:
    at = worker.begin(name)
    worker.words[at] = len(name)
    return at


def test_there_is_none_unless_it_is_asked_for(no_descriptor_leaks: None) -> None:
    """And the file is no larger."""
    board = Scoreboard.create(1)
    entry = Entry(board.fileno(), 0)
    assert (board.recorders, entry.recorder, board.refused()) == (None, None, None)
    assert board.give_back(0) == LastWords()
    entry.close()
    board.close()


def test_what_a_worker_was_at_is_told_when_it_is_gone(board: Scoreboard, workers: list[Recorder]) -> None:
    """Of each worker its own; what has ended, and what has not begun, is nothing."""
    one, other = workers
    run(one, b"GET /runs?x=1")
    wait(one, b"GET /waits")
    one.end(run(one, b"GET /ended"), b"GET /ended")
    one.begin(b"GET /not-yet")
    run(other, b"POST /other")
    assert board.give_back(0) == LastWords((b"GET /runs?x=1",), (b"GET /waits",))
    assert board.give_back(1) == LastWords((b"POST /other",))


def test_the_next_worker_of_a_record_begins_with_an_empty_page(
    board: Scoreboard, workers: list[Recorder]
) -> None:
    for number in range(SLOTS):
        run(workers[0], b"GET /%d" % number)
    board.give_back(0)
    assert board.take() == 0
    assert board.give_back(0) == LastWords()


def test_who_finds_no_slot_shares_the_last_one(board: Scoreboard, workers: list[Recorder]) -> None:
    """And a slot that is given up is the next one's."""
    one = workers[0]
    slots = [wait(one, b"GET /%d" % number) for number in range(SLOTS - 1)]
    assert one.shared not in slots
    for name in (b"GET /crowded", b"GET /a"):
        assert one.begin(name) == one.shared
        one.words[one.shared] = len(name) | RUNS
    one.end(slots[5], b"GET /5")
    assert one.begin(b"GET /next") == slots[5]
    assert board.give_back(0).running == (b"GET /a",)


def test_what_is_refused_is_known_at_the_next_look(board: Scoreboard, workers: list[Recorder]) -> None:
    """By its whole name, or by its route; until its time is over."""
    one = workers[0]
    assert one.refused_until_ms(b"GET /a?1") is None
    publish(board, Listed(b"GET /a?1", True, LATER_MS), Listed(route_of(b"GET /b"), True, LATER_MS))
    refused = [b"GET /a?1", b"GET /b", b"GET /b?x"]
    assert [one.refused_until_ms(name) for name in refused] == [LATER_MS] * 3
    others = (b"GET /a", b"GET /a?2", b"GET /a?1&2", b"POST /a?1", b"POST /b", b"GET /b/c")
    assert not any(one.refused_until_ms(name) for name in others)
    publish(board, Listed(b"GET /a?1", True, 1))
    assert one.refused_until_ms(b"GET /a?1") is None
    publish(board)
    assert one.refused_until_ms(b"GET /b") is None


def test_a_list_that_is_being_written_is_read_later(board: Scoreboard, workers: list[Recorder]) -> None:
    """The number is odd meanwhile: what was known before is known still."""
    one = workers[0]
    publish(board, Listed(b"GET /a", True, LATER_MS))
    assert one.refused_until_ms(b"GET /a")
    assert board.recorders is not None
    words = board.recorders._region.words
    words[0] += 1
    words[16] = 0
    assert one.refused_until_ms(b"GET /a")
    words[0] += 1
    assert one.refused_until_ms(b"GET /a") is None


def test_a_suspect_that_comes_to_its_end_is_told_of(board: Scoreboard, workers: list[Recorder]) -> None:
    """By whichever worker, with its route, for as long as the list is the same."""
    one, other = workers
    suspects = (Listed(b"GET /a?1", False), Listed(route_of(b"GET /a"), False), Listed(b"GET /b", False))
    publish(board, *suspects)
    for worker in workers:
        assert worker.refused_until_ms(b"GET /") is None  # a look at the list
    other.end(run(other, b"GET /a?1"), b"GET /a?1")
    other.give_up(run(other, b"GET /b"))
    assert board.give_back(0).ended == (b"GET /a?1", route_of(b"GET /a"))
    publish(board, *suspects)
    assert board.give_back(0).ended == ()
    assert one.refused_until_ms(b"GET /") is None
    one.end(run(one, b"GET /a?7"), b"GET /a?7")
    assert board.give_back(1).ended == (route_of(b"GET /a"),)


def test_a_word_that_was_meant_for_another_list_says_nothing(
    board: Scoreboard, workers: list[Recorder]
) -> None:
    """The worker has not looked since."""
    one = workers[0]
    publish(board, Listed(b"GET /a", False))
    one.refused_until_ms(b"GET /")
    publish(board, Listed(b"GET /innocent", False))
    one.end(run(one, b"GET /a"), b"GET /a")
    assert board.give_back(1).ended == ()


def test_a_full_list(board: Scoreboard, workers: list[Recorder]) -> None:
    """What is beyond its end is left out, and the next one is shorter."""
    one = workers[0]
    names = [b"GET /%d" % number for number in range(MOST_LISTED + 5)]
    publish(board, *(Listed(name, True, LATER_MS) for name in names))
    assert sum(one.refused_until_ms(name) is not None for name in names) == MOST_LISTED
    publish(board, Listed(names[0], True, LATER_MS))
    assert [name for name in names if one.refused_until_ms(name)] == [names[0]]


def test_what_is_refused_is_counted_and_stays_so(board: Scoreboard, workers: list[Recorder]) -> None:
    """A sum that never goes back."""
    one, other = workers
    one.count_refused()
    one.count_refused()
    other.count_refused()
    assert board.refused() == 3
    board.give_back(0)
    assert board.refused() == 3


def test_the_first_refusal_of_a_line_is_told_and_no_other(board: Scoreboard, workers: list[Recorder]) -> None:
    """Or else whoever asks could fill the log; also with a query that varies."""
    one = workers[0]
    publish(board, Listed(b"GET /a?1", True, LATER_MS), Listed(route_of(b"GET /b"), True, LATER_MS))
    one.refused_until_ms(b"GET /")
    asked = (b"GET /a?1", b"GET /a?1", b"GET /b?1", b"GET /b?2")
    assert [one.is_first_refusal(name) for name in asked] == [True, False, True, False]


def test_names_differ_where_requests_do() -> None:
    """However long they are."""
    assert name_of("GET", b"/a?b=c") == b"GET /a?b=c"
    long = b"/" + b"x" * 300
    found = {name_of(method, long + end) for method in ("GET", "POST") for end in (b"", b"?1", b"?2")}
    assert len(found) == 6
    assert {len(name) for name in found} == {NAME_BYTES}
    fits = b"/" + b"x" * (NAME_BYTES - 5)
    assert name_of("GET", fits) == b"GET " + fits
    assert name_of("GET", fits + b"x") != b"GET " + fits + b"x"


def test_the_longest_name_has_room_for_its_route(board: Scoreboard, workers: list[Recorder]) -> None:
    name = name_of("GET", b"/" + b"x" * 300)
    publish(board, Listed(route_of(name), True, LATER_MS), Listed(b"GET /b", True, LATER_MS))
    assert workers[0].refused_until_ms(name)
    assert workers[0].refused_until_ms(b"GET /b")


def test_a_list_that_is_taken_in_clears_nobody_for_another(
    board: Scoreboard, workers: list[Recorder]
) -> None:
    """In the midst of it a thread of the pool ends a request that stood, on the list before, where another stands now."""
    worker = workers[0]
    publish(board, Listed(b"GET /a", False))
    assert worker.refused_until_ms(b"GET /a") is None
    at = run(worker, b"GET /a")

    class Interrupted(Recorder):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "number":
                worker.end(at, b"GET /a")

    publish(board, Listed(b"GET /b", False))
    worker.__class__ = Interrupted
    assert worker.refused_until_ms(b"GET /b") is None
    worker.__class__ = Recorder
    gone = board.take()
    assert gone is not None
    assert board.give_back(gone).ended == ()


def test_names_on_the_shared_line_are_never_mixed(board: Scoreboard) -> None:
    """Thirty wait, a thread runs a request, and dies of it just when another one has written a longer name."""
    entry = board.take()
    assert entry is not None
    worker = Entry(board.fileno(), entry)
    assert worker.recorder is not None
    for nth in range(SLOTS - 1):
        wait(worker.recorder, b"GET /%d" % nth)
    run(worker.recorder, b"GET /report?id=5")
    worker.recorder.begin(b"GET /reports/of/last/year")
    worker.close()
    assert board.give_back(entry).running == ()
