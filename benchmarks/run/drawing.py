"""Pictures of a run, as SVG: horizontal bars with ranges, ours marked; legible on light pages and on dark ones.

A picture follows the reader's `prefers-color-scheme`: drawn in light colours, with a style sheet that exchanges them. Its
background is its own, so that a page of the other kind does no harm. Text stays text, so that files stay small.

Not here: what is shown (plots.py).
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmarks.run.figures import Run
from benchmarks.run.plots import FAMILIES, Panel, Plot, Row, overview, plots, run_in_short

GROUND, INK, FAINT, GRID = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
OURS, PEER, RANGE = "#0a5fd0", "#aab4bf", "#3d444d"
FAMILY_COLOURS: Final = {
    "prefork": OURS,
    "Go fasthttp": "#00899b",
    "nginx": "#2c7a36",
    "uvicorn": "#b35900",
    "granian": "#a3379c",
    "gunicorn": "#7a6a00",
    "hypercorn": "#c2352b",
    "fastpysgi": "#6b4fc8",
    "socketify": "#8a5a44",
}
OUR_FAMILY: Final = "prefork"
DARK: Final = {
    GROUND: "#0d1117",
    INK: "#e6edf3",
    FAINT: "#9198a1",
    GRID: "#3d444d",
    OURS: "#58a6ff",
    PEER: "#545d68",
    RANGE: "#d1d9e0",
    "#00899b": "#39c5cf",
    "#2c7a36": "#56d364",
    "#b35900": "#f0883e",
    "#a3379c": "#db61db",
    "#7a6a00": "#d4b72c",
    "#c2352b": "#ff7b72",
    "#6b4fc8": "#a371f7",
    "#8a5a44": "#c69076",
}
"""What each colour becomes on a dark page."""
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prefork",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}
WIDTH_IN: Final = 11.0
BAR_IN: Final = 0.21
PANEL_IN: Final = 0.95
"""Of a panel, beside its bars: title, axis, air."""
LABEL_SHARE: Final = 0.75
"""Room for the numbers behind the bars, as a share of the longest."""


def draw(run: Run, directory: Path) -> Iterator[Path]:
    """Write all pictures of a run into the directory, and give their paths. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        if rows := overview(run):
            yield _save(_overview(rows, run), directory / "overview.svg")
        for plot in plots(run):
            yield _save(_bars(plot), directory / f"{plot.name}.svg")


def _save(canvas: Canvas, path: Path) -> Path:
    text = StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(for_both(text.getvalue()), encoding="utf-8")
    return path


def for_both(svg: str) -> str:
    """The picture with a style sheet for dark pages. Colours stand in `style` attributes, which only `!important` outdoes."""
    rules = "".join(
        f'[style*="{name}: {light}"]{{{name}:{dark} !important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    svg = re.sub(
        r"<!--.*?-->|\n\s*", lambda found: "" if found[0].startswith("<!") else "\n", svg, flags=re.DOTALL
    )
    begin, end, rest = svg.partition("<defs>")
    return f"{begin}<style>@media (prefers-color-scheme: dark){{{rules}}}</style>\n{end}{rest}"


def _bars(plot: Plot) -> Canvas:
    columns = 2 if len(plot.panels) > 1 else 1
    rows = [plot.panels[first : first + columns] for first in range(0, len(plot.panels), columns)]
    heights = [PANEL_IN + BAR_IN * max(len(panel.bars) for panel in row) for row in rows]
    canvas = Canvas(figsize=(WIDTH_IN, sum(heights) + 0.5), layout="constrained")
    canvas.suptitle(plot.title, fontsize=10, color=INK, x=0.01, ha="left")
    grid = canvas.add_gridspec(len(rows), columns, height_ratios=heights)
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            _panel(canvas.add_subplot(grid[number, column]), panel, max(len(each.bars) for each in row))
    return canvas


def _panel(axes: Any, panel: Panel, places_count: int) -> None:
    """`places_count`: of the fullest panel in this row, so that all bars are equally thick."""
    places = range(len(panel.bars))
    known = [bar.high for bar in panel.bars if not math.isnan(bar.median)]
    most = max(known, default=1.0) or 1.0
    least = min((bar.low for bar in panel.bars if bar.low > 0), default=1.0) / 2
    axes.set_xscale("log" if panel.is_log else "linear")
    # Behind the longest bar its numbers have to find room.
    right = most * (most / least) ** LABEL_SHARE if panel.is_log else most * (1 + LABEL_SHARE)
    axes.set_xlim(least if panel.is_log else 0, right)
    for place, bar in zip(places, panel.bars, strict=True):
        weight = "bold" if bar.is_ours else "normal"
        if math.isnan(bar.median):
            text = textwrap.shorten(bar.label, 58, placeholder=" …")
            axes.annotate(
                text, (0, place), (4, 0), ("axes fraction", "data"), "offset points", va="center", color=FAINT
            )
            continue
        axes.barh(place, bar.median, height=0.72, color=OURS if bar.is_ours else PEER, zorder=2)
        if bar.high > bar.low:
            axes.plot([bar.low, bar.high], [place, place], color=RANGE, linewidth=1.4, zorder=3)
        axes.annotate(
            bar.label,
            (max(bar.high, bar.median), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            weight=weight,
            fontsize=8,
        )
    axes.set_yticks(list(places), [bar.who for bar in panel.bars], fontsize=8.5)
    axes.set_ylim(places_count - 0.4, -0.6)
    _dress(axes)
    if not panel.is_log:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=not panel.unit))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    if panel.unit == "%":
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlim(0, 130)
    for tick, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        tick.set_weight("bold" if bar.is_ours else "normal")
        tick.set_color(OURS if bar.is_ours else INK)
    axes.set_title(
        textwrap.fill(panel.title, 62, replace_whitespace=False), fontsize=9, loc="left", weight="bold"
    )
    better = "more is better" if panel.is_more_better else "less is better"
    scale = ", logarithmic" if panel.is_log else ""
    axes.set_xlabel(f"{panel.unit or 'count'}{scale}; {better}", fontsize=8, loc="left")


def _dress(axes: Any) -> None:
    axes.grid(axis="x", zorder=0)
    axes.tick_params(axis="both", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.minorticks_off()


def _overview(rows: Sequence[Row], run: Run) -> Canvas:
    """A line for each scenario, a dot for each family of servers: left of the line is better than ours."""
    canvas = Canvas(figsize=(WIDTH_IN, 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_xscale("log")
    for number, (_, name) in enumerate(FAMILIES):
        # Beside each other where they cost the same.
        shift = 0.0 if name == OUR_FAMILY else (number - len(FAMILIES) / 2) * 0.045
        points = [(row.times[name], place + shift) for place, row in enumerate(rows) if name in row.times]
        if points:
            x, y = zip(*points, strict=True)
            colour = FAMILY_COLOURS[name]
            if name == OUR_FAMILY:
                axes.scatter(
                    x,
                    y,
                    s=110,
                    marker="D",
                    facecolors="none",
                    edgecolors=colour,
                    linewidths=2,
                    label=name,
                    zorder=4,
                )
            else:
                axes.scatter(x, y, s=42, color=colour, label=name, edgecolors="none", zorder=3)
    axes.axvline(1.0, color=OURS, linewidth=1, zorder=1)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    times = [value for row in rows for value in row.times.values()]
    ticks = [
        tick
        for tick in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50)
        if min(times) * 0.7 <= tick <= max(times) * 1.4
    ]
    _dress(axes)
    axes.set_xticks(ticks, [f"{tick:g} x" for tick in ticks])
    axes.set_xlabel(
        "times the CPU time of a request in prefork, the best of each family; left is better", loc="left"
    )
    title = f"CPU time of a request beside prefork's, 2 workers. {run_in_short(run)}"
    canvas.suptitle(textwrap.fill(title, 110), fontsize=10, color=INK, x=0.01, ha="left")
    canvas.legend(
        loc="outside lower center", ncols=9, frameon=False, fontsize=8, handletextpad=0.2, columnspacing=1.2
    )
    return canvas
