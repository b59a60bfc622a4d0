"""The hands of the master: carries out the plan's commands, and reports what its processes do.

Everything that is a descriptor lives here: channels, pidfds, listeners. What a command leads to comes back as
events. No method blocks for longer than a fork, but for the program's own hooks, which say so themselves.
"""

from __future__ import annotations

import select
import selectors
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prefork import system
from prefork.channel import BootFailed, Channel, Fork, Forked, ForkFailed, Parked, Ready, Reopen, Start
from prefork.contracts import CommandProducer, Logger, OnChildRecover, OnChildSpawn, OnMasterReady
from prefork.errors import AddressError, ForkWithThreadsError, PreforkError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.signals import Inbox
from prefork.master.spawn import Kin, ZygoteMain, execute_worker, execute_zygote, fork_zygote, hold
from prefork.master.strangers import Strangers
from prefork.master.upgrade import Upgrade
from prefork.net.listeners import ListenerSet
from prefork.net.systemd import Notifier

_SIGNALS = {
    Nudge.DRAIN: signal.SIGTERM,
    Nudge.QUIT: signal.SIGQUIT,
    Nudge.DUMP_STACKS: signal.SIGABRT,
    Nudge.KILL: signal.SIGKILL,
}
SILENT_END_MS = 100
"""Between a process's end-of-file and its end lie microseconds; a foreign child's is looked at for this long."""
PARKED_END_MS = 1000
"""A parked process leaves within milliseconds of its zygote; after this it is killed."""
FIRST, LAST = 0, 1
"""Order within one wake-up: what people ask for and what processes say, then who has ended."""

Source = Callable[[], Iterable[e.Event]]


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
    predecessor_fd: int = -1
    """Where to tell the master that we replace that we are ready; -1 if there is none."""


class Shell:
    """The master's descriptors and what is done with them. One per master, used by its loop only."""

    def __init__(
        self, listeners: ListenerSet, inbox: Inbox, notifier: Notifier, logger: Logger, hooks: Hooks, means: Means
    ) -> None:
        self.listeners = listeners
        self.inbox = inbox
        self.logger = logger
        self.is_finished = False
        self.error: Exception | None = None
        self._notifier = notifier
        self._hooks = hooks
        self._means = means
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Kin] = {}
        self._zygotes: dict[int, Kin] = {}
        self._parked: dict[int, system.Process] = {}
        self._upgrade = Upgrade(listeners, notifier, means.predecessor_fd)
        self._watchdog_due_s = system.now_s()
        self._strangers = Strangers(0.0 if means.is_whole_program else None)
        self._watch(inbox.fileno(), FIRST, self._asked)
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
            c.CloseSlot: self._close_slot,
            c.ReopenLogs: self._reopen_logs,
            c.StartUpgrade: self._start_upgrade,
            c.KillUpgrade: self._kill_upgrade,
            c.Announce: self._announce,
            c.Log: self._log,
            c.Finish: self._finish,
        }

    # -- for the loop -----------------------------------------------------------------------------

    def wait(self, timeout_s: float | None) -> Iterator[e.Event]:
        """Block until something happens or the time is over, then say what: asked-for things first."""
        ready = self._selector.select(self._until_watchdog_s(timeout_s))
        for key, _ in sorted(ready, key=lambda pair: pair[0].data[0]):
            if key.fd in self._selector.get_map():  # not closed by an earlier one of this round
                yield from key.data[1]()

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
        for kin in (*self._children.values(), *self._zygotes.values()):
            kin.close()
        for process in self._parked.values():
            process.close()
        self._children, self._zygotes, self._parked = {}, {}, {}
        self._upgrade.close()
        self._notifier.close()
        self._selector.close()
        self.inbox.close()
        self.listeners.close()

    # -- what comes in ----------------------------------------------------------------------------

    def _watch(self, fd: int, order: int, source: Source) -> None:
        self._selector.register(fd, selectors.EVENT_READ, (order, source))

    def _unwatch(self, fd: int) -> None:
        if fd >= 0 and fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _asked(self) -> Iterator[e.Event]:
        for event in self.inbox.take():
            if event is not None:
                yield event
            else:
                yield from self._look_after_children()

    def _look_after_children(self) -> Iterator[e.Event]:
        """A child has ended: one of ours if the kernel has no pidfds, or an orphan that was left to us."""
        if not system.HAS_PIDFD:
            for serial in list(self._children):
                yield from self._child_ended(serial)
        self._strangers.reap(self._known_pids(), is_birth_near=self._is_birth_near(), now_s=system.now_s())

    def _known_pids(self) -> set[int]:
        kin = (*self._children.values(), *self._zygotes.values())
        return {x.process.pid for x in kin if x.process is not None} | self._parked.keys() | self._upgrade.pids

    def _is_birth_near(self) -> bool:
        """A forked worker may be our child before the zygote has told us of it."""
        return any(kin.process is None for kin in self._children.values())

    def _zygote_said(self, generation: int) -> Iterator[e.Event]:
        kin = self._zygotes.get(generation)
        if kin is None:
            return
        for message, _ in kin.channel.receive():
            if isinstance(message, Ready):
                yield e.ZygoteReady(generation)
            elif isinstance(message, BootFailed):
                yield e.ZygoteFailed(generation, _failure(message))
            elif isinstance(message, Parked):
                self._park(message.pid)
            elif isinstance(message, Forked):
                yield from self._born(message)
            elif isinstance(message, ForkFailed):
                self._drop_child(message.serial)
                yield e.SpawnFailed(message.serial, message.why)
        if kin.channel.is_closed:
            self._unwatch(kin.channel.fileno())

    def _born(self, message: Forked) -> Iterator[e.Event]:
        kin = self._children.get(message.serial)
        if kin is None:  # given up meanwhile: its channel is closed, so it leaves; `Strangers` reaps it
            return
        try:
            kin.process = self._unpark(message.pid) or hold(message.pid, kin.channel)
        except OSError as error:
            self._drop_child(message.serial)
            yield e.SpawnFailed(message.serial, f"its pidfd cannot be opened: {error.strerror}")
            return
        yield from self._watch_child(message.serial, kin)

    def _park(self, pid: int) -> None:
        """Hold a process that waits to be a worker: it is our child, to be reaped should it end as it is."""
        try:
            process = system.Process(pid)
        except OSError:  # no descriptor left, or gone: `Strangers` reaps it
            return
        self._parked[pid] = process
        self._watch(process.fd, LAST, lambda: self._parked_ended(pid))

    def _unpark(self, pid: int) -> system.Process | None:
        process = self._parked.pop(pid, None)
        if process is not None:
            self._unwatch(process.fd)
        return process

    def _parked_ended(self, pid: int) -> Iterable[e.Event]:
        process = self._unpark(pid)
        if process is not None:
            process.poll()
            process.close()
        return ()

    def _watch_child(self, serial: int, kin: Kin) -> Iterator[e.Event]:
        assert kin.process is not None
        self._watch(kin.channel.fileno(), FIRST, lambda: self._child_said(serial))
        if kin.process.fd >= 0:
            self._watch(kin.process.fd, LAST, lambda: self._child_ended(serial))
        yield e.ChildSpawned(serial, kin.process.pid)

    def _child_said(self, serial: int) -> Iterator[e.Event]:
        kin = self._children.get(serial)
        if kin is None:
            return
        for message, _ in kin.channel.receive():
            kin.has_spoken = True
            if isinstance(message, Ready):
                yield e.ChildReady(serial)
            elif isinstance(message, BootFailed):
                yield e.ChildFailed(serial, _failure(message))
        if kin.channel.is_closed:
            self._unwatch(kin.channel.fileno())
            if kin.is_foreign and not kin.has_spoken and not _ends_soon(kin):
                # It let go of a channel it knows nothing of: all that can be said is that it runs.
                yield e.ChildReady(serial)

    def _child_ended(self, serial: int) -> Iterator[e.Event]:
        kin = self._children.get(serial)
        if kin is None or kin.process is None:
            return
        status = kin.process.poll()
        if status is not None:
            yield from self._child_said(serial)  # its last words
            self._drop_child(serial)
            yield e.ChildExited(serial, e.ExitStatus(*status))

    def _zygote_ended(self, generation: int) -> Iterator[e.Event]:
        kin = self._zygotes.get(generation)
        status = kin.process.poll() if kin is not None and kin.process is not None else None
        if kin is not None and status is not None:
            yield from self._zygote_said(generation)
            del self._zygotes[generation]
            self._let_go(kin)
            yield e.ZygoteExited(generation, e.ExitStatus(*status))

    def _drop_child(self, serial: int) -> None:
        kin = self._children.pop(serial, None)
        if kin is not None:
            self._let_go(kin)

    def _let_go(self, kin: Kin) -> None:
        if not kin.channel.is_closed or kin.channel.fileno() >= 0:
            self._unwatch(kin.channel.fileno())
        if kin.process is not None:
            self._unwatch(kin.process.fd)
        kin.close()

    # -- what goes out ----------------------------------------------------------------------------

    def _start_zygote(self, command: c.StartZygote) -> Iterable[e.Event]:
        generation = command.generation
        try:
            if self._means.is_fork_fresh(generation):
                kin = fork_zygote(generation, self.close, self._means.zygote_main)
            else:
                kin = execute_zygote(generation)
        except (OSError, PreforkError) as error:
            if isinstance(error, ForkWithThreadsError) and not self._children:
                return (e.Broken(error),)
            return (e.ZygoteUnstarted(generation, str(error)),)
        assert kin.process is not None
        self._zygotes[generation] = kin
        self._watch(kin.channel.fileno(), FIRST, lambda: self._zygote_said(generation))
        self._watch(kin.process.fd, LAST, lambda: self._zygote_ended(generation))
        return ()

    def _retire_zygote(self, command: c.RetireZygote) -> None:
        kin = self._zygotes.get(command.generation)
        if kin is not None:
            self._unwatch(kin.channel.fileno())
            kin.channel.close()

    def _nudge_zygote(self, command: c.NudgeZygote) -> None:
        kin = self._zygotes.get(command.generation)
        if kin is not None and kin.process is not None:
            kin.process.send(_SIGNALS[command.nudge])

    def _spawn(self, command: c.Spawn) -> Iterable[e.Event]:
        start = Start(command.child, command.slot, command.generation)
        try:
            listeners = self.listeners.for_slot(command.slot)
            if self._means.uses_zygote:
                self._children[command.child] = self._ask_for_fork(start, listeners)
                return ()
            kin = execute_worker(start, listeners, self._means.command_producer)
        except (OSError, AddressError) as error:
            return (e.SpawnFailed(command.child, str(error)),)
        except PreforkError as error:
            return (e.Broken(error),)
        self._children[command.child] = kin
        return self._watch_child(command.child, kin)

    def _ask_for_fork(self, start: Start, listeners: Iterable[Any]) -> Kin:
        zygote = self._zygotes[start.generation]
        ours, theirs = Channel.pair()
        with theirs:
            try:
                ours.send(start, [sock.fileno() for sock in listeners])
                zygote.channel.send(Fork(start.serial), [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return Kin(ours)

    def _forget(self, command: c.Forget) -> None:
        self._drop_child(command.child)

    def _nudge_child(self, command: c.NudgeChild) -> None:
        kin = self._children.get(command.child)
        if kin is not None and kin.process is not None:
            kin.process.send(_SIGNALS[command.nudge])

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
        except Exception as error:  # noqa: BLE001: the seed's rule: a hook's failure ends the fleet and is raised
            return (e.Broken(error),)
        return ()

    def _steer(self, command: c.Steer) -> None:
        try:
            self.listeners.steer_below(command.count)
        except OSError as error:
            self.logger.warning("new connections cannot be steered to %d slots: %s", command.count, error)

    def _close_slot(self, command: c.CloseSlot) -> None:
        if command.slot == self.listeners.slots_open - 1:
            self.listeners.close_slot(command.slot)

    def _reopen_logs(self, command: c.ReopenLogs) -> None:
        self._means.reopen_logs()
        for serial in command.children:
            kin = self._children.get(serial)
            if kin is not None and not kin.channel.is_closed:
                try:
                    kin.channel.send(Reopen())
                except OSError as error:
                    self.logger.warning("a worker cannot be told to open its logs again: %s", error)

    def _start_upgrade(self, _command: c.StartUpgrade) -> Iterable[e.Event]:
        try:
            fd = self._upgrade.start()
        except (OSError, PreforkError) as error:
            return (e.UpgradeLost(str(error)),)
        self._watch(fd, FIRST, self._upgrade_said)
        return ()

    def _upgrade_said(self) -> Iterator[e.Event]:
        self._unwatch(self._upgrade.fd)
        yield self._upgrade.outcome()

    def _kill_upgrade(self, _command: c.KillUpgrade) -> None:
        self._unwatch(self._upgrade.fd)
        self._upgrade.kill()

    def _announce(self, command: c.Announce) -> None:
        if command.state == "reloading":
            self._notifier.reloading()
            self._notifier.status(command.status)
        elif command.state == "stopping":
            self._notifier.stopping()
        else:
            self._notifier.ready(command.status)
            self._upgrade.say_ready()

    def _log(self, command: c.Log) -> None:
        getattr(self.logger, command.level)("%s", command.text)

    def _finish(self, command: c.Finish) -> None:
        for process in self._parked.values():
            process.end(PARKED_END_MS)  # its zygote is gone, so it is going
        self.is_finished = True
        self.error = command.error


def _failure(message: BootFailed) -> e.BootFailure:
    return e.BootFailure(message.summary, message.details, message.is_final)


def _ends_soon(kin: Kin) -> bool:
    assert kin.process is not None
    if kin.process.fd >= 0:
        poll = select.poll()
        poll.register(kin.process.fd, select.POLLIN)
        return bool(poll.poll(SILENT_END_MS))
    return kin.process.poll() is not None
