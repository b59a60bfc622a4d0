"""What is compared with what: each scenario's application, load, subjects and goals.

Rules of a scenario:

1. All its subjects run at once and are loaded in turns, each round beginning with another, so that what else the
   machine does falls on all of them.
2. A ratio is that of the medians; its range is that of the rounds, each taken beside its own neighbour.
3. "Ahead of every Python peer" means less CPU time than the cheapest of those that did the work.

Not here: how a subject is started (http_subjects.py), the memory of a connection (http_memory.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks import http_subjects as who
from benchmarks.http_load import (
    CLOSING,
    PIPELINE_DEPTH,
    PIPELINED,
    PLAIN,
    SEED,
    UPLOADING,
    FullHandshakes,
    LoadError,
    Sample,
)
from benchmarks.http_report import Figures, Verdict
from benchmarks.http_subjects import DidNotStartError, Running, Subject
from benchmarks.http_websocket import WEBSOCKET

WARM_UP_S: Final = 1
"""Caches, and bytecode that adapts itself to what it runs."""
HANDSHAKERS: Final = 8
EVERY_PEER: Final = None
PYTHON_PEERS: Final = (who.UVICORN, who.GRANIAN, who.HYPERCORN, who.GUNICORN, who.FASTPYSGI)


class Load(Protocol):
    """Loads one server for some seconds."""

    def __call__(self, target: Running, connections: int, seconds: int, directory: Path) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Goal:
    """`ours` divided by `peer` (the best of all, if EVERY_PEER) is at most `limit`; below it where `is_strict`."""

    what: str
    ours: Subject
    peer: Subject | None
    limit: float
    measure: str = "cost_us"
    connections: tuple[int, ...] = ()
    """The numbers of connections that it is set for; all, if empty."""
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One application under one load."""

    title: str
    app: str
    load: Load
    subjects: tuple[Subject, ...]
    connections: tuple[int, ...] = (64,)
    goals: tuple[Goal, ...] = ()
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    seconds: int
    workers: int
    directory: Path


def _ahead(title: str, app: str, load: Load, *, is_tls: bool = False, connections: int = 64) -> Scenario:
    goal = Goal(f"{title} / best Python peer", who.ASGI, EVERY_PEER, 1.0, is_strict=True)
    subjects = (who.ASGI, *PYTHON_PEERS)
    return Scenario(title, app, load, subjects, (connections,), (goal,), is_tls=is_tls)


_HELLO_GOALS: Final = (
    Goal("ASGI / Go fasthttp prefork", who.ASGI, who.GO, 0.9),
    Goal("WSGI inline / Go fasthttp prefork", who.WSGI, who.GO, 0.85),
    Goal("ASGI / uvicorn", who.ASGI, who.UVICORN, 0.42),
    Goal("ASGI / granian", who.ASGI, who.GRANIAN, 0.40),
    Goal("WSGI inline / granian WSGI", who.WSGI, who.GRANIAN_WSGI, 0.40),
    Goal("WSGI inline / nginx return 200", who.WSGI, who.NGINX, 1.5),
    Goal("ASGI p99 / Go fasthttp prefork p99", who.ASGI, who.GO, 1.0, "p99_ms", (512,)),
    Goal("WSGI p99 / Go fasthttp prefork p99", who.WSGI, who.GO, 1.0, "p99_ms", (512,)),
)
_HELLO_SUBJECTS: Final = (
    *(who.ASGI, who.WSGI, who.GO, who.GO_REUSEPORT, who.NGINX, who.UVICORN, who.GRANIAN, who.GRANIAN_WSGI),
    *(who.HYPERCORN, who.GUNICORN, who.FASTPYSGI, who.FASTPYSGI_WSGI),
)

SCENARIOS: Final[dict[str, Scenario]] = {
    "hello": Scenario(
        "hello world", "serving:hello", PLAIN, _HELLO_SUBJECTS, connections=(64, 512), goals=_HELLO_GOALS
    ),
    "fastapi": Scenario(
        "FastAPI JSON route",
        "fast:app",
        PLAIN,
        (who.ASGI, who.UVICORN),
        connections=(64, 512),
        goals=(Goal("FastAPI JSON route / uvicorn", who.ASGI, who.UVICORN, 0.85),),
    ),
    "large": _ahead("1 MB response", "serving:large", PLAIN),
    "upload": _ahead("1 MB upload", "serving:upload", UPLOADING),
    "stream": _ahead("16 chunks of 64 KiB streamed", "serving:stream", PLAIN),
    "websocket": _ahead("WebSocket echo", "serving:echo", WEBSOCKET),
    "tls": _ahead("TLS keep-alive", "serving:hello", PLAIN, is_tls=True),
    "handshakes": _ahead(
        "TLS handshakes, in full",
        "serving:hello",
        FullHandshakes(),
        is_tls=True,
        connections=HANDSHAKERS,
    ),
    "resumptions": _ahead(
        "TLS handshakes, resumed where the server lets it", "serving:hello", CLOSING, is_tls=True
    ),
    "pipelining": _ahead(f"{PIPELINE_DEPTH}-deep pipelining", "serving:hello", PIPELINED),
    "seed": Scenario(
        "the seed's own benchmark, handler that does not sleep",
        "serving:hello",
        SEED,
        (who.ASGI, who.ALONE, who.GO, who.GO_ALONE, who.UVICORN),
        connections=(512,),
    ),
    "seed-sleeping": Scenario(
        "the seed's own benchmark, handler that sleeps 100 ms (5,120/s at most)",
        "serving:sleeping",
        SEED,
        (who.ASGI, who.ALONE, who.GO_SLEEPING, who.GO_ALONE_SLEEPING, who.UVICORN),
        connections=(512,),
    ),
}


def narrowed(
    scenario: Scenario, is_wanted: Callable[[Subject], bool], connections: Sequence[int] | None
) -> Scenario:
    """The scenario with these subjects only, the goals that are left, and other numbers of connections if given."""
    subjects = tuple(subject for subject in scenario.subjects if is_wanted(subject))
    goals = tuple(
        goal
        for goal in scenario.goals
        if goal.ours in subjects
        and (goal.peer in subjects or (goal.peer is EVERY_PEER and len(subjects) > 1))
    )
    counts = tuple(connections) if connections else scenario.connections
    return dataclasses.replace(scenario, subjects=subjects, goals=goals, connections=counts)


def measure(
    name: str, scenario: Scenario, effort: Effort, say: Callable[[str], None]
) -> tuple[list[Figures], list[Verdict]]:
    """Run one scenario: all its figures, and what they mean for its goals. `say` gets lines as they are known."""
    figures: list[Figures] = []
    with contextlib.ExitStack() as stack:
        targets, failures = _start(stack, scenario, effort)
        _warm_up(scenario, effort, targets, failures)
        for connections in scenario.connections:
            setting = f"{connections} connections"
            say(f"\n{scenario.title}, {setting}: CPU per request, rate, latency")
            found = [Figures(name, setting, each.name) for each in scenario.subjects]
            for each in found:
                each.failure = failures.get(each.who, "")
            _load_in_turns(scenario, connections, effort, targets, {each.who: each for each in found})
            figures += found
            failures.update({each.who: each.failure for each in found if each.failure})
            for each in found:
                say(str(each))
    verdicts = [_verdict(goal, at, figures) for goal in scenario.goals for at in _settings(goal, scenario)]
    return figures, verdicts


def _start(
    stack: contextlib.ExitStack, scenario: Scenario, effort: Effort
) -> tuple[dict[str, Running], dict[str, str]]:
    """Start all subjects at once: those that answer, and what the others have said."""
    targets: dict[str, Running] = {}
    failures: dict[str, str] = {}
    tls = who.certificate(effort.directory) if scenario.is_tls else None
    for subject in scenario.subjects:
        try:
            targets[subject.name] = stack.enter_context(
                who.running(subject, scenario.app, effort.workers, effort.directory, tls)
            )
        except DidNotStartError as error:
            failures[subject.name] = f"did not start: {error}"
    for name, target in list(targets.items()):
        try:
            target.wait_for_answer()
        except DidNotStartError as error:
            failures[name] = f"did not start: {error}"
            del targets[name]
    who.settle()
    return targets, failures


def _load_in_turns(
    scenario: Scenario,
    connections: int,
    effort: Effort,
    targets: dict[str, Running],
    figures: dict[str, Figures],
) -> None:
    """All rounds. A subject that fails is left out from there on, in what follows too, and its figures say why."""
    for turn in range(effort.rounds):
        names = list(targets)
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            try:
                sample = scenario.load(targets[name], connections, effort.seconds, effort.directory)
                figures[name].samples.append(sample)
            except LoadError as error:
                figures[name].failure = str(error)
                del targets[name]


def _warm_up(
    scenario: Scenario, effort: Effort, targets: dict[str, Running], failures: dict[str, str]
) -> None:
    for name in list(targets):
        try:
            scenario.load(targets[name], scenario.connections[0], WARM_UP_S, effort.directory)
        except LoadError as error:
            failures[name] = str(error)
            del targets[name]


def _settings(goal: Goal, scenario: Scenario) -> list[str]:
    counts = [count for count in scenario.connections if not goal.connections or count in goal.connections]
    return [f"{count} connections" for count in counts]


def _verdict(goal: Goal, setting: str, figures: Sequence[Figures]) -> Verdict:
    here = {each.who: each for each in figures if each.setting == setting}
    ours = here[goal.ours.name]
    peers = [here[goal.peer.name]] if goal.peer else [each for each in here.values() if each is not ours]
    measured = [each for each in peers if each.samples]

    def verdict(ratio: float | None, note: str) -> Verdict:
        return Verdict(goal.what, setting, ratio, goal.limit, goal.is_strict, note)

    if not ours.samples:
        return verdict(None, f"{ours.who} {ours.failure}")
    if not measured:
        return verdict(None, "; ".join(f"{each.who} {each.failure}" for each in peers))
    best = min(measured, key=lambda each: each.median_of(goal.measure))
    if math.isnan(ours.median_of(goal.measure)) or math.isnan(best.median_of(goal.measure)):
        return verdict(None, "the load generator gave no figure")
    ratio = ours.median_of(goal.measure) / best.median_of(goal.measure)
    pairs = zip(ours.samples, best.samples, strict=False)
    ratios = [getattr(mine, goal.measure) / getattr(theirs, goal.measure) for mine, theirs in pairs]
    unit = "ms" if goal.measure.endswith("_ms") else "µs"
    note = f"{ours.median_of(goal.measure):.1f} / {best.median_of(goal.measure):.1f} {unit}, "
    note += f"rounds {min(ratios):.2f} to {max(ratios):.2f}"
    note += "" if goal.peer else f" ({best.who})"
    missing = [each.who for each in peers if not each.samples]
    note += f"; not measured: {', '.join(missing)}" if missing else ""
    return verdict(ratio, note)
