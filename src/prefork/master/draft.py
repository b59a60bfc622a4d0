"""The next fleet while it is being written: a copy of the last one, the time, and the commands so far.

Every change that a decision makes goes through a method here, so that a phase never changes without its
deadline and its command. Used by `plan` and `reconcile` only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from prefork.master import commands as c
from prefork.master.commands import Command, Nudge
from prefork.master.events import BootFailure, Stop
from prefork.master.fleet import Child, Fleet, Phase, Seat, Stopping, Zygote, ZygotePhase

SPAWN_TIMEOUT_S = 5.0
"""A zygote that does not answer a request for a fork in this time is hung (a fork takes milliseconds)."""
STACKS_S = 1.0
"""Time for a hung process to write its stacks before it is killed."""
REPEAT_S = 0.5
"""A worker that has not left by then is told once more: a signal may come in the one moment between a program's
last look and its wait, and a server's own loop need not be safe against that."""
FAST_STOP_S = 1.0
"""Time a fast stop leaves a worker to run its `finally` blocks."""
RETIRE_S = 1.0
"""Time a retiring zygote has for its exit handlers."""
STEERED_S = 1.0
"""Time between steering new connections away from a socket and draining its worker: a handshake that had
begun before, one retransmission included (RFC 6298: 1 s), still ends in a queue that is served."""
MAX_DELAY_S = 5.0
"""Longest back-off before jitter: low enough that a fleet that only crashes exceeds 10 crashes a worker a
minute and stops, high enough to cost no CPU worth naming."""
JITTER = 0.5
"""Back-off is stretched by up to this share, never shortened: `recover_interval_s` is a promise."""


@dataclass(slots=True)
class Draft:
    """One decision under way. Created by `plan.decide`."""

    fleet: Fleet
    now_s: float
    commands: list[Command] = field(default_factory=list)

    # -- saying -----------------------------------------------------------------------------------

    def info(self, text: str) -> None:
        self.commands.append(c.Log("info", text))

    def warn(self, text: str) -> None:
        self.commands.append(c.Log("warning", text))

    def error(self, text: str) -> None:
        self.commands.append(c.Log("error", text))

    def tell_failure(self, generation: int, failure: BootFailure, who: str) -> None:
        """Log why a start failed; the application's traceback is printed once a generation."""
        text = f"{who}: {failure.summary}"
        if failure.details and generation not in self.fleet.reported:
            self.fleet.reported |= {generation}
            text += "\n" + failure.details.rstrip()
        self.error(text)

    # -- the whole --------------------------------------------------------------------------------

    def ask_stop(self, how: Stop, why: str) -> None:
        """Somebody wants the fleet gone."""
        was = self.fleet.stopping
        if was is None or how > was.how:
            self.info(f"stopping ({how.name.lower()}): {why}")
        self.stop(how)

    def begin_upgrade(self) -> None:
        """Start the new master, and wait for it."""
        # It has a whole start before it: its zygote's and its workers' boot.
        self.fleet.upgrade_deadline_s = self.now_s + 2 * self.fleet.rules.boot_timeout_s
        self.info("upgrade: starting the new master")
        self.commands.append(c.StartUpgrade())

    # -- children ---------------------------------------------------------------------------------

    def put(self, child: Child, **changes: object) -> Child:
        changed = replace(child, **changes)  # type: ignore[arg-type]
        self.fleet.children[child.serial] = changed
        return changed

    def spawn(self, slot: int, generation: int, renews: int | None = None) -> None:
        fleet = self.fleet
        serial = fleet.next_serial
        fleet.next_serial += 1
        seat = fleet.seat(slot)
        fleet.children[serial] = Child(
            serial,
            slot,
            generation,
            Phase.SPAWNING,
            deadline_s=self.now_s + SPAWN_TIMEOUT_S,
            replaces=seat.crashed_pid,
            renews=renews,
        )
        fleet.seats[slot] = replace(seat, crashed_pid=None)
        fleet.slots_open = max(fleet.slots_open, slot + 1)
        requests = fleet.rules.max_requests
        if requests:
            requests = max(1, int(self.shortened(requests)))
        self.commands.append(c.Spawn(serial, slot, generation, requests))

    def drop(self, child: Child) -> None:
        del self.fleet.children[child.serial]

    def steer_away(self, child: Child) -> None:
        until_s = self.now_s + STEERED_S + max(STEERED_S, self.fleet.rules.grace_s)
        self.put(child, phase=Phase.STEERED, deadline_s=self.now_s + STEERED_S, until_s=until_s)

    def look_at_queue(self, child: Child) -> None:
        """Ask whether its queue is empty by now; if not, it is asked again after the same time."""
        self.put(child, deadline_s=self.now_s + STEERED_S)
        self.commands.append(c.LookAtQueue(child.serial, child.slot))

    def drain(self, child: Child) -> None:
        bound_s = self.fleet.rules.grace_s
        if child.phase is Phase.BOOTING:
            # It has accepted nothing, and its application may swallow what TERM raises in it.
            bound_s = min(FAST_STOP_S, bound_s)
        until_s = self.now_s + bound_s
        due_s = min(self.now_s + REPEAT_S, until_s) if self.fleet.rules.repeats_drain else until_s
        self.put(child, phase=Phase.DRAINING, deadline_s=due_s, until_s=until_s, failure=None)
        self.commands.append(c.NudgeChild(child.serial, Nudge.DRAIN))

    def drain_again(self, child: Child) -> None:
        self.put(child, deadline_s=child.until_s)
        self.commands.append(c.NudgeChild(child.serial, Nudge.DRAIN))

    def quit(self, child: Child) -> None:
        due_s = self.now_s + FAST_STOP_S
        if child.until_s is not None:
            due_s = min(due_s, child.until_s)
        self.put(child, phase=Phase.DRAINING, deadline_s=due_s, until_s=due_s, is_hurried=True)
        self.commands.append(c.NudgeChild(child.serial, Nudge.QUIT))

    def abort(self, child: Child, failure: BootFailure) -> None:
        self.put(child, phase=Phase.ABORTED, deadline_s=self.now_s + STACKS_S, failure=failure)
        self.commands.append(c.NudgeChild(child.serial, Nudge.DUMP_STACKS))

    def kill(self, child: Child) -> None:
        self.put(child, phase=Phase.KILLED, deadline_s=None)
        self.commands.append(c.NudgeChild(child.serial, Nudge.KILL))

    # -- zygotes ----------------------------------------------------------------------------------

    def start_zygote(self, generation: int) -> None:
        due_s = self.now_s + self.fleet.rules.boot_timeout_s
        self.fleet.zygotes[generation] = Zygote(generation, ZygotePhase.STARTING, due_s)
        self.commands.append(c.StartZygote(generation))

    def put_zygote(self, zygote: Zygote, phase: ZygotePhase, deadline_s: float | None) -> None:
        self.fleet.zygotes[zygote.generation] = replace(zygote, phase=phase, deadline_s=deadline_s)

    def retire_zygote(self, zygote: Zygote) -> None:
        self.put_zygote(zygote, ZygotePhase.RETIRING, self.now_s + RETIRE_S)
        self.commands.append(c.RetireZygote(zygote.generation))

    def abort_zygote(self, zygote: Zygote) -> None:
        self.put_zygote(zygote, ZygotePhase.ABORTED, self.now_s + STACKS_S)
        self.commands.append(c.NudgeZygote(zygote.generation, Nudge.DUMP_STACKS))

    def kill_zygote(self, zygote: Zygote) -> None:
        self.put_zygote(zygote, ZygotePhase.KILLED, None)
        self.commands.append(c.NudgeZygote(zygote.generation, Nudge.KILL))

    # -- the whole --------------------------------------------------------------------------------

    def stop(self, how: Stop, error: Exception | None = None) -> None:
        """Begin a stop, or make the one under way harder. The first error is the one that is told."""
        was = self.fleet.stopping
        if was is None:
            self.fleet.stopping = Stopping(how, error)
            self.commands.append(c.Announce("stopping", "stopping"))
            self.commands.append(c.CallLast())
            for child in list(self.fleet.children.values()):
                if child.phase is Phase.SPAWNING and child.deadline_s is not None:
                    due_s = min(child.deadline_s, self.now_s + self.fleet.rules.grace_s)
                    self.put(child, deadline_s=due_s)
        else:
            self.fleet.stopping = Stopping(max(how, was.how), was.error or error)

    def delay_s(self, base_s: float, streak: int, most_s: float = MAX_DELAY_S) -> float:
        """Back-off before try number `streak` (from 1): doubling, bounded, stretched by jitter."""
        stretch = 1 + JITTER * self._chance()
        bound_s = max(most_s, base_s)
        return float(min(base_s * 2 ** min(streak - 1, 30), bound_s)) * stretch

    def shortened(self, bound: float) -> float:
        """A bound of recycling with its jitter: shortened, never stretched, so that the bound is one."""
        return bound * (1 - self.fleet.rules.recycle_jitter * self._chance())

    def _chance(self) -> float:
        """A number from 0 to 1, by Numerical Recipes' generator: jitter must differ between masters, not be secret."""
        fleet = self.fleet
        fleet.chance = (fleet.chance * 1664525 + 1013904223) % 2**32
        return fleet.chance / 2**32

    def back_off(self, seat: Seat, base_s: float, streak: int, most_s: float = MAX_DELAY_S) -> Seat:
        return replace(seat, not_before_s=self.now_s + self.delay_s(base_s, streak, most_s))
