"""What is done for people on the control socket: answers, with what only the master sees; stacks; the level of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from prefork import control, system
from prefork.channel import LogLevel, ShowStacks
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.controls import Controls
from prefork.master.deeds import Deeds
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
        *,
        queued: Callable[[], int] = int,
    ) -> None:
        """queued: how many connections wait to be accepted. Raises OSError where the kernel does not say."""
        self._controls = controls
        self._household = household
        self._scoreboard = scoreboard
        self._describe = describe
        self._set_log_level = set_log_level
        self._queued = queued
        self._since_s = system.now_s()
        self.log_level = ""
        """As it has been set here; "" before. New workers are told."""

    def deeds(self) -> Deeds:
        return {
            c.Answer: self._answer,
            c.AskStacks: self._ask_stacks,
            c.DumpStacks: self._dump_stacks,
            c.SetLogLevel: self._change_log_level,
        }

    def _answer(self, command: c.Answer) -> Iterable[e.Event]:
        """Answer a client; what follows at once comes back."""
        if self._controls is None:
            return ()
        answer = command.answer
        if isinstance(answer, control.StatusReport):
            answer = self._with_what_is_seen(answer)
        return self._controls.answer(command.client, answer)

    def _with_what_is_seen(self, report: control.StatusReport) -> control.StatusReport:
        """What the plan cannot know: who we are, and what the workers say of themselves on the scoreboard."""
        identity = self._describe()
        try:
            queued: int | None = self._queued()
        except (OSError, ValueError):
            queued = None
        now_s = system.now_s()
        report = replace(
            report,
            pid=identity.pid,
            version=identity.version,
            name=identity.name,
            addresses=identity.addresses,
            log_level=identity.log_level,
            workers=tuple(replace(worker, **self._told(worker.serial)) for worker in report.workers),
            uptime_s=round(now_s - self._since_s, 3),
            now_ms=int(now_s * 1000),
            queued=queued,
        )
        if self._scoreboard is None:
            return report
        # In one go with what the living have told: between the two, nobody's record can become the page's.
        gone = self._scoreboard.told_by_the_gone()
        return replace(
            report,
            gone_statuses=gone.statuses,
            gone_latencies=_trimmed(gone.latencies),
            refused_requests=self._scoreboard.refused(),
        )

    def _told(self, serial: int) -> dict[str, Any]:
        """What a worker says of itself, as fields of its report; nothing where it has no record, or never wrote."""
        kin = self._household.child(serial)
        if kin is None or kin.entry is None or self._scoreboard is None:
            return {}
        told = self._scoreboard.told(kin.entry)
        if not told.tick_ms and told.connections is None:
            return {}
        return {
            "connections": told.connections,
            "in_flight": told.in_flight,
            "is_awake": told.is_awake,
            "tick_ms": told.tick_ms,
            "statuses": told.statuses,
            "latencies": _trimmed(told.latencies),
        }

    def _ask_stacks(self, command: c.AskStacks) -> Iterable[e.Event]:
        """Have a worker say where it stands."""
        kin = self._household.child(command.child)
        if kin is None or kin.channel.is_closed or kin.is_foreign:
            why = "it is a command of the program's own, which cannot be asked"
            return (e.StacksSeen(command.client, command.child, why),)
        # A worker that cannot even be told does not answer; the plan waits for that.
        self._household.tell([command.child], ShowStacks(command.client))
        return ()

    def _dump_stacks(self, command: c.DumpStacks) -> None:
        """Have the C library's side of it write them; never to a stranger, whom the signal would end."""
        kin = self._household.child(command.child)
        if kin is not None and kin.process is not None and not kin.is_foreign:
            number = system.STACKS_SIGNAL
            if number is not None:
                kin.process.send(number)

    def _change_log_level(self, command: c.SetLogLevel) -> None:
        """Here, in the workers named, and in those to come. One that cannot be told logs on as before."""
        self.log_level = command.level
        self._set_log_level(command.level)
        self._household.tell(command.children, LogLevel(command.level))


def _trimmed(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Without the zeros at the end, which nobody needs to be sent."""
    end = len(counts)
    while end and not counts[end - 1]:
        end -= 1
    return counts[:end]
