"""`python -m strangers [NAME ...]`: strangers' collections and suites against our server, as a table.

Ends with 1 where a difference is not explained, or an explanation has no difference; with 2 where nothing could be run.
"""

from __future__ import annotations

import argparse
import sys

from strangers import known
from strangers.catalogue import COLLECTIONS, tell
from strangers.report import Row, complaints, table, write
from strangers.sources import NotToBeHadError
from strangers.suites import SUITES


def of_collection(name: str) -> Row:
    """Fetch a collection, read it, tell it to the server. Raises NotToBeHadError."""
    collection = COLLECTIONS[name]
    cases = collection.read(collection.source.folder())
    differing = tell(cases)
    verdict = known.judge(known.read(name), differing)
    return Row(
        name,
        str(collection.source),
        collection.about,
        len(cases),
        len(cases) - len(differing),
        verdict.meant,
        unexplained=verdict.unexplained,
        stale=verdict.stale,
    )


def of_suite(name: str) -> Row:
    """Fetch a suite and run it. Raises NotToBeHadError."""
    suite = SUITES[name]
    results = suite.run()
    verdict = known.judge(known.read(name), results.failed)
    return Row(
        name,
        str(suite.source),
        suite.about,
        results.run,
        results.passed,
        verdict.meant,
        skipped=len(results.skipped),
        unexplained=verdict.unexplained,
        stale=verdict.stale,
        left_out=suite.left_out,
    )


def main(words: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser("strangers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*COLLECTIONS, *SUITES, []])
    parser.add_argument("--write", action="store_true", help="put the table into docs/strangers.md, too")
    told = parser.parse_args(words)
    rows, missing = [], []
    for name in told.names or [*COLLECTIONS, *SUITES]:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            row = of_collection(name) if name in COLLECTIONS else of_suite(name)
        except NotToBeHadError as error:
            missing.append(f"{name}: left out: {error}")
            continue
        rows.append(row)
        for line in complaints(row):
            print(f"  {line}", file=sys.stderr, flush=True)
    print(table(rows))
    for line in missing:
        print(line)
    if told.write and not missing:
        write(rows)
    if not rows:
        return 2
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
