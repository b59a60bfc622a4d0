"""docs/how-it-works.md: the tree of processes on the page is the one that Linux shows."""

from __future__ import annotations

import re

from tests.docs.test_snippets import ROOT, find_snippets
from tests.process import procfs
from tests.process.apps import serving
from tests.process.harness import Fleet, wait_until

PAGE = ROOT / "docs" / "how-it-works.md"


def shown() -> list[str]:
    """The children of the master, by the page."""
    (tree,) = (snippet for snippet in find_snippets(PAGE) if snippet.info == "text tree")
    master, *children = tree.code.splitlines()
    assert master.startswith("master ")
    return [found[1] for line in children if (found := re.match(r" [├└]─ (\w+)", line))]


def test_the_tree_is_as_it_is_shown() -> None:
    """So many processes, all of them children of the master, and none below them."""
    expected = shown()
    assert expected.count("worker") == 2
    with Fleet.command(*serving("web", "--admin", "127.0.0.1:0", workers=2)) as fleet:
        fleet.wait_for("ready: 2 workers")

        def below() -> set[int]:
            return {member.pid for member in fleet.members()} - {fleet.pid}

        # The parked one comes when all has been quiet for a tenth of a second.
        wait_until(lambda: len(below()) == len(expected), "the whole family", show=lambda: str(below()))
        assert {procfs.parent_pid(pid) for pid in below()} == {fleet.pid}
        assert fleet.stop() == 0
