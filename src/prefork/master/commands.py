"""Everything the plan can ask of the shell, as frozen orders. `loop.py` carries each out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from prefork import control
from prefork.recorder import Listed


class Nudge(Enum):
    """What a process is sent; the shell knows the signal."""

    DRAIN = "drain"
    QUIT = "quit"
    DUMP_STACKS = "dump stacks"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class StartZygote:
    """Start the zygote of `generation`. Answered by ZygoteReady, ZygoteUnstarted or ZygoteExited."""

    generation: int


@dataclass(frozen=True, slots=True)
class RetireZygote:
    """Close the zygote's channel: it leaves by itself. Answered by ZygoteExited."""

    generation: int


@dataclass(frozen=True, slots=True)
class NudgeZygote:
    """Send the zygote of `generation` a signal."""

    generation: int
    nudge: Nudge


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make a worker. Answered by ChildSpawned or SpawnFailed (or Broken)."""

    child: int
    slot: int
    generation: int
    requests: int = 0
    """Requests that it is to serve; 0: no bound."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop all the shell holds for a child that never came to be."""

    child: int


@dataclass(frozen=True, slots=True)
class NudgeChild:
    """Send a worker a signal."""

    child: int
    nudge: Nudge


@dataclass(frozen=True, slots=True)
class CallSpawnHook:
    """Call `on_child_spawn`. An exception is answered by Broken."""

    pid: int


@dataclass(frozen=True, slots=True)
class CallReadyHook:
    """Call `on_master_ready`. An exception is answered by Broken."""

    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CallRecoverHook:
    """Call `on_child_recover`. An exception is answered by Broken."""

    old_pid: int
    new_pid: int


@dataclass(frozen=True, slots=True)
class Steer:
    """Send new connections to the slots below `count` only (reuseport)."""

    count: int


@dataclass(frozen=True, slots=True)
class LookAtQueue:
    """Say how many connections wait in the slot of a child that is steered away from. Answered by QueueSeen."""

    child: int
    slot: int


@dataclass(frozen=True, slots=True)
class CloseSlot:
    """Close the last slot's sockets (reuseport): nobody is steered there and its worker is gone."""

    slot: int


@dataclass(frozen=True, slots=True)
class CallLast:
    """All is to stop: let go of the listeners, and have the workers that drain from now on take in whoever waits."""


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """Open log files again, here and in the children named."""

    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LookAtMemory:
    """Say how much memory each process has. Answered by MemorySeen."""


@dataclass(frozen=True, slots=True)
class LookAtPulses:
    """Say what the workers tell on the scoreboard. Answered by PulsesSeen."""

    with_load: bool
    """Whether their CPU time and the queue are wanted, too."""


@dataclass(frozen=True, slots=True)
class ListSuspects:
    """Have workers know what is refused, and of which requests they are to say that one has come to its end."""

    listed: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Renumber:
    """Tell a worker which slot is its own from now on: its lines in the log say it."""

    child: int
    slot: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer somebody on the control socket."""

    client: int
    answer: control.Answer


@dataclass(frozen=True, slots=True)
class AskStacks:
    """Have a worker say where it stands. Answered by StacksSeen, if it still can."""

    client: int
    child: int


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have the C library's side of a worker write its stacks to standard error: its interpreter does not answer."""

    child: int


@dataclass(frozen=True, slots=True)
class SetLogLevel:
    """Log from this level on, here and in the children named, and in those to come."""

    level: str
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StartUpgrade:
    """Start this program anew beside us with the listeners. Answered by UpgradeReady or UpgradeLost."""


@dataclass(frozen=True, slots=True)
class KillUpgrade:
    """End the new master that did not become ready."""


@dataclass(frozen=True, slots=True)
class StartAdmin:
    """Start the admin process. Answered by AdminReady, AdminUnstarted or AdminExited."""


@dataclass(frozen=True, slots=True)
class RetireAdmin:
    """Close the admin process's channel: it leaves by itself. Answered by AdminExited."""


@dataclass(frozen=True, slots=True)
class KillAdmin:
    """Send the admin process SIGKILL. Answered by AdminExited."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the service manager (sd_notify) where we are."""

    state: Literal["ready", "reloading", "stopping"]
    status: str


@dataclass(frozen=True, slots=True)
class StartLookout:
    """Start the process that watches the code. Answered by LookoutReady or LookoutLost."""


@dataclass(frozen=True, slots=True)
class EndLookout:
    """End the process that watches the code, if it has not ended yet."""


@dataclass(frozen=True, slots=True)
class Log:
    """Say something."""

    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Leave the loop; raise `error` if there is one."""

    error: Exception | None


Command = (
    StartZygote
    | RetireZygote
    | NudgeZygote
    | Spawn
    | Forget
    | NudgeChild
    | CallSpawnHook
    | CallReadyHook
    | CallRecoverHook
    | Steer
    | LookAtQueue
    | CloseSlot
    | CallLast
    | ReopenLogs
    | LookAtMemory
    | LookAtPulses
    | ListSuspects
    | Renumber
    | Answer
    | AskStacks
    | DumpStacks
    | SetLogLevel
    | StartUpgrade
    | KillUpgrade
    | StartLookout
    | EndLookout
    | StartAdmin
    | RetireAdmin
    | KillAdmin
    | Announce
    | Log
    | Finish
)
