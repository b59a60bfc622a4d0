"""The hands of the master: carries out the plan's commands, with the listeners, the hooks and the log.

What a command leads to comes back as events. The processes themselves, and what they say, are `household`'s. No method blocks for longer than a fork, but for the program's own hooks, which say so themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prefork import control, system
from prefork.channel import Channel, Fork, Renumber, Reopen, Start
from prefork.contracts import CommandProducer, HasFileno, Logger, OnChildRecover, OnChildSpawn, OnMasterReady
from prefork.errors import AddressError, ForkWithThreadsError, PreforkError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.attendant import Attendance, Attendant
from prefork.master.commands import Nudge
from prefork.master.controls import Controls
from prefork.master.desk import Desk, describe_nothing
from prefork.master.gauge import Gauge
from prefork.master.household import FIRST, Household
from prefork.master.lookout import Lookout
from prefork.master.pidfile import Pidfile
from prefork.master.signals import Inbox
from prefork.master.spawn import Kin, ZygoteMain, execute_worker, execute_zygote, fork_zygote
from prefork.master.strangers import Strangers
from prefork.master.upgrade import Upgrade
from prefork.master.watcher import Watcher
from prefork.net.listeners import ListenerSet
from prefork.net.systemd import Notifier
from prefork.recorder import LastWords
from prefork.scoreboard import Scoreboard

_SIGNALS = {
    Nudge.DRAIN: "SIGTERM",
    Nudge.QUIT: "SIGQUIT",
    Nudge.DUMP_STACKS: "SIGABRT",
    Nudge.KILL: "SIGKILL",
}


@dataclass(frozen=True, slots=True)
class Hooks:
    """The program's own functions, called here, in the master, in its loop: a slow one delays everything."""

    on_child_spawn: OnChildSpawn | None = None
    on_master_ready: OnMasterReady | None = None
    on_child_recover: OnChildRecover | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """How this master makes processes. The composition root chooses."""

    zygote_main: ZygoteMain
    uses_zygote: bool
    is_fork_fresh: Callable[[int], bool]
    """Whether a fork of the master gives the generation fresh code; else the program is run again."""
    command_producer: CommandProducer | None
    reopen_logs: Callable[[], object]
    is_whole_program: bool
    """Nobody but us has children in this process, so every stranger that ends is ours to reap at once."""
    set_log_level: Callable[[str], object] = str
    is_watching: bool = False
    """Workers are to say when they wake up: somebody looks at them from then on."""
    describe: Callable[[], control.StatusReport] = describe_nothing
    """Who we are, for who asks on the control socket: version, addresses, what is served."""
    pidfile: Pidfile | None = None
    started_in: str | None = None
    """Where the program is run again; None for here."""
    predecessor_fd: int = -1
    """Where to tell the master that we replace that we are ready; -1 if there is none."""


class Shell:
    """The master's descriptors and what is done with them. One per master, used by its loop only."""

    def __init__(
        self,
        listeners: ListenerSet,
        inbox: Inbox,
        *,
        notifier: Notifier,
        logger: Logger,
        hooks: Hooks,
        means: Means,
        scoreboard: Scoreboard | None = None,
        controls: Controls | None = None,
        gauge: Gauge | None = None,
        lookout: Lookout | None = None,
        attendance: Attendance | None = None,
    ) -> None:
        self.listeners = listeners
        self.inbox = inbox
        self.logger = logger
        self.is_finished = False
        self.error: Exception | None = None
        self._notifier = notifier
        self._hooks = hooks
        self._means = means
        self._scoreboard = scoreboard
        self._household = Household(Strangers(0.0 if means.is_whole_program else None), self._give_back)
        path = controls.path if controls is not None else ""
        admin = attendance.listeners if attendance is not None else None
        self._upgrade = Upgrade(
            listeners, notifier, means.predecessor_fd, means.started_in, path, admin=admin
        )
        self._attendant = Attendant(self._household, controls, attendance)
        self._watchdog_due_s = system.now_s()
        self._household.watch(inbox.fileno(), FIRST, self._asked)
        self._gauge = gauge
        self._lookout = lookout
        self._watcher = Watcher(self._household, scoreboard, listeners, system.Meter())
        self._controls = controls
        self._desk = Desk(
            controls, self._household, scoreboard, means.describe, means.set_log_level, queued=self._queued
        )
        if controls is not None:
            self._household.watch(controls.fileno(), FIRST, controls.take)
        self._do: dict[type, Callable[[Any], Iterable[e.Event] | None]] = {
            c.StartZygote: self._start_zygote,
            c.RetireZygote: self._retire_zygote,
            c.NudgeZygote: self._nudge_zygote,
            c.Spawn: self._spawn,
            c.Forget: self._forget,
            c.NudgeChild: self._nudge_child,
            c.CallSpawnHook: self._call_spawn_hook,
            c.CallReadyHook: self._call_ready_hook,
            c.CallRecoverHook: self._call_recover_hook,
            c.Steer: self._steer,
            c.LookAtQueue: self._look_at_queue,
            c.CloseSlot: self._close_slot,
            c.CallLast: self._call_last,
            c.ReopenLogs: self._reopen_logs,
            c.LookAtMemory: self._look_at_memory,
            c.LookAtPulses: self._look_at_pulses,
            c.ListSuspects: self._list_suspects,
            c.Renumber: self._renumber,
            c.Answer: self._desk.answer,
            c.AskStacks: self._desk.ask_stacks,
            c.DumpStacks: self._desk.dump_stacks,
            c.SetLogLevel: self._desk.set_log_level,
            c.StartUpgrade: self._start_upgrade,
            c.KillUpgrade: self._kill_upgrade,
            c.StartLookout: self._start_lookout,
            c.EndLookout: self._end_lookout,
            c.StartAdmin: self._attendant.start,
            c.RetireAdmin: self._attendant.retire,
            c.KillAdmin: self._attendant.kill,
            c.Announce: self._announce,
            c.Log: self._log,
            c.Finish: self._finish,
        }

    # -- for the loop -----------------------------------------------------------------------------

    def wait(self, timeout_s: float | None) -> Iterator[e.Event]:
        """Block until something happens or the time is over, then say what: asked-for things first."""
        return self._household.wait(self._until_watchdog_s(timeout_s))

    def _until_watchdog_s(self, timeout_s: float | None) -> float | None:
        """Feed the service manager's watchdog if it is time, and see that we wake up for the next time."""
        every_s = self._notifier.watchdog_interval_s
        if every_s is None:
            return timeout_s
        now_s = system.now_s()
        if now_s >= self._watchdog_due_s:
            self._notifier.watchdog()
            self._watchdog_due_s = now_s + every_s
        left_s = self._watchdog_due_s - now_s
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def execute(self, command: c.Command) -> Iterable[e.Event]:
        """Carry out one command; what it led to at once comes back."""
        return self._do[type(command)](command) or ()

    def close(self) -> None:
        """Let go of everything, the listeners included. Also for the copy in a forked zygote."""
        self._household.close()
        self._attendant.close()
        self._upgrade.close()
        self._notifier.close()
        self.inbox.close()
        if self._lookout is not None:
            self._lookout.close()
        if self._controls is not None:
            self._controls.close()
        if self._scoreboard is not None:
            self._scoreboard.close()
        self.listeners.close()

    # -- what comes in ----------------------------------------------------------------------------

    def _asked(self) -> Iterator[e.Event]:
        for event in self.inbox.take():
            if event is not None:
                yield event
            else:
                yield from self._attendant.look_after()
                pids = self._upgrade.pids | self._attendant.pids | self._lookout_pids
                yield from self._household.look_after(pids)

    # -- what goes out ----------------------------------------------------------------------------

    def _start_zygote(self, command: c.StartZygote) -> Iterable[e.Event]:
        generation = command.generation
        try:
            if self._means.is_fork_fresh(generation):
                kin = fork_zygote(generation, self.close, self._means.zygote_main)
            else:
                kin = execute_zygote(generation, self._means.started_in)
        except (OSError, PreforkError) as error:
            if isinstance(error, ForkWithThreadsError) and self._household.is_empty:
                return (e.Broken(error), e.ZygoteUnstarted(generation, str(error)))
            return (e.ZygoteUnstarted(generation, str(error)),)
        self._household.add_zygote(generation, kin)
        return ()

    def _retire_zygote(self, command: c.RetireZygote) -> None:
        self._household.retire_zygote(command.generation)

    def _nudge_zygote(self, command: c.NudgeZygote) -> None:
        kin = self._household.zygote(command.generation)
        if kin is not None and kin.process is not None:
            kin.process.send(signal.Signals[_SIGNALS[command.nudge]])

    def _spawn(self, command: c.Spawn) -> Iterable[e.Event]:
        entry = None if self._scoreboard is None else self._scoreboard.take()
        start = Start(
            command.child,
            command.slot,
            command.generation,
            entry=entry,
            requests=command.requests,
            log_level=self._desk.log_level,
            is_watched=self._means.is_watching,
        )
        try:
            return self._start_worker(start)
        except (
            OSError,
            PreforkError,
            ValueError,
        ) as error:  # ValueError: the slot below could not be opened yet
            if entry is not None:
                self._give_back(entry)
            failed = e.SpawnFailed(command.child, str(error))
            if isinstance(error, PreforkError) and not isinstance(error, AddressError):
                return (e.Broken(error), failed)
            return (failed,)

    def _start_worker(self, start: Start) -> Iterable[e.Event]:
        listeners = self.listeners.for_slot(start.slot)
        board = () if start.entry is None or self._scoreboard is None else (self._scoreboard,)
        if self._means.uses_zygote:
            self._household.expect_child(start.serial, self._ask_for_fork(start, (*listeners, *board)))
            return ()
        producer, folder = self._means.command_producer, self._means.started_in
        kin = execute_worker(start, listeners, producer, board, folder)
        return self._household.add_child(start.serial, kin)

    def _give_back(self, entry: int) -> LastWords:
        """The worker of this record is gone, or never came to be; what it has left."""
        return LastWords() if self._scoreboard is None else self._scoreboard.give_back(entry)

    def _ask_for_fork(self, start: Start, files: Iterable[HasFileno]) -> Kin:
        zygote = self._household.zygote(start.generation)
        assert zygote is not None
        ours, theirs = Channel.pair()
        with theirs:
            try:
                ours.send(start, [file.fileno() for file in files])
                zygote.channel.send(Fork(start.serial), [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return Kin(ours, entry=start.entry)

    def _forget(self, command: c.Forget) -> None:
        self._household.drop_child(command.child)

    def _nudge_child(self, command: c.NudgeChild) -> None:
        kin = self._household.child(command.child)
        if kin is not None and kin.process is not None:
            kin.process.send(signal.Signals[_SIGNALS[command.nudge]])

    def _call_spawn_hook(self, command: c.CallSpawnHook) -> Iterable[e.Event]:
        return self._call(self._hooks.on_child_spawn, command.pid)

    def _call_ready_hook(self, command: c.CallReadyHook) -> Iterable[e.Event]:
        return self._call(self._hooks.on_master_ready, list(command.pids))

    def _call_recover_hook(self, command: c.CallRecoverHook) -> Iterable[e.Event]:
        return self._call(self._hooks.on_child_recover, command.old_pid, command.new_pid)

    def _call(self, hook: Callable[..., object] | None, *arguments: object) -> Iterable[e.Event]:
        if hook is None:
            return ()
        try:
            hook(*arguments)
        except Exception as error:  # the seed's rule: a hook's failure ends the fleet and is raised
            return (e.Broken(error),)
        return ()

    def _steer(self, command: c.Steer) -> None:
        try:
            self.listeners.steer_below(command.count)
        except OSError as error:
            self._warn(f"new connections cannot be steered to {command.count} slots: {error}")

    def _look_at_queue(self, command: c.LookAtQueue) -> Iterable[e.Event]:
        try:
            depth = self.listeners.queue_depth(command.slot)
        except (OSError, ValueError):  # the kernel cannot tell, or its socket could never be opened
            depth = 0
        return (e.QueueSeen(command.child, depth),)

    def _queued(self) -> int:
        """Connections that wait to be accepted, in all queues. Raises OSError where the kernel does not say."""
        return self.listeners.waiting()

    def _close_slot(self, command: c.CloseSlot) -> None:
        if command.slot == self.listeners.slots_open - 1:
            try:
                self.listeners.close_slot(command.slot)
            except OSError as error:
                self._warn(f"the kernel's own choice of sockets is not back: {error}")

    def _call_last(self, _command: c.CallLast) -> None:
        # In this order: nobody is told to drain before the page says what that means, and whoever comes once the last
        # worker has emptied the queues and closed them is refused at once.
        if self._scoreboard is not None:
            self._scoreboard.call_last()
        self.listeners.close()

    def _reopen_logs(self, command: c.ReopenLogs) -> None:
        self._means.reopen_logs()
        for error in self._household.tell(command.children, Reopen()):
            self._warn(f"a worker cannot be told to open its logs again: {error}")

    def _look_at_memory(self, _command: c.LookAtMemory) -> Iterable[e.Event]:
        children, others = self._household.pids()
        others = [os.getpid(), *others, *self._attendant.pids]
        return (self._gauge.read(children, others),) if self._gauge is not None else ()

    def _look_at_pulses(self, command: c.LookAtPulses) -> Iterable[e.Event]:
        return (self._watcher.look(with_load=command.with_load),)

    def _list_suspects(self, command: c.ListSuspects) -> None:
        if self._scoreboard is not None and self._scoreboard.recorders is not None:
            self._scoreboard.recorders.publish(command.listed)

    def _renumber(self, command: c.Renumber) -> None:
        self._household.tell([command.child], Renumber(command.slot))  # else its log says the old number

    def _start_upgrade(self, _command: c.StartUpgrade) -> Iterable[e.Event]:
        try:
            fd = self._upgrade.start()
        except (OSError, PreforkError) as error:
            return (e.UpgradeLost(str(error)),)
        self._household.watch(fd, FIRST, self._upgrade_said)
        return ()

    def _upgrade_said(self) -> Iterator[e.Event]:
        self._household.unwatch(self._upgrade.fd)
        yield self._upgrade.outcome()

    def _kill_upgrade(self, _command: c.KillUpgrade) -> None:
        self._household.unwatch(self._upgrade.fd)
        self._upgrade.kill()

    @property
    def _lookout_pids(self) -> set[int]:
        return self._lookout.pids if self._lookout is not None else set()

    def _start_lookout(self, _command: c.StartLookout) -> Iterable[e.Event]:
        assert self._lookout is not None
        try:
            fd = self._lookout.start()
        except OSError as error:
            return (e.LookoutLost(f"it cannot be started: {error}"),)
        self._household.watch(fd, FIRST, self._lookout.said)
        return ()

    def _end_lookout(self, _command: c.EndLookout) -> None:
        if self._lookout is not None:
            self._household.unwatch(self._lookout.fd)
            self._lookout.end()

    def _announce(self, command: c.Announce) -> None:
        if command.state == "reloading":
            self._notifier.reloading()
            self._notifier.status(command.status)
        elif command.state == "stopping":
            self._notifier.stopping()
        else:
            self._notifier.ready(command.status)
            if self._upgrade.is_successor:
                self._take_names()
            self._upgrade.say_ready()

    def _take_names(self) -> None:
        """What a master is found by is ours from now on: the old one leaves it to us."""
        try:
            if self._means.pidfile is not None:
                self._means.pidfile.write()
            if self._controls is not None:
                self._controls.open(takes_over=True)
        except (OSError, PreforkError) as error:
            self._warn(str(error))

    def _log(self, command: c.Log) -> None:
        # The program's own logger may raise anything (a full disk, a closed pipe), and there is nobody left to tell.
        with contextlib.suppress(Exception):
            getattr(self.logger, command.level)("%s", command.text)

    def _warn(self, text: str) -> None:
        self._log(c.Log("warning", text))

    def _finish(self, command: c.Finish) -> None:
        self._household.end_parked()
        self.is_finished = True
        self.error = command.error
