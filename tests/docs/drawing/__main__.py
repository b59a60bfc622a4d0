"""Draw all of it anew: `python -m tests.docs.drawing`, which is part of `make docs-reference`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.drawing import sequence, signals, states
from tests.docs.drawing.stories import DRAWN

DOCS = Path(__file__).resolve().parents[3] / "docs"
PICTURES = DOCS / "img" / "drawn"


def pictures() -> dict[str, str]:
    """Every picture, by the name of its file."""
    drawn = {f"{name}.svg": sequence.draw(story) for name, story in DRAWN.items()}
    return {**drawn, "phases.svg": states.draw()}


def tables() -> dict[tuple[str, str], str]:
    """Every table, by its page and the name that its place there has."""
    return {("how-it-works.md", "phases"): states.table(), ("signals.md", "signals"): signals.table()}


def with_table(page: str, name: str, table: str) -> str:
    """The page with the table in its place, between two comments. Raises ValueError if it has none."""
    place = re.compile(rf"(<!-- drawn: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if place.search(page) is None:
        raise ValueError(
            f"the page has no place for the table {name!r}: <!-- drawn: {name} --> ... <!-- end -->"
        )
    return place.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", page)


def write() -> None:
    """Write all of it into docs/."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    for name, svg in pictures().items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
    for (page, name), table in tables().items():
        path = DOCS / page
        path.write_text(with_table(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")


if __name__ == "__main__":
    write()
