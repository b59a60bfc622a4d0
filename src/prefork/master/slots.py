"""Where new connections go: which slots get them and which slots there are (reuseport), and at the end nowhere any more."""

from __future__ import annotations

from prefork.master import commands as c
from prefork.master.deeds import Deeds
from prefork.master.scribe import Scribe
from prefork.net.listeners import ListenerSet
from prefork.scoreboard import Scoreboard


class Slots:
    """One for each master, used by its loop only."""

    def __init__(self, listeners: ListenerSet, scoreboard: Scoreboard | None, scribe: Scribe) -> None:
        self._listeners = listeners
        self._scoreboard = scoreboard
        self._scribe = scribe

    def deeds(self) -> Deeds:
        return {c.Steer: self._steer, c.CloseSlot: self._close, c.CallLast: self._call_last}

    def _steer(self, command: c.Steer) -> None:
        try:
            self._listeners.steer_below(command.count)
        except OSError as error:
            self._scribe.warn(f"new connections cannot be steered to {command.count} slots: {error}")

    def _close(self, command: c.CloseSlot) -> None:
        if command.slot == self._listeners.slots_open - 1:
            try:
                self._listeners.close_slot(command.slot)
            except OSError as error:
                self._scribe.warn(f"the kernel's own choice of sockets is not back: {error}")

    def _call_last(self, _command: c.CallLast) -> None:
        # In this order: nobody is told to drain before the page says what that means, and whoever comes once the last
        # worker has emptied the queues and closed them is refused at once.
        if self._scoreboard is not None:
            self._scoreboard.call_last()
        self._listeners.close()
