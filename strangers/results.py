"""What a suite's own runner has said: read from pytest's JUnit file, or from what unittest prints.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class Results:
    """Tests by what became of them; with a word why they failed or were skipped."""

    passed: int
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> int:
        """Tests that were run."""
        return self.passed + len(self.failed)


def of_junit(xml: str) -> Results:
    """From a JUnit file. A test with several reports (subtests, teardown) has failed if one of them has."""
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    for case in ET.fromstring(xml).iter("testcase"):  # noqa: S314  (pytest has written it just now)
        name = f"{case.get('classname', '').rpartition('.')[2]}::{_plain(case.get('name', ''))}"
        seen.add(name)
        for kind in ("failure", "error"):
            for each in case.findall(kind):
                failed.setdefault(name, _first_line(each.get("message") or each.text or kind))
        for each in case.findall("skipped"):
            skipped[name] = _first_line(each.get("message") or "")
    return Results(len(seen - failed.keys() - skipped.keys()), failed, skipped)


def of_unittest(text: str) -> Results:
    """From what unittest prints with `-v 2`. Raises ValueError where it did not come to its end."""
    ran = re.search(r"^Ran (\d+) tests? in", text, re.MULTILINE)
    if not ran:
        raise ValueError(f"unittest did not come to its end: {text[-400:]}")
    blocks = re.split(r"^={60,}\n", text, flags=re.MULTILINE)[1:]
    failed: dict[str, str] = {}
    for block in blocks:
        name = re.match(r"(?:FAIL|ERROR): \S+ \((?P<name>[^)]*)\)", block)
        words = re.findall(r"^\w*(?:Error|Exception)\b.*$", block, re.MULTILINE)
        if name:
            failed[name["name"]] = words[-1] if words else "failed"
    skips = re.findall(r"^\w+ \((\S+)\)(?:\n.*)? \.\.\. skipped (.*)$", text, re.MULTILINE)
    skipped = {name: why.strip("'\"") for name, why in skips}
    return Results(int(ran[1]) - len(failed) - len(skipped), failed, skipped)


def _plain(name: str) -> str:
    """A subtest's own words are no part of its test's name."""
    return re.sub(r" (?:\[|\().*[\])]$", "", name)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:160]
