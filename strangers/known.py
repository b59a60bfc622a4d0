"""Differences that are meant: read from `known.toml`, and held against what was found.

A difference is known if its suite, its case and its words are written down, with the reason. One that is written down and
did not show is stale: the file says something that is not so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("known.toml")


@dataclass(frozen=True)
class Known:
    """Why a case differs, and in which words the difference shows; `*` at the end of `found` stands for any rest."""

    found: str
    why: str

    def is_of(self, difference: str) -> bool:
        """It is this difference."""
        if self.found.endswith("*"):
            return difference.startswith(self.found[:-1])
        return difference == self.found


@dataclass(frozen=True)
class Verdict:
    """What is left to say of a suite: differences nobody has explained, and explanations without a difference."""

    meant: Mapping[str, Known]
    unexplained: Mapping[str, str]
    stale: tuple[str, ...]


def read(suite: str, file: Path = FILE) -> dict[str, Known]:
    """The known differences of a suite, by case. Raises ValueError where a case is written down twice."""
    found: dict[str, Known] = {}
    entries: list[dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8")).get(suite, [])
    for entry in entries:
        for case in entry["cases"]:
            if case in found:
                raise ValueError(f"{file.name}: {suite} {case} is written down twice")
            found[case] = Known(entry["found"], entry["why"])
    return found


def judge(known: Mapping[str, Known], differences: Mapping[str, str]) -> Verdict:
    """Hold what was found against what is known. `differences`: by case, those that differ alone."""
    meant = {
        case: known[case] for case, said in differences.items() if case in known and known[case].is_of(said)
    }
    unexplained = {case: said for case, said in differences.items() if case not in meant}
    stale = tuple(case for case in known if case not in differences)
    return Verdict(meant, unexplained, stale)
