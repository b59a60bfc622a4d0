"""The table of results, for a terminal and for docs/strangers.md.

Pure, but for `write`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strangers.known import Known

PAGE: Final = Path(__file__).parents[1] / "docs" / "strangers.md"
_BEGIN: Final = "<!-- written by `make strangers ARGS=--write`, from here -->"
_END: Final = "<!-- to here -->"


@dataclass(frozen=True)
class Row:
    """One suite's results."""

    suite: str
    package: str
    about: str
    cases: int
    passed: int
    meant: Mapping[str, Known]
    skipped: int = 0
    unexplained: Mapping[str, str] | None = None
    stale: tuple[str, ...] = ()
    left_out: str = ""

    @property
    def is_good(self) -> bool:
        """Nothing differs that is not written down, and nothing is written down that does not differ."""
        return not self.unexplained and not self.stale


def table(rows: Iterable[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| suite | package | cases | as it says | otherwise, and meant | skipped by itself |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.about} | {row.package} | {row.cases} | {row.passed} | {len(row.meant)} | {row.skipped or ''} |"
        for row in rows
    ]
    return "\n".join(lines)


def differences(rows: Iterable[Row]) -> str:
    """What differs and why, a list for each suite: as many cases as share a reason are one entry."""
    parts = []
    for row in rows:
        if not row.meant and not row.left_out:
            continue
        lines = [f"**{row.about}**", ""]
        reasons: dict[str, list[str]] = {}
        for case, known in row.meant.items():
            reasons.setdefault(known.why, []).append(case)
        lines += [f"- {_cases(cases)}: {why}" for why, cases in reasons.items()]
        if row.left_out:
            lines.append(f"- Left out: {row.left_out}.")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cases(cases: list[str]) -> str:
    shown = ", ".join(f"`{case}`" for case in cases[:3])
    return shown if len(cases) <= 3 else f"{len(cases)} cases ({shown}, …)"


def complaints(row: Row) -> list[str]:
    """What is wrong with a row, a line each."""
    found = [f"{row.suite}: {case}: {said}" for case, said in (row.unexplained or {}).items()]
    return found + [f"{row.suite}: {case}: written down as differing, and does not" for case in row.stale]


def put_in(page: str, text: str) -> str:
    """The page with `text` between its marks. Raises ValueError where it has none."""
    pattern = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no {_BEGIN!r} … {_END!r}")
    return pattern.sub(lambda _: f"{_BEGIN}\n\n{text}\n\n{_END}", page)


def write(rows: list[Row], page: Path = PAGE) -> None:
    """Put the results into the page."""
    text = f"{table(rows)}\n\n### What differs, and why\n\n{differences(rows)}"
    page.write_text(put_in(page.read_text(encoding="utf-8"), text), encoding="utf-8")
