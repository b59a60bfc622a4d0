"""What is said on the control socket: every request and every answer there is, and how they are written.

    preforkctl                                            master
    {"request": "reload"}                        ->
                                                 <-       {"answer": "progress", "text": "reload: starting generation 2"}
                                                 <-       {"answer": "done", "text": "generation 2 serves"}

Rules:

* One JSON object a line, UTF-8. A request is answered by any number of `progress` and one final answer; then the next may
  be sent.
* Anything else is answered by `failed`, which says what was wrong, and the line is over.
* Fields may be added; an old reader ignores what it does not know of.

Not here: who listens (`master.controls`), what a request means (`master.requests`), what people type (`cli.ctl`).
"""

from __future__ import annotations

import difflib
import json
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Final

from prefork.errors import PreforkError

LINE_BYTES: Final = 4096
"""Longest request, line end included."""


class ControlError(PreforkError):
    """The other side said something that is none of what is below. The message says what."""


# -- requests -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """How is the fleet? Answered by StatusReport."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Load the application anew. Answered when all workers are of the new generation, or it has failed."""

    canary: float = 0.0
    """Share of the workers with which the new generation is tried out beside the old one first; 0: not at all."""
    canary_s: float = 30.0
    """For how long, in seconds."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Run so many workers. Answered when they serve, and nobody else does."""

    workers: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """Replace a worker. Answered when its successor is ready and it has been told to leave."""

    worker: str


@dataclass(frozen=True, slots=True)
class Stacks:
    """Say where a worker's threads and tasks stand. Answered by StacksReport."""

    worker: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Replace the master's own program. Answered when the new one serves, or has failed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the fleet. Answered when everybody has left."""

    is_fast: bool = False


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Log from this level on, everywhere."""

    level: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """Hold nothing against requests that have killed workers: none is refused any more. Answered at once."""


Request = Status | Reload | Scale | Recycle | Stacks | Upgrade | Stop | LogLevel | Forgive


# -- answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been logged while somebody waits; a final answer follows."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """It has been done."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It has not been done, and why."""

    text: str


@dataclass(frozen=True, slots=True)
class StacksReport:
    """Where a worker stands."""

    text: str


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker's process."""

    serial: int
    slot: int
    pid: int | None
    generation: int
    phase: str
    age_s: float | None
    """Seconds since it was ready; None before."""
    worn: str = ""
    """Why it is to be recycled; "" while it is good."""
    connections: int | None = None
    """Open connections; None where its server does not say."""
    in_flight: int = 0
    """Requests whose application has not returned."""
    is_awake: bool = False
    """Something has happened in its last second or so."""
    tick_ms: int = 0
    """When it last told what follows, on the clock of `StatusReport.now_ms`."""
    statuses: tuple[int, ...] = ()
    """Answers since its start, by the first digit of their status; empty where its server does not count."""
    latencies: tuple[int, ...] = ()
    """Requests since its start by how long they took (`prefork.latency`), without the zeros at the end."""

    @property
    def requests(self) -> int:
        """Answers in all."""
        return sum(self.statuses)


@dataclass(frozen=True, slots=True)
class EventReport:
    """Something that has happened to the fleet."""

    number: int
    """From 1 on; the fleet's first."""
    ago_s: float
    kind: str
    """"start", "crash", "hung", "left", "recycle", "reload", "failed", "refused", "scale", "rest", "upgrade", "admin" or
    "stop"."""
    text: str


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """Requests that are refused, because they have killed workers."""

    what: str
    """Method and path; a query is left out, for it may hold what is nobody's business."""
    kills: int
    """Workers."""
    left_s: float
    """For so long still."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole fleet."""

    state: str
    """"starting", "serving", "reloading", "upgrading", "resting" or "stopping"."""
    generation: int
    incoming: int | None
    """The generation that a reload tries out."""
    wanted: int
    ready: int
    workers: tuple[WorkerReport, ...]
    pid: int = 0
    """The master's."""
    version: str = ""
    name: str = ""
    """What is served: the application's name, where it has one."""
    addresses: tuple[str, ...] = ()
    uptime_s: float = 0.0
    log_level: str = ""
    now_ms: int = 0
    """When this was said: CLOCK_MONOTONIC."""
    gone_statuses: tuple[int, ...] = ()
    """What workers have served that are gone, as in `WorkerReport`: a sum with theirs never goes back."""
    gone_latencies: tuple[int, ...] = ()
    replaced: dict[str, int] = field(default_factory=dict)
    """Workers that were replaced, by cause."""
    events: tuple[EventReport, ...] = ()
    """The last hundred."""
    queued: int | None = None
    """TCP connections that wait to be accepted; None where the kernel does not say."""
    refused: tuple[RefusalReport, ...] = ()
    refused_requests: int | None = None
    """Requests that were refused for it, since the start; None where nothing ever is (`--refuse-after-kills`)."""


Answer = Progress | Done | Failed | StacksReport | StatusReport
FINAL: Final = (Done, Failed, StacksReport, StatusReport)


def name_of(kind: type[Any]) -> str:
    """What a request or an answer is called on the wire: "log-level"."""
    return "".join(f"-{x.lower()}" if x.isupper() else x for x in kind.__name__)[1:]


def encode(message: Request | Answer) -> bytes:
    """A message as its line."""
    kind = "request" if isinstance(message, Request) else "answer"
    return json.dumps({kind: name_of(type(message)), **_plain(message)}, default=_plain).encode() + b"\n"


def _plain(message: Any) -> dict[str, Any]:
    """Its fields. Not `asdict`, which copies every number of every counter: the master has better things to do."""
    if not is_dataclass(message):
        raise TypeError(f"{type(message).__name__} is nothing that can be said")
    return {each.name: getattr(message, each.name) for each in fields(message)}


def decode_request(line: bytes) -> Request:
    """A request from its line. Raises ControlError."""
    return typing.cast("Request", _decode(line, "request", typing.get_args(Request)))


def decode_answer(line: bytes) -> Answer:
    """An answer from its line. Raises ControlError."""
    answer = _decode(line, "answer", typing.get_args(Answer))
    if isinstance(answer, StatusReport):
        workers = tuple(_make(WorkerReport, each) for each in typing.cast("tuple[Any, ...]", answer.workers))
        events = tuple(_make(EventReport, each) for each in typing.cast("tuple[Any, ...]", answer.events))
        refused = tuple(_make(RefusalReport, each) for each in typing.cast("tuple[Any, ...]", answer.refused))
        return replace(answer, workers=workers, events=events, refused=refused)
    return typing.cast("Answer", answer)


def _decode(line: bytes, key: str, kinds: tuple[type[Any], ...]) -> Any:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise ControlError(f"no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get(key), str):
        raise ControlError(f'a {key} is an object with "{key}": its name')
    names = {name_of(kind): kind for kind in kinds}
    name = data.pop(key)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ControlError(f"there is no {key} {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    return _make(names[name], data)


def _make(kind: type[Any], data: Any) -> Any:
    """A message of what was said: types are checked, what is not known is ignored. Raises ControlError."""
    if not isinstance(data, dict):
        raise ControlError(f"{name_of(kind)} must be an object")
    hints = typing.get_type_hints(kind)
    values = {}
    for each in fields(kind):
        if each.name not in data:
            if each.default is MISSING and each.default_factory is MISSING:
                raise ControlError(f"{name_of(kind)} needs {each.name!r}")
            continue
        value = data[each.name]
        if isinstance(value, list):
            value = tuple(value)
        if not _is_of(value, hints[each.name]):
            raise ControlError(f"{name_of(kind)}: {each.name!r} cannot be {value!r}")
        values[each.name] = value
    return kind(**values)


def _is_of(value: Any, hint: Any) -> bool:
    kinds = [typing.get_origin(x) or x for x in (typing.get_args(hint) if _is_union(hint) else (hint,))]
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, tuple(kinds)) or (isinstance(value, int) and float in kinds)


def _is_union(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)
