"""What is plotted: which figures beside each other, in which order, on which scale. Pure.

Not here: how it is drawn (drawing.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.run.figures import Figure, Run, groups, number, range_of

IN_FULL: Final = ("hello", "hello-apart")
"""Scenarios of HTTP that are shown by themselves, with all that was measured."""

LOG_FROM: Final = 30.0
"""How many times as much the most must be as the least before a logarithmic scale is the clearer one."""
MORE_IS_BETTER: Final = frozenset({"rate", "hits"})
NEITHER: Final = frozenset({"reloads that were done", "workers recycled"})
"""What was done while something else was measured: in the tables, and in no picture."""
COSTS: Final = ("start", "memory", "replacement", "idle", "balance")
LOSSES: Final = ("reloads", "kills", "queue", "recycles", "orphans", "term")
"""Scenarios of supervision: one picture of all would be too long to look at."""
FAMILIES: Final = (
    ("prefork", "prefork"),
    ("Go fasthttp", "Go fasthttp"),
    ("nginx", "nginx"),
    ("uvicorn", "uvicorn"),
    ("granian", "granian"),
    ("gunicorn", "gunicorn"),
    ("hypercorn", "hypercorn"),
    ("fastpysgi", "fastpysgi"),
    ("socketify", "socketify"),
)
"""Beginnings of subjects' names, and whose they are."""
_HTTP_PANELS: Final = ("CPU time of a request", "rate", "p99", "memory of all processes")


@dataclass(frozen=True, slots=True)
class Bar:
    """One subject: its median with the range, or why there is none."""

    who: str
    median: float
    low: float
    high: float
    is_ours: bool
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Subjects beside each other in one measure, the best one first."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    is_log: bool
    is_more_better: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture."""

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the overview: how many times as much as the best of ours each family needs, its best member counted."""

    title: str
    times: dict[str, float]


def panel(title: str, figures: Sequence[Figure]) -> Panel:
    """The figures of one measure."""
    is_more_better = figures[0].measure in MORE_IS_BETTER
    unit = next((each.unit for each in figures if each.values), "")
    bars = [_bar(each) for each in figures]
    sign = -1 if is_more_better else 1
    bars.sort(key=lambda bar: math.inf if math.isnan(bar.median) else sign * bar.median)
    known = [bar.median for bar in bars if not math.isnan(bar.median)]
    is_log = len(known) > 1 and min(known) > 0 and max(known) / min(known) >= LOG_FROM
    return Panel(title, unit, tuple(bars), is_log, is_more_better)


def _bar(figure: Figure) -> Bar:
    if not figure.values:
        return Bar(figure.who, math.nan, math.nan, math.nan, figure.is_ours, figure.failure or "not measured")
    low, high = min(figure.values), max(figure.values)
    between = range_of(figure.values)
    label = number(figure.median) + (f" ({between})" if between else "")
    return Bar(figure.who, figure.median, low, high, figure.is_ours, label)


def plots(run: Run) -> Iterator[Plot]:
    """All pictures of a run that have something to show."""
    head = run_in_short(run)
    yield from _hello(run, head)
    others = [
        panel(setting, found)
        for (part, scenario, setting, measure), found in groups(run.figures).items()
        if part == "http" and scenario not in IN_FULL and measure in (_HTTP_PANELS[0], "memory of each")
    ]
    yield from _plot("http-scenarios", f"HTTP: CPU time of a request, 2 workers. {head}", others)
    yield from _plot("supervision-costs", f"What a fleet costs. {head}", _beside(run, "supervision", COSTS))
    yield from _plot("supervision-losses", f"What a fleet loses. {head}", _beside(run, "supervision", LOSSES))
    yield from _plot("shared", f"State that all workers see. {head}", _beside(run, "shared"))


def run_in_short(run: Run) -> str:
    """Where, when, how much, and beside how much else: a picture may be shown without its page."""
    return f"{run.machine}, load {run.load_before:.1f} before, {run.taken}, {run.effort}"


def _hello(run: Run, head: str) -> Iterator[Plot]:
    found: dict[str, list[Panel]] = {}
    for (part, scenario, setting, measure), figures in groups(run.figures).items():
        if (part, scenario) == ("http", "hello") and measure in _HTTP_PANELS:
            found.setdefault(setting, []).append(panel(measure, figures))
    for setting, panels in found.items():
        connections = setting.rpartition(", ")[2].partition(" ")[0]
        yield from _plot(f"http-hello-{connections}", f"{setting}, 2 workers. {head}", panels)


def _beside(run: Run, part: str, scenarios: Sequence[str] = ()) -> list[Panel]:
    """Measures of a part (or of some of its scenarios) in which somebody is beside us."""
    return [
        panel(f"{setting}: {measure}" if setting else measure, found)
        for (of, scenario, setting, measure), found in groups(run.figures).items()
        if of == part
        and (scenario in scenarios or not scenarios)
        and measure not in NEITHER
        and sum(bool(each.values) for each in found) > 1
    ]


def _plot(name: str, title: str, panels: Sequence[Panel]) -> Iterator[Plot]:
    if panels:
        yield Plot(name, title, tuple(panels))


def family(who: str) -> str:
    """Whose a subject is; "" for others."""
    return next((name for beginning, name in FAMILIES if who.startswith(beginning)), "")


def overview(run: Run) -> list[Row]:
    """CPU time of a request in each HTTP setting, as multiples of our best."""
    rows = []
    for (part, _, setting, measure), found in groups(run.figures).items():
        if part == "http" and measure == _HTTP_PANELS[0]:
            best = _best(found)
            if "prefork" in best and len(best) > 1:
                rows.append(Row(setting, {name: value / best["prefork"] for name, value in best.items()}))
    return rows


def _best(figures: Iterable[Figure]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in figures:
        if each.values and (whose := family(each.who)):
            found[whose] = min(found.get(whose, math.inf), each.median)
    return found
