"""Everything that can happen to a fleet, as frozen facts.

Signals, channel messages, exited processes, passed deadlines and the results of commands all become
one of these, and nothing else reaches `plan.decide`. A fact names a child by its serial number, never by
its pid: a pid may be used again by the kernel, a serial number is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from prefork import control
from prefork.master.pulse import Pulse
from prefork.recorder import LastWords


class Stop(IntEnum):
    """How hard a stop is; a stop is only ever made harder."""

    GRACEFUL = 1
    FAST = 2
    KILL = 3


@dataclass(frozen=True, slots=True)
class BootFailure:
    """Why a start failed: one line, and the application's own traceback where there is one.

    `is_final` says that another try would end the same way (the import raised, the lifespan failed, the boot
    hung), so a fleet that has never served does not loop on it. A failure that is not final is a crash.
    """

    summary: str
    details: str = ""
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code, or the signal that killed it."""

    code: int | None = None
    signal: int | None = None

    @property
    def is_clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        return f"exit status {self.code}"


@dataclass(frozen=True, slots=True)
class Started:
    """The loop runs; nothing has been started yet."""


@dataclass(frozen=True, slots=True)
class ZygoteReady:
    """The zygote of a generation has imported the application and can fork."""

    generation: int


@dataclass(frozen=True, slots=True)
class ZygoteFailed:
    """The zygote reported that the application cannot be started; its exit follows."""

    generation: int
    failure: BootFailure


@dataclass(frozen=True, slots=True)
class ZygoteUnstarted:
    """The zygote's process could not be made (EAGAIN, ENOMEM, EMFILE): worth another try."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class ZygoteExited:
    """The zygote of a generation is gone."""

    generation: int
    status: ExitStatus


@dataclass(frozen=True, slots=True)
class ChildSpawned:
    """A worker's process exists and has a pid; the spawn hook has run."""

    child: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """A worker's process could not be made (EAGAIN, ENOMEM, EMFILE): worth another try."""

    child: int
    why: str


@dataclass(frozen=True, slots=True)
class ChildReady:
    """A worker accepts connections."""

    child: int


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A worker reported that the application does not start; its exit follows."""

    child: int
    failure: BootFailure


@dataclass(frozen=True, slots=True)
class ChildExited:
    """A worker's process is gone."""

    child: int
    status: ExitStatus
    words: LastWords = field(default_factory=LastWords)
    """What it was at."""


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """So many connections wait in the queue of a worker that is steered away from."""

    child: int
    depth: int


@dataclass(frozen=True, slots=True)
class ChildWorn:
    """A worker says itself that it is to be recycled: it has served enough requests."""

    child: int
    why: str


@dataclass(frozen=True, slots=True)
class ChildAwake:
    """Something happens in a worker again: from now on it tells on the scoreboard that its loop turns."""

    child: int


@dataclass(frozen=True, slots=True)
class PulsesSeen:
    """What the workers tell on the scoreboard, and how many connections wait for one of them."""

    pulses: tuple[Pulse, ...]
    queue: int = 0


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """How much memory (PSS) there is in use: by each child, and by the master and the zygotes."""

    children: tuple[tuple[int, int], ...]
    """Serial number and bytes."""
    others_bytes: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The next deadline of the fleet is due (or the loop woke up near it)."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A hook raised, or a command producer broke its contract: kill all children and raise `error`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Someone wants the fleet gone."""

    how: Stop
    why: str


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Someone wants the application loaded anew, with nothing lost."""


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """Someone wants `delta` more (or fewer) workers."""

    delta: int


@dataclass(frozen=True, slots=True)
class RestAsked:
    """Someone wants the workers gone and the master to stay (WINCH)."""


@dataclass(frozen=True, slots=True)
class ReopenAsked:
    """Someone has moved the log files away (USR1)."""


@dataclass(frozen=True, slots=True)
class UpgradeAsked:
    """Someone wants the master's own program replaced, listeners kept (USR2)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks for something on the control socket."""

    client: int
    request: control.Request


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """Somebody who has asked is gone, and waits for nothing any more."""

    client: int


@dataclass(frozen=True, slots=True)
class StacksSeen:
    """A worker has said where it stands, for this client."""

    client: int
    child: int
    text: str


@dataclass(frozen=True, slots=True)
class UpgradeReady:
    """The new master serves."""


@dataclass(frozen=True, slots=True)
class UpgradeLost:
    """The new master is gone before it served, or could not be started."""

    why: str


@dataclass(frozen=True, slots=True)
class LookoutReady:
    """The process that watches the code watches it."""

    what: str


@dataclass(frozen=True, slots=True)
class LookoutLost:
    """The process that watches the code has ended, or could not be started."""

    why: str


@dataclass(frozen=True, slots=True)
class CodeChanged:
    """The application's code has been edited."""

    what: str


@dataclass(frozen=True, slots=True)
class AdminReady:
    """The admin process answers."""


@dataclass(frozen=True, slots=True)
class AdminFailed:
    """The admin process reported why it cannot start; its exit follows."""

    why: str


@dataclass(frozen=True, slots=True)
class AdminUnstarted:
    """The admin process could not be made: worth another try."""

    why: str


@dataclass(frozen=True, slots=True)
class AdminExited:
    """The admin process is gone."""

    status: ExitStatus


ChildEvent = (
    ChildSpawned | SpawnFailed | ChildReady | ChildFailed | ChildExited | QueueSeen | ChildWorn | ChildAwake
)
"""Facts about one worker; the others are about a zygote, the time, or the whole."""

Event = (
    ChildEvent
    | Started
    | ZygoteReady
    | ZygoteFailed
    | ZygoteUnstarted
    | ZygoteExited
    | MemorySeen
    | PulsesSeen
    | DeadlinePassed
    | Broken
    | StopAsked
    | ReloadAsked
    | ScaleAsked
    | RestAsked
    | ReopenAsked
    | UpgradeAsked
    | Asked
    | ClientLeft
    | StacksSeen
    | UpgradeReady
    | UpgradeLost
    | LookoutReady
    | LookoutLost
    | CodeChanged
    | AdminReady
    | AdminFailed
    | AdminUnstarted
    | AdminExited
)
