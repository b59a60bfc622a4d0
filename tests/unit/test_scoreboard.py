"""The page that all processes share: who is on it, and what they see of each other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from prefork.latency import BUCKETS
from prefork.scoreboard import NOT_ACCEPTING, RECORD_BYTES, Entry, Scoreboard


@pytest.fixture
def board(no_descriptor_leaks: None) -> Iterator[Scoreboard]:
    board = Scoreboard.create(3)
    try:
        yield board
    finally:
        board.close()


@pytest.fixture
def entries(board: Scoreboard) -> Iterator[list[Entry]]:
    """The entries of two workers, as they map the page themselves."""
    entries = [Entry(board.fileno(), taken) for taken in (board.take(), board.take()) if taken is not None]
    yield entries
    for entry in entries:
        entry.close()


def test_a_worker_that_has_not_said_anything_is_not_waited_for(entries: list[Entry]) -> None:
    one, _ = entries
    assert one.loads() == [NOT_ACCEPTING, NOT_ACCEPTING]
    one.set_load(0)
    assert min(one.loads()) == 0


def test_each_sees_what_the_others_say(entries: list[Entry]) -> None:
    one, other = entries
    one.set_load(7)
    other.set_load(3)
    assert one.loads() == other.loads() == [7, 3]
    other.set_not_accepting()
    assert one.loads() == [7, NOT_ACCEPTING]


def test_the_master_sees_what_each_says(board: Scoreboard, entries: list[Entry]) -> None:
    """Nothing of who accepts nothing, or never said anything."""
    one, other = entries
    one.set_load(7)
    assert (board.load(one.index), board.load(other.index)) == (7, None)
    one.set_not_accepting()
    assert board.load(one.index) is None


def test_one_is_dismissed_and_no_other(board: Scoreboard, entries: list[Entry]) -> None:
    """Whose drain is the master's will. The record's next process is not."""
    board.dismiss(1)
    assert [entry.is_dismissed for entry in entries] == [n == 1 for n in range(len(entries))]
    board.give_back(1)
    assert not entries[1].is_dismissed


def test_a_last_call_is_heard_by_all(board: Scoreboard, entries: list[Entry]) -> None:
    assert not any(entry.is_last_call for entry in entries)
    board.call_last()
    assert all(entry.is_last_call for entry in entries)


def test_who_is_gone_is_not_counted_and_its_place_is_given_again(
    board: Scoreboard, entries: list[Entry]
) -> None:
    """A worker that was killed has said nothing at its end: the master does."""
    one, other = entries
    one.set_load(2)
    other.set_load(0)
    board.give_back(other.index)
    assert one.loads() == [2]
    assert board.take() == other.index
    assert one.loads() == [2, NOT_ACCEPTING]


def test_a_place_in_the_midst_stays_until_it_is_given_again(board: Scoreboard, entries: list[Entry]) -> None:
    one, other = entries
    one.set_load(0)
    other.set_load(5)
    board.give_back(one.index)
    assert other.loads() == [NOT_ACCEPTING, 5]


def test_a_full_page_gives_none(board: Scoreboard, entries: list[Entry]) -> None:
    assert board.take() == 2
    assert board.take() is None
    board.give_back(0)
    assert board.take() == 0


def test_each_record_has_a_cache_line_of_its_own(board: Scoreboard, entries: list[Entry]) -> None:
    """What a worker writes lies within its own record; the page is the header's and theirs."""
    assert os.fstat(board.fileno()).st_size == 4 * RECORD_BYTES
    before = os.pread(board.fileno(), 4 * RECORD_BYTES, 0)
    entries[1].set_load(0x01020304)
    tell(entries[1], 255)
    after = os.pread(board.fileno(), 4 * RECORD_BYTES, 0)
    changed = {at // RECORD_BYTES for at in range(len(before)) if before[at] != after[at]}
    assert changed == {2}  # the header, then those of the first and the second


def tell(entry: Entry, count: int) -> None:
    """All that a worker can tell, each number another."""
    entry.wake()
    entry.tell(
        tick_ms=2**33 + count,
        in_flight=count + 1,
        statuses=[0, 0, count + 2, count + 3, count + 4, count + 5, 0, 0],
        latencies=[count + bucket for bucket in range(BUCKETS)],
        is_awake=True,
    )


def test_the_master_reads_what_a_worker_tells(board: Scoreboard, entries: list[Entry]) -> None:
    """Each field for itself, of each worker for itself."""
    entries[0].set_load(3)
    tell(entries[0], 10)
    told = board.told(entries[0].index)
    assert (told.connections, told.is_awake, told.tick_ms, told.in_flight) == (3, True, 2**33 + 10, 11)
    assert told.statuses == (0, 0, 12, 13, 14, 15, 0, 0)
    assert told.latencies == tuple(range(10, 10 + BUCKETS))
    assert told.requests == 54
    other = board.told(entries[1].index)
    assert (other.connections, other.is_awake, other.requests, sum(other.latencies)) == (None, False, 0, 0)


def test_what_was_served_outlives_who_has_served_it(board: Scoreboard, entries: list[Entry]) -> None:
    """A sum over those who are there and those who are gone never goes back, and counts nobody twice."""
    for count, entry in ((1, entries[0]), (2, entries[1])):
        tell(entry, count)
        board.give_back(entry.index)
    gone = board.told_by_the_gone()
    assert gone.statuses == (0, 0, 7, 9, 11, 13, 0, 0)
    assert gone.latencies == tuple(3 + 2 * bucket for bucket in range(BUCKETS))
    again = board.take()
    assert again is not None
    assert board.told(again).requests == 0
    assert entries[0].loads() == [NOT_ACCEPTING]


def test_a_page_of_another_version_is_refused(board: Scoreboard) -> None:
    os.pwrite(board.fileno(), b"\xff", 0)
    with pytest.raises(ValueError, match="another version"):
        Entry(board.fileno(), 0)


def test_workers_keep_the_page_when_the_master_lets_go(no_descriptor_leaks: None) -> None:
    board = Scoreboard.create(1)
    entry = Entry(board.fileno(), board.take() or 0)
    board.close()
    board.close()
    entry.set_load(4)
    assert entry.loads() == [4]
    entry.close()


def test_where_the_kernel_has_no_memfd_a_removed_file_does(
    monkeypatch: pytest.MonkeyPatch, no_descriptor_leaks: None
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    board = Scoreboard.create(1)
    assert board.take() == 0
    assert not os.get_inheritable(board.fileno())
    board.close()


def test_a_page_for_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        Scoreboard.create(0)
