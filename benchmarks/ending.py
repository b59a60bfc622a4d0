"""How a fleet ends: when its master is killed, and when it is told to stop at any moment."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from benchmarks.report import Line, spread
from benchmarks.subjects import GUNICORN, SHARED, UVICORN, Running, Subject, running

SUBJECTS = (SHARED, GUNICORN, UVICORN)
LEFT_AFTER_S = 1.0
GRACE_S = 30.0
LIMIT_S = 15.0
MOMENTS = ("boot", "serving", "reload")


def orphans(subject: Subject, *, is_quick: bool) -> Iterator[Line]:
    """SIGKILL of the master: who lives one second later."""
    left = []
    for _ in range(1 if is_quick else 3):
        with running(subject) as one:
            one.wait_until_up()
            one.fleet.members()
            one.fleet.signal(signal.SIGKILL)
            time.sleep(LEFT_AFTER_S)
            left.append(len(one.fleet.leftovers()))
    yield Line(
        f"SIGKILL of the master, 2 workers: processes left after {LEFT_AFTER_S:g} s",
        subject.name,
        ", ".join(map(str, left)),
        "0" if subject.is_ours else "",
        not any(left) if subject.is_ours else None,
    )


def term(subject: Subject, *, is_quick: bool) -> Iterator[Line]:
    """TERM in boot, in service and in a reload of the heavy application: seconds until all are gone."""
    for moment in MOMENTS:
        times_s = [_gone_s(subject, moment) for _ in range(1 if is_quick else 3)]
        is_over = max(times_s) >= LIMIT_S
        yield Line(
            f"TERM in {moment}, heavy app, 2 workers: seconds until all are gone",
            subject.name,
            f"more than {LIMIT_S:g} s" if is_over else spread(times_s, "s", 2),
            f"at once, at most {GRACE_S:g} s" if subject.is_ours else "",
            not is_over if subject.is_ours else None,
        )


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
