"""Which figures a plot shows, in which order, on which scale; and the tables of a page."""

from __future__ import annotations

import math

from benchmarks.run.figures import Figure, Run
from benchmarks.run.plots import COSTS, LOSSES, family, overview, panel, plots
from benchmarks.run.tables import filled, tables
from benchmarks.supervision.part import SCENARIOS

COST = "CPU time of a request"


def cost(
    who: str, *values: float, setting: str = "hello world, 64 connections", scenario: str = "hello"
) -> Figure:
    failure = "" if values else "did not start: no"
    return Figure("http", scenario, setting, COST, who, "µs", values, who.startswith("prefork"), failure)


def state(who: str, *values: float) -> Figure:
    return Figure("shared", "calls", "", "get", who, "µs", values, who == "prefork")


RUN = Run(
    "2026-11-27",
    "2 cores",
    "quick",
    peers=("uvicorn 1",),
    figures=[
        cost("uvicorn", 30.0, 28.0, 35.0),
        cost("prefork ASGI", 12.0, 11.0),
        cost("prefork WSGI", 10.0),
        cost("Go fasthttp prefork"),
        cost("uvicorn", 300.0, setting="large, 64 connections", scenario="large"),
        cost("prefork ASGI", 100.0, setting="large, 64 connections", scenario="large"),
        state("prefork", 1.1),
        state("Redis", 35.0),
        Figure("shared", "rest", "", "lock", "prefork", "µs", (9.0,), is_ours=True),
    ],
)


def test_the_best_is_on_top_and_the_failed_at_the_bottom() -> None:
    """Who did not do the work is shown, with the reason."""
    made = panel("x", RUN.figures[:4])
    assert [bar.who for bar in made.bars] == [
        "prefork WSGI",
        "prefork ASGI",
        "uvicorn",
        "Go fasthttp prefork",
    ]
    assert made.bars[2].label == "30 (28 to 35)"
    assert (made.bars[2].low, made.bars[2].high) == (28.0, 35.0)
    assert math.isnan(made.bars[3].median)
    assert made.bars[3].label == "did not start: no"
    assert [bar.is_ours for bar in made.bars] == [True, True, False, False]


def test_where_more_is_better_the_most_is_on_top() -> None:
    """Requests a second, hits."""
    rates = [
        Figure("http", "hello", "", "rate", who, "requests/s", (value,))
        for who, value in (("a", 1), ("b", 2))
    ]
    assert [bar.who for bar in panel("x", rates).bars] == ["b", "a"]


def test_a_scale_is_logarithmic_only_where_it_must_be() -> None:
    """From thirty times on, and never with nothing at its end."""
    assert not panel("x", [state("a", 1.0), state("b", 29.0)]).is_log
    assert panel("x", [state("a", 1.0), state("b", 31.0)]).is_log
    assert not panel("x", [state("a", 0.0), state("b", 31.0)]).is_log


def test_pictures_of_a_run() -> None:
    """One of hello world for each number of connections, one for each part that has something beside us."""
    made = {plot.name: plot for plot in plots(RUN)}
    assert list(made) == ["http-hello-64", "http-scenarios", "shared"]
    assert [each.title for each in made["shared"].panels] == ["get"]


def test_every_scenario_of_supervision_has_its_picture() -> None:
    """A new one is not forgotten."""
    assert sorted(COSTS + LOSSES) == sorted(SCENARIOS)


def test_the_overview_counts_the_best_of_each_family() -> None:
    """As multiples of our own best; who was not measured is not in it."""
    first, second = overview(RUN)
    assert first.times == {"uvicorn": 3.0, "prefork": 1.0}
    assert second.times == {"uvicorn": 3.0, "prefork": 1.0}
    assert (family("granian RSGI"), family("exact LRU")) == ("granian", "")


def test_a_page_gets_its_tables_and_nothing_else() -> None:
    """What the run has nothing for stays as it is, and so do the words around."""
    page = "# A\n<!-- table: http scenarios -->\nold\n<!-- end -->\nB\n<!-- table: supervision -->\nkept\n<!-- end -->\n"
    made = filled(page, RUN)
    assert made.startswith("# A\n<!-- table: http scenarios -->\n|")
    assert "| large, 64 connections, µs | 300 " in made
    assert "**100**" in made
    assert made.endswith("<!-- end -->\nB\n<!-- table: supervision -->\nkept\n<!-- end -->\n")
    assert "old" not in made
    assert filled(made, RUN) == made


def test_a_page_gets_its_pictures_if_there_are_any() -> None:
    """By the names under which they are written."""
    page = "<!-- table: http plots -->\n<!-- end -->\n"
    assert filled(page, RUN) == page
    made = filled(page, RUN, has_plots=True)
    names = [f"bench-{each.name}.svg" for each in plots(RUN) if each.name.startswith("http")]
    assert [name for name in ("bench-overview.svg", *names) if f"](img/{name})" not in made] == []


def test_a_table_has_the_cheapest_first() -> None:
    """And the failed last, with the reason."""
    lines = tables(RUN)["hello world, 64 connections"].splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == ["**prefork WSGI**", "**prefork ASGI**", "uvicorn", "Go fasthttp prefork"]
    assert "did not start: no" in lines[-1]


def test_the_head_says_what_was_run() -> None:
    """Machine, effort, peers: without them a figure means nothing."""
    assert "2 cores" in tables(RUN)["run"]
    assert "quick" in tables(RUN)["run"]
    assert "uvicorn 1" in tables(RUN)["run"]
