"""One master after the other: the upgrade as the plan asks for it, and what is told to the world when a fleet is ready.

A successor takes over what a master is found by, its pidfile and its control socket, in the moment when it says that it is
ready; before that a failed upgrade has touched nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prefork.errors import PreforkError
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.controls import Controls
from prefork.master.deeds import Deeds
from prefork.master.household import FIRST, Household
from prefork.master.pidfile import Pidfile
from prefork.master.scribe import Scribe
from prefork.master.upgrade import Upgrade
from prefork.net.systemd import Notifier


class Succession:
    """One for each master, used by its loop only."""

    def __init__(
        self,
        household: Household,
        upgrade: Upgrade,
        notifier: Notifier,
        scribe: Scribe,
        *,
        pidfile: Pidfile | None,
        controls: Controls | None,
    ) -> None:
        self._household = household
        self._upgrade = upgrade
        self._notifier = notifier
        self._scribe = scribe
        self._pidfile = pidfile
        self._controls = controls

    def deeds(self) -> Deeds:
        return {c.StartUpgrade: self._start, c.KillUpgrade: self._kill, c.Announce: self._announce}

    def _start(self, _command: c.StartUpgrade) -> Iterable[e.Event]:
        try:
            fd = self._upgrade.start()
        except (OSError, PreforkError) as error:
            return (e.UpgradeLost(str(error)),)
        self._household.watch(fd, FIRST, self._said)
        return ()

    def _said(self) -> Iterator[e.Event]:
        self._household.unwatch(self._upgrade.fd)
        yield self._upgrade.outcome()

    def _kill(self, _command: c.KillUpgrade) -> None:
        self._household.unwatch(self._upgrade.fd)
        self._upgrade.kill()

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
        """What a master is found by is ours from now on: the old one leaves it to us. What cannot be had spoils no other."""
        if self._pidfile is not None:
            self._try(self._pidfile.write)
        if self._controls is not None:
            self._try(partial(self._controls.open, takes_over=True))

    def _try(self, take: Callable[[], object]) -> None:
        try:
            take()
        except (OSError, PreforkError) as error:
            self._scribe.warn(str(error))
