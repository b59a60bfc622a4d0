"""Reloads, upgrades and recycling in the worst moments, and code that does not work."""

from __future__ import annotations

import re
import signal

from benchmarks.chaos.fault import Fault
from benchmarks.chaos.stage import END_LIMIT_S, Stage, answer
from tests.process import procfs
from tests.process.harness import wait_until

BROKEN = {
    "raises": "raise RuntimeError('broken on purpose')",
    "does not parse": "def app(:",
    "exits hard": "import os; os._exit(0)",
    "has no application": "something_else = 1",
    "crashes in its start": """
        import os
        async def app(scope, receive, send):
            os._exit(1)
        """,
    "kills its parent": "import os; os.kill(os.getpid(), 9)",
}
HANGS = {
    "in its import": "import signal; signal.pause()",
    "in its lifespan": """
        import asyncio
        async def app(scope, receive, send):
            await asyncio.Event().wait()
        """,
    "in its lifespan, blocking": """
        import signal
        async def app(scope, receive, send):
            signal.pause()
        """,
}


def storm(stage: Stage) -> None:
    """HUP upon HUP, faster than a reload is."""
    for words in ((), ("--reuseport",)):
        fleet = stage.fleet(*words)
        load = stage.load(fleet)
        for _ in stage.rounds(2, 12):
            for _ in range(10):
                fleet.signal(signal.SIGHUP)
                fleet.signal(signal.SIGCHLD)
            fleet.wait_for("reload done")
        stage.finish(load)
        stage.ends(fleet)


def broken(stage: Stage) -> None:
    """Each kind of code that does not work, then code that does."""
    site, fleet = stage.site("--boot-timeout", "10")
    old = fleet.workers()
    load = stage.load(fleet)
    for what, source in BROKEN.items():
        site.write(source)
        fleet.signal(signal.SIGHUP)
        fleet.wait_for("reload failed: .*generation 1 serves on")
        stage.hold(fleet.workers() == old, f"code that {what}: workers were {old}, and are {fleet.workers()}")
    site.write_good("mended")
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    stage.finish(load)
    wait_until(lambda: not set(old) & set(fleet.workers()), "the old workers have left")
    stage.hold(b"mended" in answer(fleet), "the mended code does not answer")
    stage.ends(fleet, may_trace=True)  # the broken code's own


def hanging(stage: Stage) -> None:
    """A boot that never ends, in a reload; then TERM in the middle of one."""
    site, fleet = stage.site("--boot-timeout", "1")
    old = fleet.workers()
    load = stage.load(fleet)
    for what, source in HANGS.items():
        site.write(source)
        fleet.signal(signal.SIGHUP)
        fleet.wait_for("reload failed: .*generation 1 serves on")
        stage.hold(fleet.workers() == old, f"a boot that hangs {what}: workers are {fleet.workers()}")
    stage.hold(fleet.find_all("its stacks follow"), "its stacks are not logged")
    stage.finish(load)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload: starting generation")
    stage.ends(fleet, may_trace=True)  # the broken code's own


def upgrade(stage: Stage) -> None:
    """USR2, master after master."""
    for words in ((), ("--reuseport",)):
        fleet = stage.fleet(*words)
        load = stage.load(fleet)
        current = fleet.pid
        for _ in stage.rounds(1, 4):
            mark = fleet.mark()
            fleet.kill(current, signal.SIGUSR2)
            new = int(fleet.wait_for(r"\[master (\d+)\] ready: 2 workers", since=mark)[1])
            wait_until(lambda old=current: procfs.state(old) in {"", "Z"}, "the old master is gone")  # type: ignore[misc]
            current = new
        stage.finish(load)
        fleet.kill(current, signal.SIGTERM)
        fleet.assert_nothing_left(END_LIMIT_S)
        stage.hold(not fleet.find_all("Traceback"), "a traceback in the log")


def upgrade_to_broken(stage: Stage) -> None:
    """USR2 to a program that fails."""
    site, fleet = stage.site("--boot-timeout", "5")
    old = fleet.workers()
    load = stage.load(fleet)
    for what in ("raises", "exits hard", "crashes in its start")[: len(stage.rounds(2, 3))]:
        site.write(BROKEN[what])
        fleet.signal(signal.SIGUSR2)
        fleet.wait_for("upgrade failed: .*serves on")
        stage.hold(set(old) <= set(fleet.workers()), f"workers were {old}, and are {fleet.workers()}")
    stage.finish(load)
    stage.ends(fleet, may_trace=True)  # the broken code's own


def recycling(stage: Stage) -> None:
    """Every worker leaves after 200 requests."""
    for words in ((), ("--reuseport",)):
        fleet = stage.fleet("--max-requests", "200", "--recycle-jitter", "0.2", *words)
        load = stage.load(fleet)
        fleet.wait_for_all(r"recycling worker \d+", 6 if stage.is_quick else 60, 60.0)
        stage.finish(load)
        begun = len(fleet.find_all(r"recycling worker \d+"))
        stage.note(f"{begun} workers recycled")
        stage.hold(_never_fewer(fleet.lines, 2), "fewer workers were ready than are wanted")
        stage.ends(fleet)


def _never_fewer(lines: list[str], wanted: int) -> bool:
    """No worker is told to leave, by recycling, before its successor is ready."""
    ready: set[str] = set()
    has_all = False
    for line in lines:
        if found := re.search(r"worker \d+ \(pid (\d+), generation \d+\) ready", line):
            ready.add(found[1])
            has_all = has_all or len(ready) == wanted
        elif found := re.search(r"worker \d+ \(pid (\d+), generation \d+\) (stopped|crashed|left)", line):
            ready.discard(found[1])
            if has_all and len(ready) < wanted:
                return False
    return True


FAULTS = (
    Fault("reload-storm", "2", "bursts of ten HUPs, shared and reuseport", "0 fail", storm),
    Fault(
        "reload-broken",
        "3",
        "reloads to six kinds of code that does not work, then to code that does",
        "0 fail; the same workers serve on until the code is mended",
        broken,
    ),
    Fault(
        "boot-hangs",
        "3, 6, 8",
        "reloads to three boots that hang; TERM in the middle of a fourth",
        "0 fail; given up at the boot time-out, with stacks in the log; TERM is obeyed at once",
        hanging,
    ),
    Fault("upgrade", "1, 2", "USR2 after USR2 under load, shared and reuseport", "0 fail", upgrade),
    Fault(
        "upgrade-broken",
        "3",
        "USR2 to three programs that fail",
        "0 fail; the old master and its workers serve on",
        upgrade_to_broken,
    ),
    Fault(
        "recycle",
        "2",
        "each worker is recycled at 200 requests, under load",
        "0 fail; no worker leaves before its successor is ready",
        recycling,
    ),
)
