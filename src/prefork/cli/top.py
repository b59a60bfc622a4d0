"""`preforkctl top`: a fleet as it is just now, again and again, until Ctrl-C.

Two looks make a rate; what they mean is `observe.figures`', so this and the dashboard show the same. A call for each look:
an upgrade takes the control socket over, and the next look is at the new master.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

import click

from prefork import control
from prefork.cli.status import duration
from prefork.errors import ConfigError
from prefork.observe.figures import LONGEST_GAP_S, Figures, Looks, Pace
from prefork.observe.status import as_json
from prefork.observe.usage import Usage, Usages
from prefork.system import Meter

Ask = Callable[[], control.StatusReport]
Seen = tuple[Figures, dict[int, Usage]]

COLUMNS: Final = (
    "SLOT",
    "PID",
    "GEN",
    "STATE",
    "AGE",
    "REQ/S",
    "REQUESTS",
    "FLIGHT",
    "CONN",
    "P50",
    "P99",
    "CPU",
    "MEMORY",
)
NARROW: Final = 100
LEFT_OUT: Final = frozenset({"GEN", "REQUESTS", "FLIGHT"})
"""Columns that a narrow terminal goes without."""
_MIB: Final = 1024**2
_GIB: Final = 1024**3
_NONE: Final = "-"
_EVENTS: Final = 5
_TROUBLE: Final = frozenset({"crash", "hung", "failed", "refused", "admin"})


def top(ask: Ask, interval_s: float, *, is_once: bool, is_json: bool) -> None:
    """Show the fleet until somebody interrupts, or once. Blocks. Raises ConfigError without rich, and what `ask` raises."""
    seen = looks(ask, interval_s)
    if is_json:
        for figures, usages in seen:
            click.echo(json.dumps(as_json(figures, usages)))
            if is_once:
                return
    elif is_once or not sys.stdout.isatty():
        console = _console()
        console.print(shown(*next(seen), console.width))
    else:
        _live(seen)


def looks(ask: Ask, interval_s: float, sleep: Callable[[float], object] = time.sleep) -> Iterator[Seen]:
    """Look after look, each with the one before: the first is not shown, because nothing can be told of its pace."""
    history, usages = Looks(gap_s=max(LONGEST_GAP_S, 3 * interval_s)), Usages(Meter())
    is_first = True
    while True:
        begun_s = time.monotonic()
        report = ask()
        figures = history.add(report)
        used = usages.look([worker.pid for worker in report.workers if worker.pid is not None], begun_s)
        if not is_first:
            yield figures, used
        is_first = False
        sleep(max(0.0, interval_s - (time.monotonic() - begun_s)))


def _live(seen: Iterator[Seen]) -> None:
    console = _console()
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        for figures, usages in seen:
            live.update(shown(figures, usages, console.width), refresh=True)


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError as error:
        raise ConfigError(
            "top draws with rich, which is not installed: pip install 'prefork[top]', or use --json"
        ) from error
    # Nothing is cut where nobody looks: a table in a file may be as wide as it is.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


# -- what is shown ------------------------------------------------------------------------------------


def shown(figures: Figures, usages: Mapping[int, Usage], width: int = 160) -> Any:
    """As rich draws it: two lines for the fleet, a line for each worker, the last events; `width` in characters."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    is_narrow = width < NARROW
    table = Table(box=None, padding=(0, 1 if is_narrow else 2, 0, 0), header_style="dim")
    kept = [index for index, name in enumerate(COLUMNS) if not (is_narrow and name in LEFT_OUT)]
    for index in kept:
        justify: Literal["left", "right"] = "left" if COLUMNS[index] == "STATE" else "right"
        table.add_column(COLUMNS[index], justify=justify, no_wrap=True)
    for worker in figures.report.workers:
        cells = row(worker, figures, usages)
        table.add_row(*(cells[index] for index in kept), style="" if worker.phase == "ready" else "yellow")
    events = [
        Text(f"{duration(event.ago_s):>7} ago  {event.kind:<8} {event.text}", _tone(event.kind))
        for event in reversed(figures.report.events[-_EVENTS:])
    ]
    tone = "bold" if figures.report.state == "serving" else "bold yellow"
    return Group(Text(title(figures), tone), Text(headline(figures, usages)), "", table, "", *events)


def _tone(kind: str) -> str:
    return "red" if kind in _TROUBLE else "dim"


def title(figures: Figures) -> str:
    """Who it is, and how it is."""
    report = figures.report
    generation = f"generation {report.generation}"
    if report.incoming is not None:
        generation += f" (trying out {report.incoming})"
    parts = [
        report.name,
        f"{report.state}, {report.ready} of {report.wanted} workers",
        generation,
        " ".join(report.addresses),
        f"master {report.pid}, up {duration(report.uptime_s)}",
    ]
    return "  ".join(part for part in parts if part)


def headline(figures: Figures, usages: Mapping[int, Usage]) -> str:
    """The whole fleet's numbers."""
    memory = sum(usage.pss_bytes or 0 for usage in usages.values())
    statuses = dict(enumerate(figures.statuses))
    queued = figures.report.queued
    return "  ".join(
        [
            f"{rate(figures.fleet.requests_per_s)} req/s",
            f"p50 {latency(figures.fleet.p50_s)}",
            f"p99 {latency(figures.fleet.p99_s)}",
            f"{figures.in_flight} in flight",
            f"{figures.connections} connections",
            f"queue {_NONE if queued is None else queued}",
            f"{figures.requests} requests ({statuses.get(5, 0)} of 5xx)",
            f"{size(memory or None)} in workers",
        ]
    )


def row(worker: control.WorkerReport, figures: Figures, usages: Mapping[int, Usage]) -> tuple[str, ...]:
    """One worker's line, by `COLUMNS`."""
    pace = figures.workers.get(worker.serial, Pace())
    usage = usages.get(worker.pid or 0, Usage(None, None))
    return (
        str(worker.slot),
        _NONE if worker.pid is None else str(worker.pid),
        str(worker.generation),
        f"{worker.phase}, worn" if worker.worn and worker.phase == "ready" else worker.phase,
        _NONE if worker.age_s is None else duration(worker.age_s),
        rate(pace.requests_per_s),
        str(worker.requests) if worker.statuses else _NONE,
        str(worker.in_flight),
        _NONE if worker.connections is None else str(worker.connections),
        latency(pace.p50_s),
        latency(pace.p99_s),
        _NONE if usage.cpu_share is None else f"{usage.cpu_share:.0%}",
        size(usage.pss_bytes),
    )


def rate(per_s: float | None) -> str:
    """A rate with as many digits as mean something: "0", "0.25", "41.7", "1234"."""
    if per_s is None:
        return _NONE
    if per_s == 0 or per_s >= 99.95:
        return f"{per_s:.0f}"
    return f"{per_s:.1f}" if per_s >= 9.995 else f"{per_s:.2f}"


def latency(seconds: float | None) -> str:
    """A time in the unit that suits it: "85 µs", "2.5 ms", "1.2 s"."""
    if seconds is None:
        return _NONE
    for unit, unit_s in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * unit_s or unit == "µs":
            number = seconds / unit_s
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    raise AssertionError("the last unit takes all")


def size(size_bytes: int | None) -> str:
    """Memory: "24 MiB", "1.50 GiB"."""
    if size_bytes is None:
        return _NONE
    return f"{size_bytes / _MIB:.0f} MiB" if size_bytes < 1000 * _MIB else f"{size_bytes / _GIB:.2f} GiB"
