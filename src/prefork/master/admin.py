"""The admin process: started with the fleet, replaced when it dies, told to leave when nobody else is left. Pure.

It looks at the fleet and is no part of it: its crashes are not counted, and one that never starts costs the fleet nothing
but a line in the log, at growing distances. It leaves last, so that whoever asks during a drain hears of it.
"""

from __future__ import annotations

from dataclasses import replace

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.draft import Draft
from prefork.master.fleet import Admin, AdminPhase, Seat

BOOT_S = 30.0
"""It imports a few modules; a machine that needs longer for that has other troubles."""
RETIRE_S = 1.0
"""It has an answer to finish at most, of some kilobytes."""
RETRY_S = 0.5
LONGEST_DELAY_S = 30.0
SETTLED_S = 10.0
"""One that has served for this long is replaced at once."""


def keep_admin(draft: Draft) -> None:
    """Start it, if there is to be one and there is none."""
    fleet = draft.fleet
    if fleet.rules.has_admin and fleet.admin is None and fleet.admin_seat.not_before_s <= draft.now_s:
        fleet.admin = Admin(AdminPhase.STARTING, draft.now_s + BOOT_S)
        draft.commands.append(c.StartAdmin())


def dismiss_admin(draft: Draft) -> None:
    """Tell it to leave; once is enough."""
    admin = draft.fleet.admin
    if admin is not None and admin.phase in (AdminPhase.STARTING, AdminPhase.READY):
        draft.fleet.admin = replace(admin, phase=AdminPhase.RETIRING, deadline_s=draft.now_s + RETIRE_S)
        draft.commands.append(c.RetireAdmin())


def kill_admin(draft: Draft) -> None:
    """End it; once is enough."""
    admin = draft.fleet.admin
    if admin is not None and admin.phase is not AdminPhase.KILLED:
        draft.fleet.admin = replace(admin, phase=AdminPhase.KILLED, deadline_s=None)
        draft.commands.append(c.KillAdmin())


def admin_due(draft: Draft) -> None:
    """Time has passed: one that hangs, in its start or its end, is killed."""
    admin = draft.fleet.admin
    if admin is None or admin.deadline_s is None or admin.deadline_s > draft.now_s:
        return
    if admin.phase is AdminPhase.STARTING:
        draft.warn(f"admin: not ready within {BOOT_S:g} s of its start: killing it")
    kill_admin(draft)


def admin_ready(draft: Draft, _event: e.AdminReady) -> None:
    """It answers."""
    admin = draft.fleet.admin
    if admin is not None and admin.phase is AdminPhase.STARTING:
        draft.fleet.admin = Admin(AdminPhase.READY, ready_at_s=draft.now_s)


def admin_failed(draft: Draft, event: e.AdminFailed) -> None:
    """It has said why it cannot start; its end follows."""
    draft.warn(f"admin: {event.why}")


def admin_exited(draft: Draft, event: e.AdminExited) -> None:
    """It is gone."""
    admin, draft.fleet.admin = draft.fleet.admin, None
    if admin is None or draft.fleet.stopping is not None:
        return
    if admin.ready_at_s is not None and draft.now_s - admin.ready_at_s >= SETTLED_S:
        draft.fleet.admin_seat = Seat()
        draft.warn(f"admin: the process ended ({event.status}), another is started; the fleet serves on")
    else:
        _back_off(draft, f"the process ended ({event.status})")


def admin_unstarted(draft: Draft, event: e.AdminUnstarted) -> None:
    """There is none: its process could not be made."""
    draft.fleet.admin = None
    if draft.fleet.stopping is None:
        _back_off(draft, f"the process cannot be started ({event.why})")


def _back_off(draft: Draft, what: str) -> None:
    seat = draft.fleet.admin_seat
    seat = replace(seat, streak=seat.streak + 1)
    seat = draft.fleet.admin_seat = draft.back_off(seat, RETRY_S, seat.streak, LONGEST_DELAY_S)
    draft.warn(f"admin: {what}, next try in {seat.not_before_s - draft.now_s:.1f} s; the fleet serves on")
