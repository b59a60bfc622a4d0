"""The state of a fleet: what is wanted, and one `Child` with one `Phase` for each process there is.

This is all that the master remembers. It holds no descriptor, no clock and no pid that is used for
more than talking about it; `plan.decide` takes a fleet and gives back the next one.

Times are seconds of a monotonic clock that does not run while the machine sleeps (CLOCK_MONOTONIC), so
neither a suspended machine nor a stepped wall clock makes a deadline pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from prefork import control
from prefork.master.chronicle import Chronicle
from prefork.master.events import BootFailure, Stop
from prefork.master.refusals import Refusals
from prefork.master.rules import Rules
from prefork.master.scaling import EVERY_S, Trend


class Phase(Enum):
    """Where a worker's process is in its life; the order is the order of a whole life."""

    SPAWNING = "spawning"  # asked for; no pid yet
    BOOTING = "booting"  # has a pid; must be ready before its deadline
    READY = "ready"  # accepts
    STEERED = "steered"  # reuseport: new connections go elsewhere, it empties its queue
    DRAINING = "draining"  # told to finish; must be gone before its deadline
    ABORTED = "aborted"  # hung in boot; asked for its stacks
    KILLED = "killed"  # sent SIGKILL; gone as soon as the kernel can


class ZygotePhase(Enum):
    """Where a zygote is in its life."""

    STARTING = "starting"  # importing the application
    READY = "ready"  # forks on request
    RETIRING = "retiring"  # told to leave
    ABORTED = "aborted"  # hung in its import; asked for its stacks
    KILLED = "killed"


class AdminPhase(Enum):
    """Where the admin process is in its life."""

    STARTING = "starting"
    READY = "ready"  # answers
    RETIRING = "retiring"  # told to leave
    KILLED = "killed"


LIVE = frozenset({Phase.SPAWNING, Phase.BOOTING, Phase.READY})
"""Phases of a child that fills its slot, or is about to."""


WATCHED = frozenset({Phase.READY, Phase.STEERED, Phase.DRAINING})
"""Phases of a child whose loop has to turn."""
CONFIRM_S = 0.25
"""Between the look that finds a worker silent for too long and the one that believes it: a fleet that was stopped and goes on
(SIGCONT, a thawed container) has told within milliseconds that it turns."""
LOOK_EVERY_S = EVERY_S
"""Between two looks at what workers do, while that matters: workers tell once a second."""


@dataclass(frozen=True, slots=True)
class Child:
    """The master's view of one worker process."""

    serial: int
    slot: int
    generation: int
    phase: Phase
    pid: int | None = None
    ready_at_s: float | None = None
    deadline_s: float | None = None
    replaces: int | None = None
    """The pid of the crashed worker that this one was spawned for."""
    failure: BootFailure | None = None
    until_s: float | None = None
    """How long what goes on now may last at most; `deadline_s` may come before, to look or to tell it once more."""
    is_hurried: bool = False
    """It has been told to leave at once, not only to finish."""
    worn: str = ""
    """Why it is to be recycled; "" while it is good."""
    worn_at_s: float = 0.0
    wears_at_s: float | None = None
    """When it is too old."""
    renews: int | None = None
    """The serial number of the worn worker that this one was spawned beside, to take its place."""
    heavy: int = 0
    """Samples in a row that showed more memory than it may have."""
    beat_s: float | None = None
    """Since when its loop may be silent: its last beat that has been seen; None: it is at rest, or not watched."""
    suspected_s: float | None = None
    """When it had been silent for too long for the first time."""
    is_stuck: bool = False
    """Its loop is blocked: it is about to be killed, and another stands in for it."""

    def look_due_s(self, hang_timeout_s: float) -> float | None:
        """When to look next whether its loop turns; None for never."""
        if self.beat_s is None or self.phase not in WATCHED:
            return None
        return self.beat_s + hang_timeout_s if self.suspected_s is None else self.suspected_s + CONFIRM_S

    @property
    def is_hung(self) -> bool:
        """It hung in its boot, and its end, which counts as a crash, is still to come."""
        return self.failure is not None and self.phase in (Phase.ABORTED, Phase.KILLED)

    @property
    def holds_slot(self) -> bool:
        """Nobody else of its generation may be spawned beside it."""
        return self.phase in LIVE or self.is_hung

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self.pid}, generation {self.generation})"


@dataclass(frozen=True, slots=True)
class Zygote:
    """The master's view of one zygote process."""

    generation: int
    phase: ZygotePhase
    deadline_s: float | None = None
    failure: BootFailure | None = None


@dataclass(frozen=True, slots=True)
class Admin:
    """The master's view of the admin process."""

    phase: AdminPhase
    deadline_s: float | None = None
    ready_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """What a slot remembers between two children: how long to wait, and whom the next one replaces."""

    streak: int = 0
    """Crashes in a row without a worker that settled."""
    spawn_failures: int = 0
    not_before_s: float = -math.inf
    crashed_pid: int | None = None
    has_queue: bool = False
    """reuseport, a slot that is not steered to any more: no worker has emptied its queue since."""


@dataclass(frozen=True, slots=True)
class Lookout:
    """The process that watches the code, and how long to wait before there is another."""

    is_running: bool = False
    streak: int = 0
    not_before_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody on the control socket waits for the outcome of a request."""

    client: int
    request: control.Request
    target: int = 0
    """The generation, or the serial number of the worker, that it is about."""
    due_s: float | None = None
    """When it is given up."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A reload that first tries the incoming generation out, beside the current one."""

    slots: int
    """So many of its workers serve beside the old ones."""
    for_s: float
    until_s: float | None = None
    """When it has been tried for long enough; None: not all of its workers are ready."""
    base: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] | None = None
    """What the old ones had served when it began: serial number, answers by status, latencies. None: not yet known."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """A stop under way: how hard, and what the caller is to be told."""

    how: Stop
    error: Exception | None = None


@dataclass(slots=True)
class Fleet:
    """Everything the master knows. `plan.decide` works on a copy, so a fleet is a value."""

    rules: Rules
    configured: int
    """Workers asked for by configuration: what a reload after a rest goes back to."""
    wanted: int
    chance: int = 1
    """State of the jitter's generator: part of the value, so that decisions can be replayed."""
    generation: int = 1
    incoming: int | None = None
    """The generation that a reload is trying out; it becomes `generation` when one of it is ready."""
    last_generation: int = 1
    canary: Canary | None = None
    """How the incoming generation is tried out; None: one of its workers need be ready only."""
    reload_again: bool = False
    rolling: bool = False
    """A reload has been proven and is replacing the older workers."""
    resting: bool = False
    proven: bool = False
    """A worker has been ready at least once: a failure from here on is no failed start."""
    announced: bool = False
    """`on_master_ready` has been called."""
    all_ready: bool = False
    """The service manager has been told that we are ready."""
    next_serial: int = 1
    children: dict[int, Child] = field(default_factory=dict)
    zygotes: dict[int, Zygote] = field(default_factory=dict)
    zygote_seat: Seat = field(default_factory=Seat)
    seats: dict[int, Seat] = field(default_factory=dict)
    crashes_s: tuple[float, ...] = ()
    steered: int = 0
    """reuseport: new connections go to the slots below this."""
    slots_open: int = 0
    stopping: Stopping | None = None
    upgrade_deadline_s: float | None = None
    renewal_seat: Seat = field(default_factory=Seat)
    """How long to wait after a worker that was to take a worn one's place has failed."""
    waits: tuple[Wait, ...] = ()
    memory_due_s: float | None = None
    """When memory is looked at next; None while nobody serves, or no bound is set."""
    heavy: int = 0
    """Samples in a row that showed more memory in all than the fleet may have."""
    admin: Admin | None = None
    admin_seat: Seat = field(default_factory=Seat)
    chronicle: Chronicle = field(default_factory=Chronicle)
    memory_bytes: int = 0
    """What the fleet had in all when memory was looked at last; 0: never."""
    looked_at_s: float = 0.0
    """When the workers were looked at last."""
    is_looking: bool = False
    """A look has been asked for, and its answer is still to come."""
    trend: Trend = field(default_factory=Trend)
    """What autoscaling remembers."""
    reported: frozenset[int] = frozenset()
    """Generations whose failure has been told with its traceback."""
    refusals: Refusals = field(default_factory=Refusals)
    lookout: Lookout = field(default_factory=Lookout)
    finished: bool = False

    def copy(self) -> Fleet:
        """A fleet equal to this one that shares no mutable part with it."""
        return replace(self, children=dict(self.children), zygotes=dict(self.zygotes), seats=dict(self.seats))

    def seat(self, slot: int) -> Seat:
        return self.seats.get(slot, Seat())

    def in_slot(self, slot: int) -> Iterator[Child]:
        return (child for child in self.children.values() if child.slot == slot)

    def of_generation(self, generation: int) -> Iterator[Child]:
        return (child for child in self.children.values() if child.generation == generation)

    def listening_children(self) -> tuple[int, ...]:
        """Serial numbers of those who hear what the master says to all."""
        silent = (Phase.SPAWNING, Phase.KILLED)
        return tuple(x.serial for x in self.children.values() if x.phase not in silent)

    def deserted_slots(self) -> Iterator[int]:
        """reuseport: slots not wanted any more, with connections in their queue and nobody there to accept them."""
        for slot in range(self.wanted, self.slots_open):
            if self.seat(slot).has_queue and not any(self.in_slot(slot)):
                yield slot

    def worn_child(self) -> Child | None:
        """Whom to recycle next: the one that has been worn for longest, of those that serve."""
        worn = [
            x
            for x in self.children.values()
            if x.worn and x.phase is Phase.READY and x.slot < self.wanted and x.generation == self.generation
        ]
        return min(worn, key=lambda child: (child.worn_at_s, child.serial), default=None)

    @property
    def is_recycling(self) -> bool:
        """A worker is being recycled: its successor boots, or serves while it drains."""
        return any(x.renews in self.children for x in self.children.values())

    @property
    def may_recycle(self) -> bool:
        """No more than one at a time, and not while a reload replaces all of them anyway."""
        return not (self.is_recycling or self.rolling or self.incoming is not None)

    def ready_slots(self) -> int:
        """How many of the wanted slots have a worker that accepts."""
        return len(
            {c.slot for c in self.children.values() if c.phase is Phase.READY and c.slot < self.wanted}
        )

    @property
    def is_scaled(self) -> bool:
        """Autoscaling has something to look at: somebody works, or there are more than the fewest."""
        bounds = self.rules.bounds
        if bounds is None or self.stopping is not None or self.resting:
            return False
        is_awake = any(x.beat_s is not None and x.phase in WATCHED for x in self.children.values())
        return is_awake or (bool(self.children) and self.wanted > bounds.least)

    def look_due_s(self) -> float | None:
        """When the workers are to be looked at next; None while all are at rest."""
        if self.is_looking:
            return None
        times = [x.look_due_s(self.rules.hang_timeout_s) for x in self.children.values()]
        is_tried = self.canary is not None and self.canary.until_s is not None and self.stopping is None
        if is_tried or self.is_scaled:
            times.append(self.looked_at_s + LOOK_EVERY_S)
        finite = [t for t in times if t is not None and t < math.inf]
        return min(finite, default=None)

    def next_deadline_s(self) -> float | None:
        """When `DeadlinePassed` must come at the latest; None when nothing is waited for."""
        times = [c.deadline_s for c in self.children.values()]
        times += [z.deadline_s for z in self.zygotes.values()]
        times.append(self.upgrade_deadline_s)
        times += [wait.due_s for wait in self.waits]
        times.append(self._admin_due_s())
        times.append(self.look_due_s())
        if self.stopping is None and not self.resting:
            times += [self.seat(slot).not_before_s for slot in self._vacant_slots()]
            times.append(self.zygote_seat.not_before_s if self._lacks_zygote() else None)
            times += [x.wears_at_s for x in self.children.values() if x.phase is Phase.READY and not x.worn]
            times.append(self.memory_due_s)
            times.append(self.refusals.due_s)
            times.append(self.lookout.not_before_s if not self.lookout.is_running else None)
            if self.may_recycle and self._can_fork() and self.worn_child() is not None:
                times.append(self.renewal_seat.not_before_s)
        finite = [t for t in times if t is not None and math.isfinite(t)]
        return min(finite, default=None)

    def _admin_due_s(self) -> float | None:
        if self.admin is not None:
            return self.admin.deadline_s
        return self.admin_seat.not_before_s if self.rules.has_admin and self.stopping is None else None

    def _vacant_slots(self) -> Iterator[int]:
        """Slots that wait for their back-off only: not those that wait for a zygote."""
        if not self._can_fork():
            return
        for slot in range(self.wanted):
            if not any(c.holds_slot and c.generation == self.generation for c in self.in_slot(slot)):
                yield slot
        yield from self.deserted_slots()

    def _can_fork(self) -> bool:
        zygote = self.zygotes.get(self.generation)
        return not self.rules.uses_zygote or (zygote is not None and zygote.phase is ZygotePhase.READY)

    def _lacks_zygote(self) -> bool:
        return self.rules.uses_zygote and self.generation not in self.zygotes
