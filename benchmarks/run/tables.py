"""The tables of a page, each under a name, from a run. Pure.

A page holds each between `<!-- table: NAME -->` and `<!-- end -->`; what a run has nothing for stays as it is.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.run.figures import Figure, Run, goals_table, groups, number, range_of, table
from benchmarks.run.plots import IN_FULL, overview, plots

_BLOCK: Final = re.compile(r"(<!-- table: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD: Final = "run"
"""What was run: on what, how much, beside whom."""
LONGEST_REASON: Final = 60
PARTS: Final = ("http", "supervision", "shared")


def tables(run: Run) -> dict[str, str]:
    """Name and Markdown of each table that this run can fill."""
    found = {HEAD: _head(run)}
    beside = groups(run.figures)
    in_full = [(x.part, x.scenario, x.setting) for x in run.figures if x.scenario in IN_FULL]
    for part, scenario, setting in dict.fromkeys(in_full):
        measures = {key[3]: each for key, each in beside.items() if key[:3] == (part, scenario, setting)}
        found[setting] = _by_subject(measures)
    scenarios = [
        each
        for (part, scenario, _, measure), each in beside.items()
        if part == "http"
        and scenario not in IN_FULL
        and measure in ("CPU time of a request", "memory of each")
    ]
    found["http scenarios"] = _by_measure(scenarios, has_measure=False)
    for part in PARTS[1:]:
        mine = [each for key, each in beside.items() if key[0] == part]
        found[part] = _by_measure(mine, has_measure=True)
    for part in PARTS:
        verdicts = [each for each in run.verdicts if each.part == part]
        found[f"{part} goals"] = goals_table(verdicts) if verdicts else ""
    return {name: text for name, text in found.items() if text}


def pictures(run: Run) -> dict[str, str]:
    """Name and Markdown of the pictures that belong to each part, as `drawing.draw` names them."""
    found: dict[str, list[str]] = {}
    shown = [("http", "overview", "CPU time of a request, beside prefork's")] if overview(run) else []
    shown += [(each.name.partition("-")[0], each.name, each.title) for each in plots(run)]
    for part, name, title in shown:
        found.setdefault(f"{part} plots", []).append(f"![{title}](img/bench-{name}.svg)")
    return {name: "\n\n".join(images) for name, images in found.items()}


def filled(page: str, run: Run, *, has_plots: bool = False) -> str:
    """The page with its tables from this run, and its pictures if there are any."""
    made = {**tables(run), **(pictures(run) if has_plots else {})}

    def replaced(match: re.Match[str]) -> str:
        text = made.get(match["name"])
        return match[0] if text is None else f"{match[1]}{text}\n{match[3]}"

    return _BLOCK.sub(replaced, page)


def _head(run: Run) -> str:
    lines = [f"{run.taken}, {run.machine}, load {run.load_before:.1f} before; {run.effort}."]
    lines += [f"Peers: {', '.join(run.peers)}."] if run.peers else []
    lines += [f"Missing: {'; '.join(run.missing)}."] if run.missing else []
    lines += [f"Left out: {'; '.join(run.left_out)}."] if run.left_out else []
    return "\n\n".join(lines)


def cell(figure: Figure) -> str:
    """Median and range; of one that failed, why."""
    if not figure.values:
        return textwrap.shorten(figure.failure, LONGEST_REASON, placeholder=" …") or "-"
    between = range_of(figure.values, "\N{EN DASH}")
    text = number(figure.median) + (f" ({between})" if between else "")
    return f"**{text}**" if figure.is_ours else text


def _by_subject(measures: Mapping[str, Sequence[Figure]]) -> str:
    """A line for each subject, the cheapest first; a column for each measure."""
    first = next(iter(measures.values()))
    order = sorted(first, key=lambda each: (not each.values, each.median if each.values else 0.0))
    units = {measure: next((x.unit for x in found if x.values), "") for measure, found in measures.items()}
    head = ["", *(f"{measure}, {units[measure]}" for measure in measures)]
    rows = []
    for each in order:
        here = [next((x for x in found if x.who == each.who), None) for found in measures.values()]
        name = f"**{each.who}**" if each.is_ours else each.who
        rows.append([name, *("-" if one is None else cell(one) for one in here)])
    return table(head, rows)


def _by_measure(found: Sequence[Sequence[Figure]], *, has_measure: bool) -> str:
    """A line for each measure, a column for each subject."""
    subjects = list(dict.fromkeys(each.who for figures in found for each in figures))
    rows = []
    for figures in found:
        by_name = {each.who: each for each in figures}
        unit = next((each.unit for each in figures if each.values), "")
        what = figures[0].what if has_measure else figures[0].setting
        goal = next((each.goal for each in figures if each.goal), "")
        cells = ["" if who not in by_name else cell(by_name[who]) for who in subjects]
        # The scenario is the word that measures it anew.
        more = [goal] if has_measure else []
        rows.append([what + (f", {unit}" if unit else ""), *cells, *more, f"`{figures[0].scenario}`"])
    head = ["", *subjects, *(["goal"] if has_measure else []), "scenario"]
    return table(head, rows) if rows else ""
