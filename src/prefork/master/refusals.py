"""Who is to blame when workers die, and what is refused for it: `--refuse-after-kills`. Pure; values only.

Rules:

* A death is put down to the request whose code the loop was running, and counts whole where that was the only one. Where
  several threads ran, each counts half; so does each request that waited, where none ran: its work was done elsewhere then,
  in a thread of the application's, perhaps. Of a worker that hung only those count that ran.
* A request like it that comes to its end, anywhere and with whatever status, clears it of all before. So what is refused
  has killed so many workers in a row, and a bystander that is served is none: nor is a route of which only one body kills.
* Refused is who has killed `most`, if nobody else who was there has as much: of two that always die together neither is
  refused before one is seen without the other. Then all its deaths are explained, and count for nobody else.
* Requests of one route (method and path) are put together, too: where different queries of it have killed `most` in a row,
  it is refused with every query.
* After `FORGOTTEN_S` a death is forgotten, and a refusal lifted; but one death more is enough then to refuse it again.
* Bounded: of all that is suspected, `MOST_LISTED` names are kept, those with most against them.

Halves are whole numbers here: a worker counts 2.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from prefork.recorder import ANY_QUERY, MOST_LISTED, LastWords, Listed, route_of

FORGOTTEN_S: Final = 3600.0
"""An hour: what goes on killing costs one worker in that time, and what was mended is let in soon enough."""
WHOLE: Final = 2
HALF: Final = 1
MOST_KEPT: Final = 256
"""Deaths that are remembered, the latest: more than an hour of a fleet has that is not given up."""
_MOST_REFUSED: Final = 128
"""Half of the list: those that are suspected need a place, too."""


@dataclass(frozen=True, slots=True)
class Death:
    """Of a worker, and who may have caused it."""

    at_s: float
    weight: int
    suspects: frozenset[bytes]
    """Names of requests, and their routes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request, or a route, that is refused."""

    name: bytes
    at_s: float
    deaths: int
    """Workers that it has killed: that died while it was there, and of nothing else that is known."""

    @property
    def until_s(self) -> float:
        return self.at_s + FORGOTTEN_S

    @property
    def killed(self) -> str:
        return f"{self.deaths} worker{'s' if self.deaths > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Refusals:
    """All that is held against requests."""

    deaths: tuple[Death, ...] = ()
    """The latest is the last."""
    refused: tuple[Refusal, ...] = ()

    @property
    def due_s(self) -> float:
        """When the next of all this is forgotten."""
        times = [death.at_s + FORGOTTEN_S for death in self.deaths]
        return min([*times, *(each.until_s for each in self.refused)], default=math.inf)

    def listed(self) -> tuple[Listed, ...]:
        """What workers are to know."""
        suspects = sorted(frozenset().union(*(death.suspects for death in self.deaths)))
        refused = (Listed(each.name, True, int(each.until_s * 1000)) for each in self.refused)
        return (*refused, *(Listed(name, False) for name in suspects))[:MOST_LISTED]


def after_death(
    held: Refusals, words: LastWords, most: int, now_s: float, *, has_hung: bool = False
) -> tuple[Refusals, Refusal | None]:
    """What is held against whom after a worker's death, and who is refused for it.

    Args:
        held: what was before.
        words: what the worker has left.
        most: workers that a request may kill.
        now_s: seconds of the monotonic clock.
        has_hung: its loop was blocked; it did not die by itself.
    """
    held = _cleared(held, words.ended)
    suspects, weight = _suspects(words, has_hung=has_hung)
    suspects -= {each.name for each in held.refused}  # one that was let in before it was refused
    if not suspects:
        return held, None
    death = Death(now_s, weight, frozenset(name for each in suspects for name in (each, route_of(each))))
    held = _bounded(replace(held, deaths=(*held.deaths, death)[-MOST_KEPT:]))
    points = _points(held)
    name = _worst(points, suspects, most)
    if name is None:
        # A route only where no single request of it explains as much.
        of_request = {route_of(each): points[each] for each in suspects}
        routes = {route for route, alone in of_request.items() if points[route] > alone}
        name = _worst(points, routes, most)
    if name is None:
        return held, None
    refusal = Refusal(name, now_s, sum(name in each.suspects for each in held.deaths))
    return _explained(held, refusal), refusal


def expired(held: Refusals, most: int, now_s: float) -> tuple[Refusals, tuple[Refusal, ...]]:
    """What is left after so long, and which refusals are lifted: one death more, and they are back."""
    lifted = tuple(each for each in held.refused if each.until_s <= now_s)
    deaths = [death for death in held.deaths if death.at_s + FORGOTTEN_S > now_s]
    for each in lifted:
        deaths += [Death(now_s, WHOLE, frozenset({each.name}))] * (most - 1)
    refused = tuple(each for each in held.refused if each.until_s > now_s)
    return Refusals(tuple(deaths[-MOST_KEPT:]), refused), lifted


def readable(name: bytes) -> str:
    """A name for the log: as it came."""
    if name.endswith(ANY_QUERY):
        return f"{_text(name.removesuffix(ANY_QUERY))} with any query"
    return _text(name)


def shown(name: bytes) -> str:
    """A name for others than the log's readers: a query may hold what is nobody's business."""
    path, mark, _ = name.partition(b"?")
    return readable(name) if name.endswith(ANY_QUERY) or not mark else f"{_text(path)}?…"


def _text(name: bytes) -> str:
    return name.decode("latin-1").encode("unicode_escape").decode("ascii")


def _suspects(words: LastWords, *, has_hung: bool) -> tuple[set[bytes], int]:
    running = set(words.running)
    if running:
        return running, WHOLE if len(words.running) == 1 else HALF
    return (set() if has_hung else set(words.waiting)), HALF


def _cleared(held: Refusals, names: tuple[bytes, ...]) -> Refusals:
    return _without(held, frozenset(names)) if names else held


def _without(held: Refusals, names: frozenset[bytes]) -> Refusals:
    deaths = (replace(death, suspects=death.suspects - names) for death in held.deaths)
    return replace(held, deaths=tuple(death for death in deaths if death.suspects))


def _points(held: Refusals) -> Counter[bytes]:
    points: Counter[bytes] = Counter()
    for death in held.deaths:
        for name in death.suspects:
            points[name] += death.weight
    return points


def _worst(points: Counter[bytes], names: set[bytes], most: int) -> bytes | None:
    """Who has killed `most` or more, and more than anybody else of these."""
    ranked = sorted(names, key=lambda name: points[name], reverse=True)
    if not ranked or points[ranked[0]] < most * WHOLE:
        return None
    if len(ranked) > 1 and points[ranked[1]] == points[ranked[0]]:
        return None
    return ranked[0]


def _explained(held: Refusals, refusal: Refusal) -> Refusals:
    """What killed these is known: nobody else is to blame. But what is held against its route stays."""
    left = frozenset[bytes]() if refusal.name.endswith(ANY_QUERY) else frozenset({route_of(refusal.name)})
    deaths = (
        replace(death, suspects=death.suspects & left) if refusal.name in death.suspects else death
        for death in held.deaths
    )
    kept = tuple(death for death in deaths if death.suspects)
    return Refusals(kept, (*held.refused, refusal)[-_MOST_REFUSED:])


def _bounded(held: Refusals) -> Refusals:
    """So many names as the list has room for: those that are not on it are never cleared."""
    room = MOST_LISTED - len(held.refused)
    points = _points(held)
    if len(points) <= room:
        return held
    latest = held.deaths[-1].suspects
    ranked = sorted(points, key=lambda name: (points[name], name in latest), reverse=True)
    return _without(held, frozenset(ranked[room:]))
