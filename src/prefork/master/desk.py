"""What is done for people on the control socket: answers, with what only the master sees; stacks; the level of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from prefork import control, system
from prefork.channel import LogLevel, ShowStacks
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.controls import Controls
from prefork.master.household import Household
from prefork.scoreboard import Scoreboard


def describe_nothing() -> control.StatusReport:
    """A report that says nothing, to be filled in."""
    return control.StatusReport("", 0, None, 0, 0, ())


class Desk:
    """One for each master, used by its loop only."""

    def __init__(
        self,
        controls: Controls | None,
        household: Household,
        scoreboard: Scoreboard | None,
        describe: Callable[[], control.StatusReport],
        set_log_level: Callable[[str], object],
    ) -> None:
        self._controls = controls
        self._household = household
        self._scoreboard = scoreboard
        self._describe = describe
        self._set_log_level = set_log_level
        self._since_s = system.now_s()
        self.log_level = ""
        """As it has been set here; "" before. New workers are told."""

    def answer(self, command: c.Answer) -> Iterable[e.Event]:
        """Answer a client; what follows at once comes back."""
        if self._controls is None:
            return ()
        answer = command.answer
        if isinstance(answer, control.StatusReport):
            answer = self._with_what_is_seen(answer)
        return self._controls.answer(command.client, answer)

    def _with_what_is_seen(self, report: control.StatusReport) -> control.StatusReport:
        """What the plan cannot know: who we are, and what the workers say of themselves on the scoreboard."""
        workers = [replace(worker, connections=self._connections(worker.serial)) for worker in report.workers]
        return replace(
            self._describe(),
            state=report.state,
            generation=report.generation,
            incoming=report.incoming,
            wanted=report.wanted,
            ready=report.ready,
            workers=tuple(workers),
            uptime_s=round(system.now_s() - self._since_s, 3),
        )

    def _connections(self, serial: int) -> int | None:
        kin = self._household.child(serial)
        if kin is None or kin.entry is None or self._scoreboard is None:
            return None
        return self._scoreboard.load(kin.entry)

    def ask_stacks(self, command: c.AskStacks) -> Iterable[e.Event]:
        """Have a worker say where it stands."""
        kin = self._household.child(command.child)
        if kin is None or kin.channel.is_closed or kin.is_foreign:
            why = "it is a command of the program's own, which cannot be asked"
            return (e.StacksSeen(command.client, command.child, why),)
        # A worker that cannot even be told does not answer; the plan waits for that.
        self._household.tell([command.child], ShowStacks(command.client))
        return ()

    def dump_stacks(self, command: c.DumpStacks) -> None:
        """Have the C library's side of it write them; never to a stranger, whom the signal would end."""
        kin = self._household.child(command.child)
        if kin is not None and kin.process is not None and not kin.is_foreign:
            number = system.STACKS_SIGNAL
            if number is not None:
                kin.process.send(number)

    def set_log_level(self, command: c.SetLogLevel) -> None:
        """Here, in the workers named, and in those to come. One that cannot be told logs on as before."""
        self.log_level = command.level
        self._set_log_level(command.level)
        self._household.tell(command.children, LogLevel(command.level))
