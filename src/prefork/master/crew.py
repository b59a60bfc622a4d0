"""Workers and zygotes as the plan asks for them: made, told, signalled, forgotten.

Making one leads to events: that it exists, or that it does not. The processes themselves, and what they say, are
`household`'s.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Final

from prefork.channel import Channel, Fork, Renumber, Start
from prefork.contracts import HasFileno
from prefork.errors import AddressError, ForkWithThreadsError, PreforkError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.commands import Nudge
from prefork.master.deeds import Deeds
from prefork.master.household import Household
from prefork.master.means import Means
from prefork.master.spawn import Kin, execute_worker, execute_zygote, fork_zygote
from prefork.net.listeners import ListenerSet
from prefork.scoreboard import Scoreboard

_SIGNALS: Final = {
    Nudge.DRAIN: "SIGTERM",
    Nudge.QUIT: "SIGQUIT",
    Nudge.DUMP_STACKS: "SIGABRT",
    Nudge.KILL: "SIGKILL",
}


class Crew:
    """One for each master, used by its loop only."""

    def __init__(
        self,
        household: Household,
        listeners: ListenerSet,
        scoreboard: Scoreboard | None,
        means: Means,
        *,
        log_level: Callable[[], str],
        let_go: Callable[[], object],
    ) -> None:
        """log_level: from which level on a new worker is to log; "" for that of its zygote.

        let_go: called in a forked zygote; closes all that is the master's.
        """
        self._household = household
        self._listeners = listeners
        self._scoreboard = scoreboard
        self._means = means
        self._log_level = log_level
        self._let_go = let_go

    def deeds(self) -> Deeds:
        return {
            c.StartZygote: self.start_zygote,
            c.RetireZygote: self._retire_zygote,
            c.NudgeZygote: self._nudge_zygote,
            c.Spawn: self.spawn,
            c.Forget: self._forget,
            c.NudgeChild: self._nudge_child,
            c.Renumber: self._renumber,
        }

    # -- zygotes ----------------------------------------------------------------------------------

    def start_zygote(self, command: c.StartZygote) -> Iterable[e.Event]:
        """Fork this program, or run it again, whichever gives fresh code."""
        generation = command.generation
        try:
            if self._means.is_fork_fresh(generation):
                kin = fork_zygote(generation, self._let_go, self._means.zygote_main)
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
        _nudge(self._household.zygote(command.generation), command.nudge)

    # -- workers ----------------------------------------------------------------------------------

    def spawn(self, command: c.Spawn) -> Iterable[e.Event]:
        """Have the zygote fork a worker, or start one as a program of its own."""
        entry = None if self._scoreboard is None else self._scoreboard.take()
        start = Start(
            command.child,
            command.slot,
            command.generation,
            entry=entry,
            requests=command.requests,
            log_level=self._log_level(),
            is_watched=self._means.is_watching,
        )
        try:
            return self._start_worker(start)
        except (
            OSError,
            PreforkError,
            ValueError,
        ) as error:  # ValueError: the slot below could not be opened yet
            if entry is not None and self._scoreboard is not None:
                self._scoreboard.give_back(entry)
            failed = e.SpawnFailed(command.child, str(error))
            if isinstance(error, PreforkError) and not isinstance(error, AddressError):
                return (e.Broken(error), failed)
            return (failed,)

    def _start_worker(self, start: Start) -> Iterable[e.Event]:
        listeners = self._listeners.for_slot(start.slot)
        board = () if start.entry is None or self._scoreboard is None else (self._scoreboard,)
        if self._means.uses_zygote:
            self._household.expect_child(start.serial, self._ask_for_fork(start, (*listeners, *board)))
            return ()
        producer, folder = self._means.command_producer, self._means.started_in
        kin = execute_worker(start, listeners, producer, board, folder)
        return self._household.add_child(start.serial, kin)

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
        if command.nudge is Nudge.DRAIN and kin is not None and kin.entry is not None:
            assert self._scoreboard is not None
            self._scoreboard.dismiss(kin.entry)
        _nudge(kin, command.nudge)

    def _renumber(self, command: c.Renumber) -> None:
        self._household.tell([command.child], Renumber(command.slot))  # else its log says the old number


def _nudge(kin: Kin | None, nudge: Nudge) -> None:
    if kin is not None and kin.process is not None:
        kin.process.send(signal.Signals[_SIGNALS[nudge]])
