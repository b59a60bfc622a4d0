"""Clocks that are elsewhere, or jump.

A time namespace sets CLOCK_MONOTONIC and CLOCK_BOOTTIME before its first process, and never CLOCK_REALTIME
(time_namespaces(7)). So the one can be far off, but not jump, and the other cannot be touched by it: it is set for the
whole machine (never done here), or by libfaketime for those who ask the C library. Nothing waits by the wall clock here;
that is what is tried.
"""

from __future__ import annotations

import signal
from pathlib import Path

from benchmarks.chaos.confined import at_another_time
from benchmarks.chaos.fault import Fault, LeftOutError
from benchmarks.chaos.stage import APPS, GRACE, Stage
from tests.process.apps import serving
from tests.process.harness import Fleet

YEAR_S = 365 * 24 * 3600
STEPS = ("-1d", "+10y", "-3600s", "+0")


def _find_faketime() -> Path:
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib"):
        for found in sorted(Path(folder).glob("**/faketime/libfaketimeMT.so.1")):
            return found
    raise LeftOutError(
        "a time namespace cannot step the wall clock, and the machine's own is not ours to set; "
        "libfaketime (Debian: libfaketime) could, and is not installed"
    )


def offset(stage: Stage) -> None:
    """A machine that has been up for a year more."""
    fleet = stage.fleet("--max-age", "2", before=at_another_time(YEAR_S))
    here, there = (Path(f"/proc/{who}/ns/time").readlink() for who in ("self", fleet.pid))
    if here == there:
        raise LeftOutError("this kernel gives a program that is run no time namespace of its own")
    _serves_on(stage, fleet)


def step(stage: Stage) -> None:
    """The wall clock jumps back by a day and forward by ten years."""
    library = _find_faketime()
    clock = stage.folder / "clock"
    clock.write_text("+0\n", encoding="ascii")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    words = serving(
        "app", *GRACE, "--boot-timeout", "20", "--access-log", str(stage.folder / "access"), folder=APPS
    )
    fleet = stage.ready(stage.started(*words, env=env))
    before = fleet.workers()
    load = stage.load(fleet)
    for number in STEPS:
        draft = stage.folder / "draft"
        draft.write_text(number + "\n", encoding="ascii")
        draft.replace(clock)
        stage.last(1.5, 3)
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.finish(load)
    days = {line[:11] for line in (stage.folder / "access").read_text(encoding="utf-8").split("[")[1:]}
    stage.note(f"{len(STEPS)} steps: {', '.join(STEPS)}; {len(days)} days in the access log")
    stage.hold(len(days) > 2, "the fleet has not seen its clock jump")
    _serves_on(stage, fleet)


def _serves_on(stage: Stage, fleet: Fleet) -> None:
    load = stage.load(fleet)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    stage.last(1, 5)
    stage.finish(load)
    stage.hold(not fleet.find_all("crashed|killing"), "somebody was killed for it")
    stage.ends(fleet)


FAULTS = (
    Fault(
        "clock-offset",
        "8",
        "a time namespace whose monotonic clock is a year ahead; workers recycled by age, and a reload",
        "0 fail, nobody is killed",
        offset,
    ),
    Fault(
        "clock-step",
        "8",
        "the wall clock of the whole fleet jumps by a day back, ten years on, an hour back (libfaketime)",
        "0 fail; the same workers serve on; a reload goes through",
        step,
    ),
)
