"""A world for `plan.decide` to rule over: processes, zygotes and a clock that exist in memory only.

`World` stands where the shell stands. It carries out commands, keeps every process that they make, and feeds back
what a test makes those processes do. A process does nothing by itself: it boots, crashes, or obeys when a
story says so (`answer` and `calm_down` let all of them behave well). Nothing real is touched.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prefork import control
from prefork.latency import BUCKETS
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Command, Nudge
from prefork.master.fleet import Child, Fleet, Phase
from prefork.master.plan import decide
from prefork.master.pulse import Pulse
from prefork.master.rules import Rules
from prefork.recorder import LastWords

SEGFAULT = e.ExitStatus(signal=11)
KILLED = e.ExitStatus(signal=9)
CLEAN = e.ExitStatus(code=0)
IMPORT_ERROR = e.BootFailure(
    "module 'app' raises ImportError", "Traceback: the application's own", is_final=True
)
NO_ROOM = "Resource temporarily unavailable"

C = TypeVar("C", bound=Command)
Watcher = Callable[[Fleet, e.Event, Fleet, tuple[Command, ...]], None]


@dataclass
class Process:
    """A worker as it really is; `Child` is what the master thinks of it."""

    serial: int
    slot: int
    generation: int
    pid: int
    is_ready: bool = False
    told: list[Nudge] = field(default_factory=list)
    is_awake: bool = False
    stuck_since_s: float | None = None
    """Its loop is blocked: it does nothing that it is told, but for its kill."""
    cpu_s: float = 0.0
    served_s: float = 0.0
    in_flight: int = 0
    capacity: int = 0
    statuses: list[int] = field(default_factory=lambda: [0] * 6)
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)


@dataclass
class ZygoteProcess:
    """A zygote as it really is."""

    generation: int
    is_loaded: bool = False
    is_dismissed: bool = False
    told: list[Nudge] = field(default_factory=list)


@dataclass
class AdminProcess:
    """The admin process as it really is."""

    is_ready: bool = False
    is_dismissed: bool = False
    is_killed: bool = False


class World:
    """A fleet, its processes, and the time. Every decision is checked to leave the fleet it was given alone."""

    def __init__(self, workers: int = 2, *, threshold: float = math.inf, **rules: Any) -> None:
        self.fleet = Fleet(
            Rules(recover_threshold=threshold, **rules),
            configured=workers,
            wanted=workers,
            steered=workers,
            slots_open=workers,
        )
        self.now_s = 1000.0
        self.log: list[str] = []
        self.commands: list[Command] = []
        """All since `forget_commands`."""
        self.processes: dict[int, Process] = {}
        self.zygotes: dict[int, ZygoteProcess] = {}
        self.pending: list[c.Spawn] = []
        """Forks asked for and not answered; the zygote answers in order."""
        self.is_out_of_processes = False
        """Start method "exec": every fork fails at once."""
        self.watchers: list[Watcher] = []
        self._next_pid = 501
        self.memory: dict[int, int] = {}
        """Bytes of each worker, by serial number; 0 where nothing is said."""
        self.others_bytes = 0
        self.answers: dict[int, list[control.Answer]] = {}
        """What each client of the control socket has been told."""
        self.waiting = 0
        """Connections in the queue of every slot that is steered away from."""
        self.admins: list[AdminProcess] = []
        """The admin process, while there is one."""
        self.admins_left = 10**9
        """How many more can be made."""
        self.admin_hangs = False
        """It does not become ready, and does not leave unless it is killed."""

    # -- the shell's part -------------------------------------------------------------------------

    def feed(self, event: e.Event) -> tuple[Command, ...]:
        """Let the plan decide on `event`, and on all that follows at once; returns what it first commanded."""
        events = deque([event])
        first: tuple[Command, ...] | None = None
        while events:
            event = events.popleft()
            before, untouched = self.fleet, self.fleet.copy()
            self.fleet, commands = decide(before, event, self.now_s)
            assert before == untouched, "decide has changed the fleet that it was given"
            for watcher in self.watchers:
                watcher(before, event, self.fleet, commands)
            first = commands if first is None else first
            for command in commands:
                self.commands.append(command)
                events.extend(self._execute(command))
        assert first is not None
        return first

    def _execute(self, command: Command) -> list[e.Event]:
        match command:
            case c.StartZygote(generation):
                self.zygotes[generation] = ZygoteProcess(generation)
            case c.RetireZygote(generation):
                self.zygotes[generation].is_dismissed = True
            case c.NudgeZygote(generation, nudge):
                self.zygotes[generation].told.append(nudge)
            case c.Spawn(serial) if self.fleet.rules.uses_zygote:
                self.pending.append(command)
            case c.Spawn(serial):
                return [self._fork_failed(serial) if self.is_out_of_processes else self._born(command)]
            case c.Forget(serial):
                self.pending = [spawn for spawn in self.pending if spawn.child != serial]
            case c.NudgeChild(serial, nudge):
                self.processes[serial].told.append(nudge)
            case c.LookAtQueue(serial):
                return [e.QueueSeen(serial, self.waiting)]
            case c.LookAtPulses():
                return [e.PulsesSeen(tuple(self._pulse(x) for x in self.processes.values()), self.waiting)]
            case c.Renumber(serial, slot):
                self.processes[serial].slot = slot
            case c.LookAtMemory():
                sizes = tuple((serial, self.memory.get(serial, 0)) for serial in self.processes)
                return [e.MemorySeen(sizes, self.others_bytes)]
            case c.StartAdmin() if not self.admins_left:
                return [e.AdminUnstarted(NO_ROOM)]
            case c.StartAdmin():
                assert not self.admins, "there is one already"
                self.admins_left -= 1
                self.admins = [AdminProcess()]
            case c.RetireAdmin():
                self.admins[0].is_dismissed = True
            case c.KillAdmin():
                self.admins[0].is_killed = True
            case c.Answer(client, answer):
                self.answers[client].append(answer)
            case c.Log(level, text):
                self.log.append(f"{level}: {text}")
            case _:
                pass
        return []

    def _pulse(self, process: Process) -> Pulse:
        return Pulse(
            process.serial,
            is_awake=process.is_awake,
            tick_s=self.now_s if process.stuck_since_s is None else process.stuck_since_s,
            in_flight=process.in_flight,
            capacity=process.capacity,
            cpu_s=process.cpu_s,
            served_s=process.served_s,
            statuses=tuple(process.statuses),
            latencies=tuple(process.latencies),
        )

    def _born(self, spawn: c.Spawn) -> e.ChildSpawned:
        process = Process(spawn.child, spawn.slot, spawn.generation, self._next_pid)
        self._next_pid += 1
        self.processes[spawn.child] = process
        return e.ChildSpawned(spawn.child, process.pid)

    def _fork_failed(self, serial: int) -> e.SpawnFailed:
        return e.SpawnFailed(serial, NO_ROOM)

    # -- what a story can make happen -------------------------------------------------------------

    def start(self) -> None:
        self.feed(e.Started())

    def load(self, generation: int = 1) -> None:
        """The zygote has imported the application."""
        self.zygotes[generation].is_loaded = True
        self.feed(e.ZygoteReady(generation))

    def fork(self) -> int:
        """The oldest fork that was asked for succeeds; returns the child's serial number."""
        spawn = self.pending.pop(0)
        self.feed(self._born(spawn))
        return spawn.child

    def fail_fork(self) -> None:
        self.feed(self._fork_failed(self.pending.pop(0).child))

    def fork_all(self) -> list[int]:
        return [self.fork() for _ in list(self.pending)]

    def accept(self, serial: int) -> None:
        """The worker accepts connections, and says so."""
        self.processes[serial].is_ready = True
        self.feed(e.ChildReady(serial))

    def exit(self, serial: int, status: e.ExitStatus = CLEAN, words: LastWords = LastWords()) -> None:  # noqa: B008  (frozen)
        """The process is gone; `words` is what it was at."""
        del self.processes[serial]
        self.feed(e.ChildExited(serial, status, words))

    def wake(self, serial: int) -> None:
        """Something happens in a worker that was at rest."""
        self.processes[serial].is_awake = True
        self.feed(e.ChildAwake(serial))

    def block(self, serial: int) -> None:
        """A worker that is awake does something that never ends, on its loop."""
        self.processes[serial].stuck_since_s = self.now_s

    def crash(self, serial: int) -> None:
        self.exit(serial, SEGFAULT)

    def fail_boot(self, serial: int, failure: e.BootFailure = IMPORT_ERROR) -> None:
        """The worker says that its application does not start, and leaves."""
        self.feed(e.ChildFailed(serial, failure))
        self.exit(serial, e.ExitStatus(code=3))

    def end_zygote(self, generation: int = 1, status: e.ExitStatus = SEGFAULT) -> None:
        del self.zygotes[generation]
        gone = [spawn for spawn in self.pending if spawn.generation == generation]
        self.feed(e.ZygoteExited(generation, status))
        assert not [spawn for spawn in gone if spawn in self.pending], "nobody will ever answer these"

    def fail_load(self, generation: int = 1, failure: e.BootFailure = IMPORT_ERROR) -> None:
        """The zygote says that the application cannot be imported, and leaves."""
        self.feed(e.ZygoteFailed(generation, failure))
        self.end_zygote(generation, e.ExitStatus(code=3))

    def end_admin(self, status: e.ExitStatus) -> None:
        """The admin process is gone."""
        self.admins = []
        self.feed(e.AdminExited(status))

    def pass_time(self, seconds: float) -> None:
        """Let time go by; the master wakes up at each deadline of its own, and the processes do nothing."""
        until_s = self.now_s + seconds
        while not self.fleet.finished:
            deadline_s = self.fleet.next_deadline_s()
            if deadline_s is None or deadline_s > until_s:
                break
            self.now_s = max(self.now_s, deadline_s)
            self.feed(e.DeadlinePassed())
        self.now_s = until_s

    def jump_to_deadline(self) -> bool:
        """Go to the moment the master next wakes up by itself; False if it never does."""
        deadline_s = self.fleet.next_deadline_s()
        if deadline_s is None or self.fleet.finished:
            return False
        self.now_s = max(self.now_s, deadline_s)
        self.feed(e.DeadlinePassed())
        return True

    def ask(self, request: control.Request) -> int:
        """Somebody asks for something on the control socket; returns the client's number."""
        client = len(self.answers) + 1
        self.answers[client] = []
        self.feed(e.Asked(client, request))
        return client

    def final(self, client: int) -> control.Answer | None:
        """The last word that a client has been told; None while it waits."""
        finals = [answer for answer in self.answers[client] if isinstance(answer, control.FINAL)]
        assert len(finals) <= 1
        assert not finals or finals == self.answers[client][-1:], "nothing comes after the last word"
        return finals[0] if finals else None

    # -- processes that behave well ---------------------------------------------------------------

    def answer(self) -> bool:
        """Each process does at most one thing that it has been asked for; False if there was nothing to do."""
        busy = False
        for zygote in list(self.zygotes.values()):
            if zygote.told or zygote.is_dismissed:
                self.end_zygote(zygote.generation, _end_of(zygote.told))
            elif not zygote.is_loaded:
                self.load(zygote.generation)
            else:
                continue
            busy = True
        for process in list(self.processes.values()):
            if process.told and (process.stuck_since_s is None or Nudge.KILL in process.told):
                self.exit(process.serial, _end_of(process.told))
            elif not process.is_ready:
                self.accept(process.serial)
            else:
                continue
            busy = True
        if self.pending:
            self.fork()
            busy = True
        return self._admin_answers() or busy

    def _admin_answers(self) -> bool:
        for admin in self.admins:
            if admin.is_killed or (admin.is_dismissed and not self.admin_hangs):
                self.end_admin(KILLED if admin.is_killed else CLEAN)
                return True
            if not (admin.is_ready or admin.is_dismissed or self.admin_hangs):
                admin.is_ready = True
                self.feed(e.AdminReady())
                return True
        return False

    def settle(self) -> None:
        """Let everybody answer until nobody has anything more to say; no time goes by."""
        rounds = 0
        while self.answer():
            rounds += 1
            assert rounds < 1000, "the fleet does not come to rest"

    def calm_down(self) -> None:
        """As `settle`; whenever nobody has anything to say, go to the next deadline, until only those that never end are left.

        Those are a worker's age and the next look at memory.
        """
        rounds = 0
        while self.answer() or (self.has_an_end_to_wait_for() and self.jump_to_deadline()):
            rounds += 1
            assert rounds < 1000, "the fleet does not come to rest"

    def has_an_end_to_wait_for(self) -> bool:
        """Whether the master waits for something that is over one day, not only for the next time of something."""
        fleet = self.fleet.copy()
        fleet.memory_due_s = None
        fleet.children = {serial: replace(x, wears_at_s=None) for serial, x in fleet.children.items()}
        for serial, process in self.processes.items():  # whose loop turns is looked at for ever
            if serial in fleet.children and process.stuck_since_s is None:
                fleet.children[serial] = replace(fleet.children[serial], beat_s=None)
        return fleet.next_deadline_s() is not None

    def serve(self) -> None:
        """Start, and let everybody become ready."""
        self.start()
        self.settle()

    # -- what a story asks ------------------------------------------------------------------------

    def forget_commands(self) -> None:
        self.commands.clear()
        self.log.clear()

    def sent(self, kind: type[C]) -> list[C]:
        """The commands of that kind since `forget_commands`, in order."""
        return [command for command in self.commands if isinstance(command, kind)]

    def nudges(self, nudge: Nudge) -> list[int]:
        """Serial numbers of the workers that were sent `nudge`, in order."""
        return [command.child for command in self.sent(c.NudgeChild) if command.nudge is nudge]

    def has_said(self, text: str) -> bool:
        return any(text in line for line in self.log)

    def child(self, slot: int) -> Child:
        """The newest worker of a slot, as the master sees it."""
        return max(self.fleet.in_slot(slot), key=lambda child: child.serial)

    def phases(self) -> list[tuple[int, int, Phase]]:
        """(slot, generation, phase) of every worker, in order."""
        children = self.fleet.children.values()
        return sorted(
            ((x.slot, x.generation, x.phase) for x in children), key=lambda row: (*row[:2], row[2].value)
        )

    def is_serving(self, generation: int, workers: int) -> bool:
        """Whether there is one ready worker of `generation` in each slot, and nothing else at all."""
        want = [(slot, generation, Phase.READY) for slot in range(workers)]
        zygotes = [generation] if self.fleet.rules.uses_zygote else []
        return self.phases() == want and list(self.fleet.zygotes) == zygotes

    @property
    def finish(self) -> c.Finish | None:
        """The order to leave the loop, if it has come."""
        found = self.sent(c.Finish)
        assert len(found) <= 1
        return found[0] if found else None


def _end_of(told: list[Nudge]) -> e.ExitStatus:
    if Nudge.KILL in told:
        return KILLED
    if Nudge.DUMP_STACKS in told:
        return e.ExitStatus(signal=6)
    return CLEAN
