"""The tables and pictures of the pages, from a run.

    python -m benchmarks --json build/bench.json
    python -m benchmarks.page build/bench.json

writes the tables of docs/benchmarks.md anew, between the marks that name them, and docs/img/bench-*.svg. What the run has nothing
for stays as it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.run.figures import NoRunError, Run
from benchmarks.run.places import ROOT
from benchmarks.run.tables import filled

PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "img"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit status 2 for a file that is no run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="pages, from a run")
    parser.add_argument("run", type=Path, help="what --json has written")
    parser.add_argument("pages", type=Path, nargs="*", default=[PAGE], help="default: docs/benchmarks.md")
    parser.add_argument("--no-plots", action="store_true", help="tables alone")
    given = parser.parse_args(arguments)
    try:
        run = Run.from_json(given.run.read_text(encoding="utf-8"))
    except (OSError, NoRunError) as error:
        parser.error(f"{given.run}: {error}")
    for page in given.pages:
        page.write_text(
            filled(page.read_text(encoding="utf-8"), run, has_plots=not given.no_plots), encoding="utf-8"
        )
        print(page)
    if not given.no_plots:
        from benchmarks.run.drawing import draw  # noqa: PLC0415  (matplotlib is not everywhere)

        with tempfile.TemporaryDirectory() as directory:
            for path in draw(run, Path(directory)):
                target = IMAGES / f"bench-{path.name}"
                target.write_bytes(path.read_bytes())
                print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
