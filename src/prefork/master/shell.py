"""The hands of the master: waits for what happens, and has the plan's commands carried out by its parts.

Each part says which commands are its own (`deeds`): `crew` makes workers and zygotes, `slots` steers connections, `watcher`
looks, `scribe` logs, `desk` answers people, `succession` hands over to a new master, `attendant` and `lookout` hold a helper
process each, and `hooks` calls the program. `assembly` puts them together. The processes themselves, and what they say, are
`household`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prefork import system
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.deeds import Deeds
from prefork.master.household import FIRST, Household
from prefork.master.signals import Inbox
from prefork.net.systemd import Notifier


class Shell:
    """One per master, used by its loop only."""

    def __init__(
        self,
        household: Household,
        inbox: Inbox,
        notifier: Notifier,
        deeds: Iterable[Deeds],
        *,
        look_after: Callable[[], Iterable[e.Event]],
        let_go: Callable[[], object],
    ) -> None:
        """look_after: says what it means that a child of this process has ended.

        let_go: closes all that the parts hold.
        """
        self.is_finished = False
        self.error: Exception | None = None
        self._household = household
        self._inbox = inbox
        self._notifier = notifier
        self._watchdog_due_s = system.now_s()
        self._look_after = look_after
        self._let_go = let_go
        self._deeds: Deeds = {c.Finish: self._finish}
        for each in deeds:
            assert not self._deeds.keys() & each.keys()
            self._deeds = {**self._deeds, **each}
        household.watch(inbox.fileno(), FIRST, self._asked)

    def wait(self, timeout_s: float | None) -> Iterator[e.Event]:
        """Block until something happens or the time is over, then say what: asked-for things first."""
        return self._household.wait(self._until_watchdog_s(timeout_s))

    def execute(self, command: c.Command) -> Iterable[e.Event]:
        """Carry out one command; what it led to at once comes back."""
        return self._deeds[type(command)](command) or ()

    def close(self) -> None:
        """Let go of everything, the listeners included."""
        self._let_go()

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

    def _asked(self) -> Iterator[e.Event]:
        for event in self._inbox.take():
            if event is not None:
                yield event
            else:
                yield from self._look_after()

    def _finish(self, command: c.Finish) -> None:
        self._household.end_parked()
        self.is_finished = True
        self.error = command.error
