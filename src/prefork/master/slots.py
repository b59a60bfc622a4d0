"""Which slots new connections go to, and which slots there are: the plan's wishes, told to the kernel (reuseport)."""

from __future__ import annotations

from prefork.master import commands as c
from prefork.master.deeds import Deeds
from prefork.master.scribe import Scribe
from prefork.net.listeners import ListenerSet


class Slots:
    """One for each master, used by its loop only."""

    def __init__(self, listeners: ListenerSet, scribe: Scribe) -> None:
        self._listeners = listeners
        self._scribe = scribe

    def deeds(self) -> Deeds:
        return {c.Steer: self._steer, c.CloseSlot: self._close}

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
