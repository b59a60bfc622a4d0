"""Who is to blame when workers die, and who is not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.master.refusals import (
    FORGOTTEN_S,
    MOST_KEPT,
    Refusal,
    Refusals,
    after_death,
    expired,
    readable,
    shown,
)
from prefork.recorder import MOST_LISTED, LastWords, Listed, route_of

POISON = b"GET /report?id=5"
OTHER = b"GET /report?id=6"
BYSTANDER = b"GET /"
LONG_POLL = b"GET /poll?client=7"


@dataclass
class Court:
    """Holds what is held, and says who was refused."""

    most: int = 3
    now_s: float = 1000.0
    held: Refusals = field(default_factory=Refusals)

    def death(
        self,
        *running: bytes,
        waiting: tuple[bytes, ...] = (),
        ended: tuple[bytes, ...] = (),
        has_hung: bool = False,
    ) -> bytes | None:
        words = LastWords(running, waiting, ended)
        self.held, refusal = after_death(self.held, words, self.most, self.now_s, has_hung=has_hung)
        return None if refusal is None else refusal.name

    @property
    def suspects(self) -> set[bytes]:
        return {each.name for each in self.held.listed() if not each.is_refused}


def test_the_request_that_ran_is_refused_when_it_has_killed_so_many() -> None:
    """And not one earlier."""
    court = Court(most=3)
    assert [court.death(POISON) for _ in range(3)] == [None, None, POISON]
    assert court.held.refused == (Refusal(POISON, 1000.0, 3),)


def test_one_that_comes_to_its_end_once_is_cleared_of_all_before() -> None:
    """A route of which one body kills works for all others; who is refused has killed in a row."""
    court = Court(most=2)
    for _ in range(20):
        assert court.death(BYSTANDER, ended=(BYSTANDER, route_of(BYSTANDER))) is None
    assert court.death(BYSTANDER) == BYSTANDER


def test_who_only_waited_is_no_suspect_where_somebody_ran() -> None:
    """However often it was there."""
    court = Court(most=2)
    court.death(POISON, waiting=(LONG_POLL, BYSTANDER))
    assert court.suspects == {POISON, route_of(POISON)}
    assert court.death(POISON, waiting=(LONG_POLL, BYSTANDER)) == POISON


def test_where_nobody_ran_those_that_waited_count_half() -> None:
    """The work of one was in a thread of the application's own, perhaps: twice as many deaths are wanted."""
    court = Court(most=2)
    assert [court.death(waiting=(POISON,)) for _ in range(4)] == [None, None, None, POISON]
    assert [each.deaths for each in court.held.refused] == [4]


def test_of_two_that_always_die_together_neither_is_refused() -> None:
    """Before one of them is seen without the other: then the other was never to blame."""
    court = Court(most=2)
    for _ in range(20):
        assert court.death(waiting=(POISON, LONG_POLL)) is None
    assert court.death(waiting=(POISON,)) == POISON
    assert not court.suspects & {LONG_POLL, route_of(LONG_POLL)}


def test_of_several_threads_none_is_known_to_be_the_one() -> None:
    """Each counts half; who is served clears itself."""
    court = Court(most=2)
    assert court.death(POISON, BYSTANDER) is None
    assert court.death(POISON, OTHER, ended=(BYSTANDER, route_of(BYSTANDER))) is None
    assert court.death(POISON, BYSTANDER) is None
    assert court.death(POISON, BYSTANDER, ended=(BYSTANDER,)) == POISON


def test_a_worker_that_hung_accuses_nobody_who_waited() -> None:
    """What blocks a loop runs on it."""
    court = Court(most=1)
    assert court.death(waiting=(BYSTANDER,), has_hung=True) is None
    assert not court.suspects
    assert court.death(POISON, has_hung=True) == POISON


def test_a_worker_that_died_of_no_request_accuses_nobody() -> None:
    court = Court(most=1)
    assert court.death() is None
    assert court.held == Refusals()


def test_a_query_that_varies_is_seen_through() -> None:
    """Different queries of one path, and none of them ever comes to its end: method and path are refused."""
    court = Court(most=3)
    court.death(b"GET /report?x=1")
    court.death(b"GET /report?x=2")
    assert court.death(b"GET /report?x=3") == b"GET /report ?*"


def test_a_single_query_is_refused_alone() -> None:
    """Its route serves others."""
    court = Court(most=2)
    court.death(POISON)
    assert court.death(POISON, ended=(route_of(POISON),)) == POISON
    assert court.death(OTHER, ended=(route_of(POISON),)) is None


def test_a_route_whose_single_query_was_refused_is_watched_on() -> None:
    """One query was told from its route; if another kills too, and nobody was served, it is the route."""
    court = Court(most=2)
    court.death(POISON)
    court.death(POISON)
    assert court.death(OTHER) == route_of(OTHER)


def test_another_method_is_another_request() -> None:
    court = Court(most=2)
    court.death(b"GET /x")
    assert court.death(b"POST /x") is None


def test_one_that_was_let_in_before_it_was_refused_is_no_news() -> None:
    """Two of them killed two workers at once."""
    court = Court(most=1)
    assert court.death(POISON) == POISON
    assert court.death(POISON) is None
    assert len(court.held.refused) == 1


def test_after_an_hour_it_is_let_in_on_trial() -> None:
    """One death more is enough; one that comes to its end is forgiven."""
    court = Court(most=3)
    for _ in range(3):
        court.death(POISON)
    assert court.held.due_s == court.now_s + FORGOTTEN_S
    court.now_s += FORGOTTEN_S
    court.held, lifted = expired(court.held, court.most, court.now_s)
    assert [each.name for each in lifted] == [POISON]
    assert not court.held.refused
    forgiven = Court(3, court.now_s, court.held)
    assert court.death(POISON) == POISON
    assert forgiven.death(POISON, ended=(POISON,)) is None


def test_a_death_is_forgotten_after_an_hour() -> None:
    """And then there is nothing to wait for."""
    court = Court(most=2)
    court.death(POISON)
    court.now_s += FORGOTTEN_S
    court.held, lifted = expired(court.held, court.most, court.now_s)
    assert (court.held, lifted) == (Refusals(), ())
    assert court.held.due_s == math.inf
    assert court.death(POISON) is None


def test_workers_are_told_until_when() -> None:
    """In milliseconds of the clock that they share; suspects behind what is refused."""
    court = Court(most=1)
    court.death(POISON)
    assert court.held.listed() == (
        Listed(POISON, True, int((1000 + FORGOTTEN_S) * 1000)),
        Listed(route_of(POISON), False),
    )


def test_all_is_bounded_and_those_who_killed_often_are_kept() -> None:
    """However many were there once."""
    court = Court(most=3)
    for number in range(2 * MOST_KEPT):
        waiting = tuple(b"GET /%d?%d" % (number, each) for each in range(30))
        assert court.death(waiting=(POISON, *waiting)) in (None, POISON)
        assert len(court.held.listed()) <= MOST_LISTED
        assert len(court.held.deaths) <= MOST_KEPT
        if number == 5:
            assert [each.name for each in court.held.refused] == [POISON]


names = st.sampled_from([POISON, OTHER, BYSTANDER, LONG_POLL, b"POST /x", b"GET /x?1", b"GET /x?2"])


@given(
    st.lists(st.tuples(st.lists(names, max_size=3), st.lists(names, max_size=3), st.sets(names))),
    st.integers(1, 4),
)
def test_nobody_is_refused_who_was_there_at_fewer_deaths(
    story: list[tuple[list[bytes], list[bytes], set[bytes]]], most: int
) -> None:
    """Whatever happens: so many deaths, since the last of its kind came to its end."""
    court = Court(most)
    seen: dict[bytes, int] = {}
    for running, waiting, ended in story:
        gone = {each for name in ended for each in (name, route_of(name))}
        for name in gone:
            seen[name] = 0
        for name in {each for x in running or waiting for each in (x, route_of(x))}:
            seen[name] = seen.get(name, 0) + 1
        refused = court.death(*running, waiting=tuple(waiting), ended=tuple(gone))
        assert refused is None or seen[refused] >= most


@pytest.mark.parametrize(
    ("name", "in_log", "elsewhere"),
    [
        (b"GET /a", "GET /a", "GET /a"),
        (b"GET /a?token=s", "GET /a?token=s", "GET /a?…"),
        (b"GET /a ?*", "GET /a with any query", "GET /a with any query"),
        (b"GET /\x1b[2J\xff", r"GET /\x1b[2J\xff", r"GET /\x1b[2J\xff"),
    ],
)
def test_how_a_name_is_read(name: bytes, in_log: str, elsewhere: str) -> None:
    """The log has the query; what strangers may see has not. No byte reaches a terminal that a client chose for it."""
    assert (readable(name), shown(name)) == (in_log, elsewhere)
