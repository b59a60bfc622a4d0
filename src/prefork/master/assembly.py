"""A shell, put together of its parts; and how all of them are let go of, in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from prefork import system
from prefork.contracts import Logger
from prefork.master import events as e
from prefork.master.attendant import Attendant
from prefork.master.crew import Crew
from prefork.master.desk import Desk
from prefork.master.gauge import Gauge
from prefork.master.hooks import Hooks
from prefork.master.household import FIRST, Household
from prefork.master.lookout import Lookout, Sights
from prefork.master.means import Means
from prefork.master.premises import Premises
from prefork.master.scribe import Scribe
from prefork.master.shell import Shell
from prefork.master.signals import Inbox
from prefork.master.slots import Slots
from prefork.master.strangers import Strangers
from prefork.master.succession import Succession
from prefork.master.upgrade import Upgrade
from prefork.master.watcher import Watcher
from prefork.net.systemd import Notifier
from prefork.scoreboard import Scoreboard


def assemble(
    premises: Premises,
    inbox: Inbox,
    logger: Logger,
    hooks: Hooks,
    means: Means,
    *,
    scoreboard: Scoreboard | None = None,
    gauge: Gauge | None = None,
    sights: Sights | None = None,
) -> Shell:
    """The shell of one master, which owns all that is given here from now on. Runs in the master. Raises OSError.

    gauge: None where no memory is bounded; sights: None where no code is watched.
    """
    listeners, controls, attendance = premises.listeners, premises.controls, premises.attendance
    # Closed in the opposite order, in the master at its end, and in the copy that a forked zygote has.
    with contextlib.ExitStack() as held:
        held.callback(premises.close)
        if scoreboard is not None:
            held.callback(scoreboard.close)
        held.callback(inbox.close)
        notifier = Notifier(os.environ)
        held.callback(notifier.close)
        household = Household(
            Strangers(0.0 if means.is_whole_program else None), scoreboard.give_back if scoreboard else None
        )
        held.callback(household.close)
        scribe = Scribe(logger, household, means.reopen_logs)
        lookout = Lookout(household, sights)
        held.callback(lookout.close)
        attendant = Attendant(household, controls, attendance)
        held.callback(attendant.close)
        upgrade = _upgrade(premises, notifier, means.started_in)
        held.callback(upgrade.close)
        desk = Desk(
            controls, household, scoreboard, means.describe, means.set_log_level, queued=listeners.waiting
        )
        if controls is not None:
            household.watch(controls.fileno(), FIRST, controls.take)
        let_go = held.pop_all().close
    crew = Crew(household, listeners, scoreboard, means, log_level=lambda: desk.log_level, let_go=let_go)

    def look_after() -> Iterator[e.Event]:
        yield from attendant.look_after()
        yield from household.look_after(upgrade.pids | attendant.pids | lookout.pids)

    parts = (
        crew,
        hooks,
        scribe,
        desk,
        attendant,
        lookout,
        Slots(listeners, scoreboard, scribe),
        Succession(household, upgrade, notifier, scribe, pidfile=premises.pidfile, controls=controls),
        Watcher(household, scoreboard, listeners, system.Meter(), gauge, helpers=lambda: attendant.pids),
    )
    return Shell(
        household, inbox, notifier, [part.deeds() for part in parts], look_after=look_after, let_go=let_go
    )


def _upgrade(premises: Premises, notifier: Notifier, folder: str | None) -> Upgrade:
    controls, attendance = premises.controls, premises.attendance
    return Upgrade(
        premises.listeners,
        notifier,
        premises.predecessor_fd,
        folder,
        controls.path if controls is not None else "",
        admin=attendance.listeners if attendance is not None else None,
    )
