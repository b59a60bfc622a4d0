"""Looks at a fleet, and what they say together: rates by the workers' own ticks, totals that never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork import control
from prefork.latency import bucket_of, end_s
from prefork.observe.figures import WINDOW_S, Figures, Looks, total


def worker(serial: int, served: int, tick_ms: int, **more: object) -> control.WorkerReport:
    """One that has answered so many requests by its last tick, each within 1 ms."""
    latencies = [0] * (bucket_of(1_000_000) + 1)
    latencies[-1] = served
    fields: dict[str, object] = {
        "slot": serial - 1,
        "pid": 500 + serial,
        "generation": 1,
        "phase": "ready",
        "age_s": 9.0,
        "is_awake": True,
        "statuses": (0, 0, served, 0, 0, 0),
        "latencies": tuple(latencies),
        **more,
    }
    return control.WorkerReport(serial=serial, tick_ms=tick_ms, **fields)  # type: ignore[arg-type]


def look(now_ms: int, *workers: control.WorkerReport, **more: object) -> control.StatusReport:
    fields: dict[str, object] = {
        "state": "serving",
        "generation": 1,
        "incoming": None,
        "wanted": 2,
        "ready": 2,
        "pid": 7,
        **more,
    }
    return control.StatusReport(workers=workers, now_ms=now_ms, **fields)  # type: ignore[arg-type]


def after(*reports: control.StatusReport) -> Figures:
    looks = Looks()
    return [looks.add(report) for report in reports][-1]


def test_one_look_says_nothing_of_pace() -> None:
    """Totals, yes."""
    figures = after(look(1000, worker(1, 30, 900)))
    assert figures.requests == 30
    assert figures.fleet.requests_per_s is None
    assert figures.fleet.p99_s is None
    assert figures.workers[1].requests_per_s is None


def test_a_rate_is_taken_between_a_workers_own_ticks() -> None:
    """Two of them between our looks, or one, make no difference."""
    one = after(look(9000, worker(1, 100, 8500)), look(10000, worker(1, 200, 9500)))
    two = after(look(9000, worker(1, 100, 8500)), look(10001, worker(1, 300, 10500)))
    assert one.fleet.requests_per_s == two.fleet.requests_per_s == 100


def test_without_a_tick_between_the_rate_is_the_last_one() -> None:
    """The next is to come."""
    figures = after(
        look(9000, worker(1, 100, 8500)), look(9600, worker(1, 150, 9500)), look(9900, worker(1, 150, 9500))
    )
    assert figures.workers[1].requests_per_s == 50


def test_a_worker_at_rest_has_none() -> None:
    """Its last tick is its last word."""
    idle = worker(1, 150, 9500, is_awake=False)
    figures = after(look(9000, worker(1, 100, 8500)), look(9600, worker(1, 150, 9500)), look(11000, idle))
    assert figures.workers[1].requests_per_s == 0


def test_a_blocked_loop_has_none() -> None:
    """It does not tell, though it is awake."""
    figures = after(
        look(9000, worker(1, 100, 8500)), look(9600, worker(1, 150, 9500)), look(12500, worker(1, 150, 9500))
    )
    assert figures.workers[1].requests_per_s == 0


def test_the_time_that_a_worker_slept_does_not_count() -> None:
    """It served nothing until we saw it at rest."""
    figures = after(look(10000, worker(1, 100, 2000, is_awake=False)), look(11000, worker(1, 150, 11000)))
    assert figures.workers[1].requests_per_s == 50


def test_a_worker_that_was_not_there_yet() -> None:
    """All it has served, it has served since."""
    figures = after(
        look(10000, worker(1, 100, 9900)), look(11000, worker(1, 100, 10900), worker(2, 40, 10800))
    )
    assert figures.workers[2].requests_per_s == 50


def test_a_reload_is_no_dip() -> None:
    """While all workers are new, and none has told, the fleet's rate is that of the last seconds."""
    steady = [look(1000 * s, worker(1, 100 * s, 1000 * s - 100)) for s in range(1, 8)]
    gone = {"gone_statuses": (0, 0, 700)}
    new = worker(2, 0, 7900, statuses=(0,) * 6)
    figures = after(*steady, look(8000, new, **gone))
    assert figures.fleet.requests_per_s == pytest.approx(75, abs=26)
    assert figures.requests == 700


def test_percentiles_are_of_the_last_seconds() -> None:
    """What was slow a minute ago is over."""
    slow = (0,) * 60 + (1000,)
    looks = Looks()
    figures = None
    for second in range(1, 30):
        fast = (100 * second, *slow[1:])
        figures = looks.add(look(1000 * second, worker(1, 0, 1000 * second, latencies=fast)))
    assert figures is not None
    assert figures.fleet.p99_s is not None
    assert figures.fleet.p99_s <= end_s(0)
    assert figures.workers[1].p50_s is not None
    assert sum(figures.latencies) == 1000 + 2900


def test_only_so_many_seconds_are_remembered() -> None:
    """The window, and the look before it."""
    looks = Looks()
    for second in range(1, 60):
        looks.add(look(1000 * second, worker(1, second, 1000 * second)))
    assert len(looks._looks) == WINDOW_S + 1


def test_after_a_long_pause_it_is_begun_anew() -> None:
    """What happened while nobody looked is no pace of just now."""
    figures = after(look(1000, worker(1, 0, 900)), look(100_000, worker(1, 9000, 99_500)))
    assert figures.fleet.requests_per_s is None
    assert figures.requests == 9000


def test_another_master_has_counters_of_its_own() -> None:
    """After an upgrade, nothing is taken from the old one's."""
    figures = after(look(1000, worker(1, 50, 900)), look(2000, worker(1, 10, 1900), pid=8))
    assert figures.requests == 10
    assert figures.fleet.requests_per_s is None


def test_what_the_gone_have_served_stays_counted() -> None:
    """And the sums are over all."""
    figures = after(
        look(
            1000,
            worker(1, 5, 900, in_flight=2, connections=3),
            worker(2, 6, 900),
            gone_statuses=(0, 0, 9, 0, 0, 1),
        )
    )
    assert figures.statuses == (0, 0, 20, 0, 0, 1)
    assert (figures.in_flight, figures.connections) == (2, 3)


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=5))
def test_a_total_is_a_sum_by_place(counts: list[list[int]]) -> None:
    """Whatever the lengths."""
    assert sum(total(*counts)) == sum(map(sum, counts))
    assert len(total(*counts)) == max(map(len, counts), default=0)
