"""The log, as the master has it: written to, and opened again, here and in the workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prefork.channel import Reopen
from prefork.contracts import Logger
from prefork.master import commands as c
from prefork.master.deeds import Deeds
from prefork.master.household import Household


class Scribe:
    """One for each master, used by its loop only."""

    def __init__(self, logger: Logger, household: Household, reopen: Callable[[], object]) -> None:
        """reopen: opens the master's own log files again."""
        self._logger = logger
        self._household = household
        self._reopen = reopen

    def deeds(self) -> Deeds:
        return {c.Log: self._log, c.ReopenLogs: self._reopen_logs}

    def warn(self, text: str) -> None:
        """Log a warning of the shell's own."""
        self._log(c.Log("warning", text))

    def _log(self, command: c.Log) -> None:
        # The program's own logger may raise anything (a full disk, a closed pipe), and there is nobody left to tell.
        with contextlib.suppress(Exception):
            getattr(self._logger, command.level)("%s", command.text)

    def _reopen_logs(self, command: c.ReopenLogs) -> None:
        self._reopen()
        for error in self._household.tell(command.children, Reopen()):
            self.warn(f"a worker cannot be told to open its logs again: {error}")
