"""A random walk over all that can happen to a fleet, and what must hold after each step of it.

The rules of `FleetMachine` are the things that processes, people and time do; `Invariants` watches every decision.
"""

from __future__ import annotations

import math
from unittest import mock

import pytest
from hypothesis import Phase as Phases
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from prefork import control
from prefork.errors import OverRecoveryError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.admin import RETIRE_S as ADMIN_RETIRE_S
from prefork.master.commands import Command, Nudge
from prefork.master.draft import FAST_STOP_S, RETIRE_S, SPAWN_TIMEOUT_S, STACKS_S, STEERED_S
from prefork.master.fleet import LIVE, Child, Fleet, Phase
from tests.unit.fleets import CLEAN, IMPORT_ERROR, KILLED, SEGFAULT, World

NOT_FINAL = e.BootFailure("the server raises OSError", is_final=False)
STATUSES = st.sampled_from([SEGFAULT, KILLED, CLEAN, e.ExitStatus(code=1), e.ExitStatus(code=3)])
FAILURES = st.sampled_from([IMPORT_ERROR, NOT_FINAL])
NTH = st.integers(0, 7)
SLACK_S = 1e-6
SHRINKING_S = 20
"""Well below the suite's bound for one test, which would end it without an example."""


class Invariants:
    """Watches a world. Each method is one sentence that holds after each decision."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nudged: dict[int, list[Nudge]] = {}
        self.spawned: set[int] = set()
        self.hooked_pids: list[int] = []
        self.recovered: list[int] = []
        self.died_pids: set[int] = set()
        self.ready_hooks = 0
        self.finishes = 0
        self.steered_away_at_s: dict[int, float] = {}
        """For each slot that is not steered to: since when."""
        self.undrained = set(range(world.fleet.steered))
        """Slots whose queue may hold connections: they have been steered to, and not drained since."""
        self.vacated: dict[int, int] = {}
        """Pid of each crashed worker that nobody stands in for yet, and its slot."""
        world.watchers.append(self.check)

    def check(self, before: Fleet, event: e.Event, after: Fleet, commands: tuple[Command, ...]) -> None:
        if isinstance(event, e.ChildExited):
            pid = before.children[event.child].pid
            assert pid is not None
            self.died_pids.add(pid)
        self.no_slot_is_closed_with_connections_in_its_queue(before, commands)
        self.a_slot_is_not_filled_while_its_hung_worker_is_not_counted(before, after, commands)
        self.a_recovery_is_told_of_the_worker_that_stands_in(before, event, after, commands)
        self.slots_hold_no_more_than_the_declared_overlap(after)
        self.a_zygote_is_started_once_and_asked_only_when_ready(before, commands)
        self.nothing_starts_while_stopping(after, commands)
        self.one_worker_at_a_time_is_recycled(after, commands)
        self.a_successor_that_fails_is_no_crash(before, event, after)
        self.whoever_asks_is_answered_once(after)
        self.the_service_manager_hears_of_nothing_after_the_stop(before, commands)
        self.nothing_old_leaves_before_something_new_is_ready(before, after, commands)
        self.our_own_commands_never_lower_what_serves(before, event, after)
        self.each_worker_is_told_each_thing_once_a_drain_twice_and_nothing_after_its_kill(before, commands)
        self.hooks_come_in_the_order_of_the_seed(before, after, commands)
        self.steering_comes_before_the_drain_and_slots_close_from_the_last(before, after, commands)
        self.the_end_comes_once_and_last(after, commands)
        self.time_is_finite(after)

    def slots_hold_no_more_than_the_declared_overlap(self, after: Fleet) -> None:
        """One of the current generation, of the incoming one (in slot 0), of those before; beside a worn one its successor."""
        live: dict[tuple[int, int], list[Child]] = {}
        for child in after.children.values():
            if child.phase in LIVE:
                live.setdefault((child.slot, child.generation), []).append(child)
        for (slot, generation), children in live.items():
            old, *successors = sorted(children, key=lambda child: child.serial)
            assert len(successors) <= 1, f"slot {slot} holds {children}"
            for successor in successors:
                assert successor.renews == old.serial, f"slot {slot} holds {children}"
                assert old.worn
            if generation == after.incoming:
                assert slot == 0
        for slot in {slot for slot, _ in live}:
            older = [
                x for (at, gen), found in live.items() for x in found if at == slot and gen < after.generation
            ]
            if after.stopping is None:
                assert not [x for x in older if x.phase is Phase.BOOTING]
            assert len([x for x in older if x.phase is Phase.READY and not x.worn]) <= 1

    def a_zygote_is_started_once_and_asked_only_when_ready(
        self, before: Fleet, commands: tuple[Command, ...]
    ) -> None:
        for command in commands:
            if isinstance(command, c.StartZygote):
                assert command.generation not in self.world.zygotes
            elif isinstance(command, c.Spawn) and before.rules.uses_zygote:
                assert self.world.zygotes[command.generation].is_loaded
                assert not self.world.zygotes[command.generation].told
            elif isinstance(command, c.RetireZygote):
                stopping = self.world.fleet.stopping
                is_hurried = stopping is not None and stopping.how > e.Stop.GRACEFUL
                alive = {x.generation for x in self.world.processes.values()}
                assert is_hurried or command.generation not in alive
                assert not self.world.zygotes[command.generation].is_dismissed

    def nothing_starts_while_stopping(self, after: Fleet, commands: tuple[Command, ...]) -> None:
        if after.stopping is not None:
            starts = (c.Spawn, c.StartZygote, c.StartUpgrade, c.StartAdmin)
            assert not [x for x in commands if isinstance(x, starts)]

    def the_service_manager_hears_of_nothing_after_the_stop(
        self, before: Fleet, commands: tuple[Command, ...]
    ) -> None:
        if before.stopping is not None:
            assert not [x for x in commands if isinstance(x, c.Announce) and x.state != "stopping"]

    def nothing_old_leaves_before_something_new_is_ready(
        self, before: Fleet, after: Fleet, commands: tuple[Command, ...]
    ) -> None:
        for command in commands:
            if not isinstance(command, c.NudgeChild):
                continue
            told = before.children.get(command.child)
            if told is None or told.phase is not Phase.READY:
                continue
            if after.stopping is None and not after.resting and told.slot < after.wanted:
                assert any(
                    x.phase is Phase.READY and (x.generation > told.generation or x.renews == told.serial)
                    for x in after.in_slot(told.slot)
                )

    def one_worker_at_a_time_is_recycled(self, after: Fleet, commands: tuple[Command, ...]) -> None:
        """The next one waits until the last one has left. And none during a reload, which replaces all."""
        assert len({x.renews for x in after.children.values() if x.renews in after.children}) <= 1
        for command in commands:
            if isinstance(command, c.Spawn) and after.children[command.child].renews is not None:
                assert after.incoming is None
                assert not after.rolling

    def a_successor_that_fails_is_no_crash(self, before: Fleet, event: e.Event, after: Fleet) -> None:
        """What serves is not ended because what was to come after it does not start."""
        if isinstance(event, (e.ChildExited, e.SpawnFailed)):
            child = before.children.get(event.child)
            old = None if child is None or child.renews is None else before.children.get(child.renews)
            if (
                child is not None
                and child.ready_at_s is None
                and old is not None
                and old.phase is Phase.READY
            ):
                assert after.crashes_s == before.crashes_s
                assert after.children[old.serial].phase is Phase.READY or after.stopping or after.resting

    def whoever_asks_is_answered_once(self, after: Fleet) -> None:
        """Who waits has had no last word; who has had it does not wait; and at the end nobody waits."""
        waiting = [wait.client for wait in after.waits]
        assert len(waiting) == len(set(waiting))
        if after.finished:
            assert not waiting

    def our_own_commands_never_lower_what_serves(self, before: Fleet, event: e.Event, after: Fleet) -> None:
        if after.stopping is not None or after.resting:
            return
        died = event.child if isinstance(event, e.ChildExited) else None
        serving = {x.slot for x in before.children.values() if x.phase is Phase.READY and x.serial != died}
        still = {x.slot for x in after.children.values() if x.phase is Phase.READY}
        if died is None or before.children[died].phase is not Phase.READY:
            assert {slot for slot in serving if slot < after.wanted} <= still

    def each_worker_is_told_each_thing_once_a_drain_twice_and_nothing_after_its_kill(
        self, before: Fleet, commands: tuple[Command, ...]
    ) -> None:
        for command in commands:
            if isinstance(command, c.Spawn):
                assert command.child not in self.spawned
                self.spawned.add(command.child)
            elif isinstance(command, c.NudgeChild):
                assert command.child in self.world.processes, "nobody is there to be told"
                told = self.nudged.setdefault(command.child, [])
                assert Nudge.KILL not in told
                # A drain is asked for once more where the first was not heard; never a third time.
                assert told.count(command.nudge) < (2 if command.nudge is Nudge.DRAIN else 1)
                told.append(command.nudge)

    def hooks_come_in_the_order_of_the_seed(
        self, before: Fleet, after: Fleet, commands: tuple[Command, ...]
    ) -> None:
        for command in commands:
            if isinstance(command, c.CallSpawnHook):
                assert command.pid not in self.hooked_pids
                self.hooked_pids.append(command.pid)
            elif isinstance(command, c.CallReadyHook):
                self.ready_hooks += 1
                assert len(command.pids) == after.wanted
                assert set(command.pids) <= set(self.hooked_pids)
            elif isinstance(command, c.CallRecoverHook):
                assert self.hooked_pids[-1] == command.new_pid
                assert command.old_pid in self.died_pids
                assert command.old_pid not in self.recovered, "it has been recovered from already"
                self.recovered.append(command.old_pid)
        assert self.ready_hooks <= 1

    def steering_comes_before_the_drain_and_slots_close_from_the_last(
        self, before: Fleet, after: Fleet, commands: tuple[Command, ...]
    ) -> None:
        slots_open = before.slots_open
        for command in commands:
            if isinstance(command, c.Spawn):
                assert command.slot <= slots_open, "slots are opened in order"
                if command.slot == slots_open:
                    self.steered_away_at_s[command.slot] = -math.inf
                slots_open = max(slots_open, command.slot + 1)
            elif isinstance(command, c.Steer):
                assert before.rules.reuseport
                away = range(command.count, slots_open)
                self.steered_away_at_s = {at: self.steered_away_at_s.get(at, self.world.now_s) for at in away}
                assert 1 <= command.count <= after.wanted
            elif isinstance(command, c.CloseSlot):
                slots_open -= 1
                assert command.slot == slots_open >= after.wanted
                assert after.steered <= command.slot
                assert command.slot not in {x.slot for x in self.world.processes.values()}
            elif isinstance(command, c.NudgeChild) and command.nudge is Nudge.DRAIN:
                self._drained(before.children.get(command.child), after)

    def _drained(self, child: Child | None, after: Fleet) -> None:
        is_steered = child is not None and child.phase is Phase.STEERED
        if child is not None and is_steered and after.stopping is None and not after.resting:
            is_wanted_again = child.slot < after.steered
            since_s = self.steered_away_at_s.get(child.slot, math.inf)
            assert is_wanted_again or self.world.now_s >= since_s + STEERED_S - SLACK_S

    def the_end_comes_once_and_last(self, after: Fleet, commands: tuple[Command, ...]) -> None:
        if any(isinstance(x, c.Finish) for x in commands):
            self.finishes += 1
            assert isinstance(commands[-1], c.Finish)
            assert not self.world.processes
            assert not self.world.zygotes
            assert not self.world.admins
            forgotten = {x.child for x in commands if isinstance(x, c.Forget)}
            assert not [x for x in self.world.pending if x.child not in forgotten]
        assert self.finishes == int(after.finished)

    def no_slot_is_closed_with_connections_in_its_queue(
        self, before: Fleet, commands: tuple[Command, ...]
    ) -> None:
        """Only a worker that went on accepting after new connections went elsewhere leaves an empty queue."""
        for command in commands:
            if isinstance(command, c.Steer):
                self.undrained |= set(range(command.count))
            elif isinstance(command, c.NudgeChild) and command.nudge is Nudge.DRAIN:
                child = before.children.get(command.child)
                if child is not None and child.phase is Phase.STEERED and child.slot >= before.steered:
                    self.undrained.discard(child.slot)
            elif isinstance(command, c.CloseSlot):
                assert command.slot not in self.undrained

    def a_slot_is_not_filled_while_its_hung_worker_is_not_counted(
        self, before: Fleet, after: Fleet, commands: tuple[Command, ...]
    ) -> None:
        for command in commands:
            if isinstance(command, c.Spawn):
                same = [x for x in after.in_slot(command.slot) if x.generation == command.generation]
                hung = [x for x in same if x.phase is Phase.ABORTED]
                assert not hung or len(after.crashes_s) > 0 or before.rules.recover_window_s < STACKS_S

    def a_recovery_is_told_of_the_worker_that_stands_in(
        self, before: Fleet, event: e.Event, after: Fleet, commands: tuple[Command, ...]
    ) -> None:
        """Somebody who became ready in that slot meanwhile stood in already."""
        if isinstance(event, e.ChildExited):
            child = before.children[event.child]
            assert child.pid is not None
            self.vacated[child.pid] = child.slot
        elif isinstance(event, e.ChildReady) and before.children[event.child].phase is Phase.BOOTING:
            slot = before.children[event.child].slot
            self.vacated = {pid: at for pid, at in self.vacated.items() if at != slot}
        for command in commands:
            if isinstance(command, c.CallRecoverHook):
                assert command.old_pid in self.died_pids
            elif isinstance(command, c.Spawn):
                replaces = after.children[command.child].replaces
                assert replaces is None or replaces in self.vacated

    def time_is_finite(self, after: Fleet) -> None:
        deadline_s = after.next_deadline_s()
        assert deadline_s is None or math.isfinite(deadline_s)


class FleetMachine(RuleBasedStateMachine):
    """Workers and zygotes do anything a process can do, people ask for anything, at any time."""

    @initialize(
        workers=st.integers(1, 3),
        threshold=st.sampled_from([1, 5, math.inf, math.inf]),
        window_s=st.sampled_from([60.0, math.inf]),
        interval_s=st.sampled_from([0.0, 0.1, 30.0]),
        grace_s=st.sampled_from([0.0, 0.5, 30.0]),
        boot_timeout_s=st.sampled_from([0.5, 60.0]),
        uses_zygote=st.booleans(),
        reuseport=st.booleans(),
        max_age_s=st.sampled_from([math.inf, math.inf, 40.0]),
        watches_code=st.booleans(),
        has_admin=st.booleans(),
        memory=st.sampled_from([(None, None), (None, None), (100, None), (None, 150), (100, 150)]),
    )
    def begin(
        self,
        *,
        workers: int,
        threshold: float,
        window_s: float,
        interval_s: float,
        grace_s: float,
        boot_timeout_s: float,
        uses_zygote: bool,
        reuseport: bool,
        max_age_s: float,
        watches_code: bool,
        has_admin: bool,
        memory: tuple[int | None, int | None],
    ) -> None:
        self.world = World(
            workers,
            threshold=threshold,
            recover_window_s=window_s,
            recover_interval_s=interval_s,
            grace_s=grace_s,
            boot_timeout_s=boot_timeout_s,
            uses_zygote=uses_zygote,
            reuseport=reuseport,
            max_age_s=max_age_s,
            watches_code=watches_code,
            has_admin=has_admin,
            recycle_jitter=0.2,
            max_memory_bytes=memory[0],
            max_fleet_bytes=memory[1],
        )
        self.watch = Invariants(self.world)
        self.left: set[int] = set()
        """Clients that have not waited for their answer."""
        self.world.start()

    # -- processes --------------------------------------------------------------------------------

    @rule()
    def everybody_answers_once(self) -> None:
        self.world.answer()

    @rule()
    def everybody_answers(self) -> None:
        self.world.settle()

    @precondition(lambda self: self.world.pending)
    @rule()
    def a_fork_succeeds(self) -> None:
        self.world.fork()

    @precondition(lambda self: self.world.pending)
    @rule()
    def a_fork_fails(self) -> None:
        self.world.fail_fork()

    @rule(is_out=st.booleans())
    def processes_run_out_or_come_back(self, *, is_out: bool) -> None:
        self.world.is_out_of_processes = is_out

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH)
    def a_worker_accepts(self, nth: int) -> None:
        serial = self._pick(nth)
        if not self.world.processes[serial].is_ready:
            self.world.accept(serial)

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH, failure=FAILURES)
    def a_worker_reports_a_failure(self, nth: int, failure: e.BootFailure) -> None:
        serial = self._pick(nth)
        if not self.world.processes[serial].is_ready:
            self.world.feed(e.ChildFailed(serial, failure))

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH, status=STATUSES)
    def a_worker_dies(self, nth: int, status: e.ExitStatus) -> None:
        self.world.exit(self._pick(nth), status)

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH)
    def a_worker_obeys(self, nth: int) -> None:
        serial = self._pick(nth)
        if self.world.processes[serial].told:
            self.world.exit(serial, CLEAN)

    @precondition(lambda self: self.world.admins)
    @rule(status=STATUSES)
    def the_admin_process_dies(self, status: e.ExitStatus) -> None:
        crashes = self.world.fleet.crashes_s
        self.world.end_admin(status)
        assert self.world.fleet.crashes_s == crashes

    @rule(left=st.sampled_from([0, 1, 10**9]))
    def admin_processes_run_out_or_come_back(self, left: int) -> None:
        self.world.admins_left = left

    @precondition(lambda self: self.world.zygotes)
    @rule(nth=NTH)
    def a_zygote_has_loaded(self, nth: int) -> None:
        zygote = list(self.world.zygotes.values())[nth % len(self.world.zygotes)]
        if not zygote.is_loaded:
            self.world.load(zygote.generation)

    @precondition(lambda self: self.world.zygotes)
    @rule(nth=NTH, failure=FAILURES)
    def a_zygote_cannot_load(self, nth: int, failure: e.BootFailure) -> None:
        zygote = list(self.world.zygotes.values())[nth % len(self.world.zygotes)]
        if not zygote.is_loaded:
            self.world.feed(e.ZygoteFailed(zygote.generation, failure))

    @precondition(lambda self: self.world.zygotes)
    @rule(nth=NTH, status=STATUSES)
    def a_zygote_dies(self, nth: int, status: e.ExitStatus) -> None:
        self.world.end_zygote(list(self.world.zygotes)[nth % len(self.world.zygotes)], status)

    @precondition(lambda self: self.world.zygotes)
    @rule(nth=NTH)
    def a_zygote_could_not_be_made(self, nth: int) -> None:
        """As the shell says it: before anything else is known of that zygote."""
        generation = list(self.world.zygotes)[nth % len(self.world.zygotes)]
        zygote = self.world.zygotes[generation]
        if not (zygote.is_loaded or zygote.is_dismissed or zygote.told) and self.world.fleet.stopping is None:
            del self.world.zygotes[generation]
            self.world.feed(e.ZygoteUnstarted(generation, "Too many open files"))

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH)
    def a_worker_has_served_enough(self, nth: int) -> None:
        self.world.feed(e.ChildWorn(self._pick(nth), "it has served 200 requests"))

    @precondition(lambda self: self.world.processes)
    @rule(nth=NTH, size=st.sampled_from([0, 60, 90, 110]))
    def a_worker_grows_or_shrinks(self, nth: int, size: int) -> None:
        self.world.memory[self._pick(nth)] = size

    # -- time -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 10.0, 1e6]))
    def time_goes_by_and_the_master_wakes_late(self, seconds: float) -> None:
        self.world.now_s += seconds
        self._deadline_passes()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 70.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def the_next_deadline_passes(self) -> None:
        deadline_s = self.world.fleet.next_deadline_s()
        if deadline_s is not None:
            self.world.now_s = max(self.world.now_s, deadline_s)
            self._deadline_passes()

    def _deadline_passes(self) -> None:
        """The master is woken up for a deadline a few times at most: it does not spin."""
        for _ in range(4):
            self.world.feed(e.DeadlinePassed())
            deadline_s = self.world.fleet.next_deadline_s()
            if deadline_s is None or deadline_s > self.world.now_s:
                return
        raise AssertionError(f"a deadline is in the past for ever: {self.world.fleet}")

    # -- people on the control socket -------------------------------------------------------------

    @rule()
    def a_reload_is_waited_for(self) -> None:
        self._ask(control.Reload())

    @rule(workers=st.integers(1, 4))
    def a_size_is_waited_for(self, workers: int) -> None:
        self._ask(control.Scale(workers))

    @rule(slot=st.integers(0, 4))
    def a_worker_is_to_be_recycled(self, slot: int) -> None:
        self._ask(control.Recycle(f"slot:{slot}"))

    @rule(slot=st.integers(0, 4), answers=st.booleans())
    def a_worker_is_asked_where_it_stands(self, slot: int, *, answers: bool) -> None:
        client = self._ask(control.Stacks(str(slot)))
        asked = [x for x in self.world.sent(c.AskStacks) if x.client == client]
        if answers and asked:
            self.world.feed(e.StacksSeen(client, asked[0].child, "here"))
            assert self.world.final(client) == control.StacksReport("here")

    @rule()
    def an_upgrade_is_waited_for(self) -> None:
        self._ask(control.Upgrade())

    @rule(is_fast=st.booleans(), chance=st.integers(0, 9))
    def a_stop_is_waited_for(self, chance: int, *, is_fast: bool) -> None:
        if chance == 0:
            self._ask(control.Stop(is_fast))

    @precondition(lambda self: self.world.fleet.waits)
    @rule(nth=NTH)
    def somebody_waits_no_longer(self, nth: int) -> None:
        waits = self.world.fleet.waits
        client = waits[nth % len(waits)].client
        self.world.feed(e.ClientLeft(client))
        self.left.add(client)

    def _ask(self, request: control.Request) -> int:
        client = self.world.ask(request)
        is_waiting = client in {wait.client for wait in self.world.fleet.waits}
        assert is_waiting != (self.world.final(client) is not None)
        return client

    # -- people -----------------------------------------------------------------------------------

    @rule()
    def a_reload_is_asked_for(self) -> None:
        self.world.feed(e.ReloadAsked())

    @rule(delta=st.sampled_from([-2, -1, 1, 2]))
    def another_size_is_asked_for(self, delta: int) -> None:
        if self.world.fleet.wanted + delta < 5:
            self.world.feed(e.ScaleAsked(delta))

    @rule()
    def a_rest_is_asked_for(self) -> None:
        self.world.feed(e.RestAsked())

    @rule()
    def log_files_are_moved(self) -> None:
        self.world.feed(e.ReopenAsked())

    @precondition(lambda self: self.world.fleet.rules.watches_code)
    @rule()
    def the_code_is_edited(self) -> None:
        self.world.feed(e.CodeChanged("app.py"))

    @precondition(lambda self: self.world.fleet.rules.watches_code)
    @rule()
    def whoever_watches_the_code_ends(self) -> None:
        self.world.feed(e.LookoutLost("exit status 1"))

    @rule()
    def an_upgrade_is_asked_for(self) -> None:
        self.world.feed(e.UpgradeAsked())

    @rule()
    def an_upgrade_fails(self) -> None:
        self.world.feed(e.UpgradeLost("exit status 3"))

    @precondition(lambda self: self.world.fleet.upgrade_deadline_s is not None)
    @rule(chance=st.integers(0, 2))
    def an_upgrade_succeeds(self, chance: int) -> None:
        if chance == 0:
            self.world.feed(e.UpgradeReady())

    @rule(how=st.sampled_from(list(e.Stop)), chance=st.integers(0, 3))
    def a_stop_is_asked_for(self, how: e.Stop, chance: int) -> None:
        """Rarely: most of life comes before it."""
        if chance == 0:
            self.world.feed(e.StopAsked(how, "a test"))

    @rule(chance=st.integers(0, 9))
    def a_hook_raises(self, chance: int) -> None:
        if chance == 0:
            self.world.feed(e.Broken(RuntimeError("a hook")))

    # -- ends -------------------------------------------------------------------------------------

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        """A calm world converges to what is wanted and nothing else, and then the master sleeps for ever."""
        world = self.world
        world.is_out_of_processes = False
        world.admins_left = 10**9
        world.calm_down()
        if world.fleet.rules.watches_code and not world.processes:
            world.feed(e.CodeChanged("app.py"))  # its start has failed, and this mends it
            world.calm_down()
        fleet = world.fleet
        assert not world.has_an_end_to_wait_for()
        self._who_waited_has_been_told()
        if fleet.stopping is not None:
            assert fleet.finished
        elif fleet.resting:
            assert not world.processes
        else:
            assert world.is_serving(fleet.generation, fleet.wanted), world.phases()
            assert (fleet.incoming, fleet.rolling, fleet.reload_again) == (None, False, False)
            assert fleet.announced
            assert fleet.all_ready
            if fleet.rules.reuseport:
                assert fleet.steered == fleet.slots_open == fleet.wanted

    def teardown(self) -> None:
        """However things stand: a stop ends in time, even if nothing but SIGKILL is heard."""
        world = getattr(self, "world", None)
        if world is None:
            return
        asked_s = world.now_s
        world.feed(e.StopAsked(e.Stop.GRACEFUL, "the end"))
        while not world.fleet.finished:
            if not self._the_killed_are_gone():
                assert world.jump_to_deadline(), f"nobody waits for anything: {world.fleet}"
        assert self.watch.finishes == 1
        assert all(world.final(client) is not None for client in world.answers if client not in self.left)
        bound_s = world.fleet.rules.grace_s + SPAWN_TIMEOUT_S + RETIRE_S + STACKS_S + FAST_STOP_S
        bound_s += ADMIN_RETIRE_S
        assert world.now_s - asked_s <= bound_s
        assert not world.fleet.lookout.is_running
        error = world.fleet.stopping.error
        if world.fleet.rules.recover_threshold == math.inf:
            assert not isinstance(error, OverRecoveryError)

    def _who_waited_has_been_told(self) -> None:
        """In a calm world everything comes to an end; only an upgrade is decided elsewhere, and then by its deadline."""
        assert not self.world.fleet.waits
        for client in self.world.answers:
            assert client in self.left or self.world.final(client) is not None

    def _the_killed_are_gone(self) -> bool:
        world = self.world
        for process in world.processes.values():
            if Nudge.KILL in process.told:
                world.exit(process.serial, KILLED)
                return True
        for zygote in world.zygotes.values():
            if Nudge.KILL in zygote.told:
                world.end_zygote(zygote.generation, KILLED)
                return True
        if any(admin.is_killed for admin in world.admins):
            world.end_admin(KILLED)
            return True
        return False

    def _pick(self, nth: int) -> int:
        return list(self.world.processes)[nth % len(self.world.processes)]


FleetMachine.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    # A failure is shown once and soon: nothing is tried only to explain it, or to find another beside it.
    report_multiple_bugs=False,
    phases=(Phases.explicit, Phases.reuse, Phases.generate, Phases.shrink),
)


@pytest.mark.timeout(180)  # seven seconds of CPU: a busy machine makes more of them than the suite's bound
class TestFleet(FleetMachine.TestCase):
    def runTest(self) -> None:  # noqa: N802 - unittest's name
        """Whatever happens, in whatever order: the invariants hold."""
        # Hypothesis makes a failure shorter for up to five minutes, and has no setting for that.
        with mock.patch.object(engine, "MAX_SHRINKING_SECONDS", SHRINKING_S, create=True):
            super().runTest()
