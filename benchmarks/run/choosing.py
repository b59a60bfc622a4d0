"""Which scenarios are meant by the words of the command line, and what a run leaves out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.run.part import Part, Wish

ALL: Final = ""
"""In the place of one part's name."""


class UnknownScenarioError(Exception):
    """A word that is neither a part nor a scenario; the message names those that there are."""


def chosen_scenarios(words: Sequence[str], parts: Sequence[Part], wish: Wish) -> dict[str, list[str]]:
    """For each part its scenarios, in their own order: what `words` name ("http", "http:hello", "hello"), or all.

    What a quick run leaves out is in it only if it is named alone, and then an error: a run that does nothing helps nobody.
    Raises UnknownScenarioError.
    """
    offered = {part.name: part.scenarios(wish) for part in parts}
    known = {(name, scenario) for name, found in offered.items() for scenario in found}
    wanted = known if not words else {pair for word in words for pair in _meant(word, known)}
    chosen = {
        name: [scenario for scenario, why in found.items() if (name, scenario) in wanted and not why]
        for name, found in offered.items()
    }
    if not any(chosen.values()):
        reasons = sorted({offered[name][scenario] for name, scenario in wanted})
        raise UnknownScenarioError(f"{', '.join(words)}: {', '.join(reasons)}")
    return chosen


def _meant(word: str, known: set[tuple[str, str]]) -> set[tuple[str, str]]:
    part, _, scenario = word.rpartition(":")
    found = {
        (name, each) for name, each in known if (each == scenario and part in ("", name)) or (name == word)
    }
    if not found:
        parts: dict[str, list[str]] = {}
        for name, each in sorted(known):
            parts.setdefault(name, []).append(each)
        told = "; ".join(f"{name}: {', '.join(scenarios)}" for name, scenarios in parts.items())
        raise UnknownScenarioError(f"there is no {word!r}; there are {told}")
    return found


def left_out(chosen: Mapping[str, Sequence[str]], parts: Sequence[Part], wish: Wish) -> tuple[str, ...]:
    """What this run does not measure, and why."""
    said = []
    for part in parts:
        reasons: dict[str, list[str]] = {}
        for scenario, why in part.scenarios(wish).items():
            # What was not asked for is no news.
            if why and scenario not in chosen[part.name]:
                reasons.setdefault(why, []).append(scenario)
        said += [f"{part.name} {', '.join(scenarios)} ({why})" for why, scenarios in reasons.items()]
    if wish.is_quick:
        said.append(
            "of what is measured: repetitions, 512 connections, some peers, 4 workers of the heavy application"
        )
    return tuple(said)


def effort(wish: Wish, asked: Sequence[str] = ()) -> str:
    """How much is measured, for the head of a report; `asked`: the scenarios that were named."""
    words = ["quick" if wish.is_quick else "in full"]
    words += [f"{' '.join(asked)} alone"] if asked else []
    words += [f"{wish.rounds} rounds"] if wish.rounds else []
    words += [f"{wish.seconds} s a load"] if wish.seconds else []
    words += [f"subjects: {', '.join(wish.who)}"] if wish.who else []
    return ", ".join(words)
