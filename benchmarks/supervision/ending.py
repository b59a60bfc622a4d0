"""How a fleet ends: when its master is killed, and when it is told to stop at any moment."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from benchmarks.supervision.scenario import Reading
from benchmarks.supervision.subjects import GUNICORN, SHARED, UVICORN, Running, Subject, running

SUBJECTS = (SHARED, GUNICORN, UVICORN)
LEFT_AFTER_S = 1.0
AT_ONCE_S = 1.0
"""As a goal: nothing is in flight, so nothing has to be waited for."""
LIMIT_S = 15.0
MOMENTS = ("boot", "serving", "reload")


def orphans(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:  # noqa: ARG001  (as all scenarios)
    """SIGKILL of the master: who lives one second later."""
    with running(subject) as one:
        one.wait_until_up()
        one.fleet.members()
        one.fleet.signal(signal.SIGKILL)
        time.sleep(LEFT_AFTER_S)
        left = len(one.fleet.leftovers())
    setting = "SIGKILL of the master, 2 workers"
    yield Reading(setting, f"processes left after {LEFT_AFTER_S:g} s", "", (left,), 0, is_each=True)


def term(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:  # noqa: ARG001  (as all scenarios)
    """TERM in boot, in service and in a reload of the heavy application: seconds until all are gone."""
    for moment in MOMENTS:
        took_s = _gone_s(subject, moment)
        note = f"not gone after {LIMIT_S:g} s" if took_s >= LIMIT_S else ""
        setting = f"TERM in {moment}, heavy app, 2 workers"
        yield Reading(setting, "until all are gone", "s", (took_s,), AT_ONCE_S, is_each=True, note=note)


def _gone_s(subject: Subject, moment: str) -> float:
    with running(subject, "heavy") as one:
        _reach(one, moment)
        one.fleet.members()
        begun_s = time.monotonic()
        one.fleet.signal(signal.SIGTERM)
        while one.fleet.leftovers() and time.monotonic() - begun_s < LIMIT_S:
            time.sleep(0.01)
        return time.monotonic() - begun_s


def _reach(one: Running, moment: str) -> None:
    if moment == "boot":
        one.fleet.wait_for("importing")
        return
    one.wait_until_up()
    if moment == "reload":
        mark = one.fleet.mark()
        one.fleet.signal(signal.SIGHUP)
        one.fleet.wait_for("importing", since=mark)
