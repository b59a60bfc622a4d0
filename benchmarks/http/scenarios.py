"""What is compared with what: each scenario's application, load, subjects and goals.

Rules of a scenario:

1. All its subjects run at once and are loaded in turns, each round beginning with another, so that what else the
   machine does falls on all of them.
2. A ratio is that of the medians; its range is that of the rounds, each taken beside its own neighbour.
3. "Ahead of every Python peer" means less CPU time than the cheapest of those that did the work.

Not here: how a subject is started (running.py) and measured (measuring.py), the memory of a connection (memory.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.http import subjects as who
from benchmarks.http.load import (
    CLOSING,
    PIPELINE_DEPTH,
    PIPELINED,
    PLAIN,
    SEED,
    UPLOADING,
    FullHandshakes,
    Sample,
)
from benchmarks.http.running import Running
from benchmarks.http.subjects import Subject
from benchmarks.http.websocket import WEBSOCKET

HANDSHAKERS: Final = 8
EVERY_PEER: Final = None
PYTHON_PEERS: Final = (
    *(who.UVICORN, who.GRANIAN, who.HYPERCORN, who.GUNICORN, who.FASTPYSGI, who.SOCKETIFY),
)


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
    is_apart: bool = False
    """Load and servers have half of the CPUs each (of wrk's loads), and there are no more workers than CPUs for them."""
    quick_subjects: tuple[Subject, ...] = ()
    """Whom a quick run measures, with the first number of connections; nobody: it leaves the scenario out."""


def _ahead(
    title: str,
    app: str,
    load: Load,
    *,
    is_tls: bool = False,
    connections: int = 64,
    quick_subjects: tuple[Subject, ...] = (),
) -> Scenario:
    goal = Goal(f"{title} / best Python peer", who.ASGI, EVERY_PEER, 1.0, is_strict=True)
    subjects = (who.ASGI, *PYTHON_PEERS)
    return Scenario(
        title,
        app,
        load,
        subjects,
        (connections,),
        (goal,),
        is_tls=is_tls,
        quick_subjects=quick_subjects,
    )


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
    *(who.GRANIAN_RSGI, who.HYPERCORN, who.GUNICORN, who.GUNICORN_SYNC, who.GUNICORN_GTHREAD),
    *(who.FASTPYSGI, who.FASTPYSGI_WSGI, who.SOCKETIFY, who.SOCKETIFY_WSGI),
)

SCENARIOS: Final[dict[str, Scenario]] = {
    "hello": Scenario(
        "hello world",
        "serving:hello",
        PLAIN,
        _HELLO_SUBJECTS,
        connections=(64, 512),
        goals=_HELLO_GOALS,
        quick_subjects=_HELLO_SUBJECTS,
    ),
    "hello-apart": Scenario(
        "hello world, load on other CPUs",
        "serving:hello",
        PLAIN,
        (who.ASGI, who.WSGI, who.GO, who.NGINX, who.UVICORN, who.GRANIAN, who.GRANIAN_WSGI, who.SOCKETIFY),
        connections=(64, 512),
        is_apart=True,
    ),
    "fastapi": Scenario(
        "FastAPI JSON route",
        "fast:app",
        PLAIN,
        (who.ASGI, who.UVICORN),
        connections=(64, 512),
        goals=(Goal("FastAPI JSON route / uvicorn", who.ASGI, who.UVICORN, 0.85),),
        quick_subjects=(who.ASGI, who.UVICORN),
    ),
    "large": _ahead("1 MB response", "serving:large", PLAIN),
    "upload": _ahead("1 MB upload", "serving:upload", UPLOADING),
    "stream": _ahead("16 chunks of 64 KiB streamed", "serving:stream", PLAIN),
    "websocket": _ahead(
        "WebSocket echo", "serving:echo", WEBSOCKET, quick_subjects=(who.ASGI, who.UVICORN, who.GRANIAN)
    ),
    "tls": _ahead(
        "TLS keep-alive",
        "serving:hello",
        PLAIN,
        is_tls=True,
        quick_subjects=(who.ASGI, who.UVICORN, who.GRANIAN),
    ),
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
    scenario: Scenario, is_wanted: Callable[[str], bool], connections: Sequence[int], *, is_quick: bool
) -> Scenario:
    """The scenario with these subjects only, the goals that are left, and other numbers of connections if given."""
    offered = scenario.quick_subjects if is_quick else scenario.subjects
    subjects = tuple(subject for subject in offered if is_wanted(subject.name))
    counts = tuple(connections) or (scenario.connections[:1] if is_quick else scenario.connections)
    goals = tuple(
        goal
        for goal in scenario.goals
        if goal.ours in subjects
        and (goal.peer in subjects or (goal.peer is EVERY_PEER and len(subjects) > 1))
        and (not goal.connections or set(goal.connections) & set(counts))
    )
    return dataclasses.replace(scenario, subjects=subjects, goals=goals, connections=counts)
