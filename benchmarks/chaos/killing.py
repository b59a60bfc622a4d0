"""SIGKILL and SIGSTOP of each kind of process, and a machine that is suspended."""

from __future__ import annotations

import signal
from collections.abc import Callable

from benchmarks.chaos.fault import Fault
from benchmarks.chaos.stage import CLIENTS, END_LIMIT_S, Stage, answer, status_of, wait_until_stopped
from tests.process import procfs
from tests.process.attending import admin_pid, admin_pids, status
from tests.process.harness import Fleet, wait_until

MANY = ("--recover-threshold", "1000")


def zygote_of(fleet: Fleet) -> int:
    """The oldest child of the master that never said that it is ready; 0 where there is none."""
    spoken = {int(match["pid"]) for match in fleet.find_all(r"worker \d+ \(pid (?P<pid>\d+),")}
    silent = [pid for pid in procfs.children(fleet.pid) if pid not in spoken]
    alive = [process for pid in silent if (process := procfs.identify(pid))]
    return min(alive, key=lambda process: process.start_ticks).pid if alive else 0


def _kill_zygote(fleet: Fleet) -> None:
    """Kill it, and wait for the next one: whoever is new at that moment and is no worker that was parked."""
    before = set(procfs.children(fleet.pid))
    mark = fleet.mark()
    fleet.kill(zygote_of(fleet))
    fleet.wait_for(r"zygote of generation 1.* killed by signal 9", since=mark)
    wait_until(lambda: set(procfs.children(fleet.pid)) - before, "there is another zygote")


def _workers(stage: Stage, *words: str) -> None:
    fleet = stage.fleet(*MANY, *words)
    load = stage.load(fleet)
    rounds = stage.rounds(5, 15)
    for number in rounds:
        mark = fleet.mark()
        fleet.kill(fleet.workers()[number % 2])
        fleet.wait_for_workers(1, since=mark)
    stage.finish(load, may_fail=len(rounds) * CLIENTS)
    stage.note(
        f"{len(rounds)} workers killed: {sum(stage.outcome.failed.values()) / len(rounds):.1f} requests lost a kill"
    )
    stage.ends(fleet)


def workers(stage: Stage) -> None:
    """One listener for all."""
    _workers(stage)


def workers_reuseport(stage: Stage) -> None:
    """A listener for each."""
    _workers(stage, "--reuseport")


def zygote(stage: Stage) -> None:
    """It is killed again and again, then it is needed."""
    fleet = stage.fleet(*MANY)
    load = stage.load(fleet)
    for _ in stage.rounds(3, 8):
        _kill_zygote(fleet)
    stage.finish(load)
    mark = fleet.mark()
    fleet.kill(fleet.workers()[0])
    fleet.wait_for_workers(1, since=mark)
    stage.ends(fleet)


def master(stage: Stage) -> None:
    """Nobody is left, with work in hand or without."""
    ways: tuple[tuple[str, ...], ...] = ((), ("--start-method", "exec"), ("--reuseport",))
    for words in ways[: len(stage.rounds(2, 3))]:
        fleet = stage.fleet(*words)
        load = stage.load(fleet)
        fleet.members()
        fleet.kill(fleet.pid)
        fleet.assert_nothing_left(END_LIMIT_S)
        report = load.finish()
        # Nobody listens any more: what is tried then is refused, and that is the expectation.
        stage.count(report.tried, report.answered, report.failed, report.slowest_s)
        stage.hold(
            not any("timeout" in kind for kind in report.failed),
            f"somebody was left hanging: {report.failed}",
        )


def stop(stage: Stage) -> None:
    """A last call: who has connected is answered, who comes later is refused."""
    _stop(stage, lambda fleet: fleet.signal(signal.SIGTERM))


def stop_group(stage: Stage) -> None:
    """The same, where workers are told by somebody else, and may hear of it before their master does."""
    _stop(stage, lambda fleet: fleet.signal_group(signal.SIGTERM))


def _stop(stage: Stage, ask: Callable[[Fleet], None]) -> None:
    stops = stage.rounds(2, 6)
    lost = 0
    for number in stops:
        fleet = stage.fleet(*(("--reuseport",) if number % 2 else ()))
        load = stage.load(fleet)
        ask(fleet)
        status = fleet.wait()
        report = load.finish()
        stage.count(report.tried, report.answered, report.failed, report.slowest_s)
        stage.hold(status == 0, f"it ended with status {status}")
        lost += sum(count for kind, count in report.failed.items() if kind != "connect: refused")
        fleet.assert_nothing_left(END_LIMIT_S)
    stage.hold(lost <= len(stops), f"{lost} were lost in {len(stops)} stops")


def admin(stage: Stage) -> None:
    """The process that shows metrics and a dashboard is supervised like a worker."""
    fleet = stage.fleet("--admin", "127.0.0.1:0")
    workers = set(fleet.workers())
    load = stage.load(fleet)
    for _ in stage.rounds(1, 3):
        killed = admin_pid(fleet)
        fleet.kill(killed)
        wait_until(
            lambda killed=killed: admin_pids(fleet) not in ([], [killed]),  # type: ignore[misc]
            "another admin process is there",
            show=lambda: fleet.output,
        )
        stage.hold(status(fleet)["workers"] != [], "the new one shows nothing")
    stage.finish(load)
    stage.hold(set(fleet.workers()) == workers, "workers have been replaced")
    stage.ends(fleet)


def stopped_worker(stage: Stage) -> None:
    """It hangs; siblings serve, a reload goes on, and its grace ends it."""
    fleet = stage.fleet("--grace-period", "1")
    hung = fleet.workers()[0]
    fleet.kill(hung, signal.SIGSTOP)
    wait_until_stopped(hung)
    load = stage.load(fleet)
    stage.last(1, 5)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done")
    fleet.wait_for(rf"pid {hung}, generation 1\) stopped: killed by signal 9", since=0)
    stage.finish(load)
    stage.ends(fleet)


def stopped_zygote(stage: Stage) -> None:
    """It does not answer when it is needed: it is killed and replaced, and the worker comes."""
    fleet = stage.fleet(*MANY)
    load = stage.load(fleet)
    hung = zygote_of(fleet)
    fleet.kill(hung, signal.SIGSTOP)
    wait_until_stopped(hung)
    mark = fleet.mark()
    fleet.kill(fleet.workers()[0])
    fleet.wait_for_workers(1, since=mark)  # the worker that was parked, made before it is needed
    fleet.kill(fleet.workers()[0])
    fleet.wait_for("zygote of generation 1 does not answer: killing it", since=mark)
    fleet.wait_for_workers(2, since=mark)
    stage.finish(load, may_fail=2 * CLIENTS)
    stage.ends(fleet)


def suspended(stage: Stage) -> None:
    """All of it stops at once, for longer than any time-out that is short, and goes on."""
    fleet = stage.fleet("--boot-timeout", "3", "--grace-period", "3")
    before = fleet.workers()
    load = stage.load(fleet)
    family = sorted(fleet.members())
    for process in family:
        procfs.send(process, signal.SIGSTOP)
    for process in family:
        wait_until_stopped(process.pid)
    stage.last(4, 7)
    for process in family:
        procfs.send(process, signal.SIGCONT)
    stage.last(1, 5)
    stage.finish(load)
    stage.hold(status_of(answer(fleet)) == "200", "it does not answer after it was woken")
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.hold(not fleet.find_all("crash|killing"), "somebody was killed for it")
    stage.ends(fleet)


LOST_AT_MOST = (
    "only what the killed had in hand fails: at most one request a client and kill, none while connecting"
)
FAULTS = (
    Fault("kill-workers", "1, 7", "SIGKILL of worker after worker, shared listener", LOST_AT_MOST, workers),
    Fault(
        "kill-workers-reuseport",
        "1, 7",
        "the same, a listener for each worker",
        LOST_AT_MOST,
        workers_reuseport,
    ),
    Fault(
        "kill-zygote",
        "1, 7",
        "SIGKILL of the zygote, again and again, then of a worker",
        "0 fail; it is replaced each time, and makes the worker",
        zygote,
    ),
    Fault(
        "kill-master",
        "4",
        "SIGKILL of the master under load: shared, exec, reuseport",
        "nobody is left, no client hangs",
        master,
    ),
    Fault(
        "stop",
        "1, 6",
        "TERM to the master under load: shared, reuseport",
        "who has connected is answered, who comes later is refused; at most one a stop comes between the last look and the close",
        stop,
    ),
    Fault(
        "stop-group",
        "1, 6",
        "TERM to all processes under load, as from a service manager that ends a whole control group",
        "the same",
        stop_group,
    ),
    Fault(
        "kill-admin",
        "7",
        "SIGKILL of the admin process",
        "it is replaced, workers do not notice",
        admin,
    ),
    Fault(
        "stop-worker",
        "2, 6",
        "SIGSTOP of a worker, then a reload",
        "0 fail; the reload is done, the hung one is killed when its grace is over",
        stopped_worker,
    ),
    Fault(
        "stop-zygote",
        "6, 7",
        "SIGSTOP of the zygote, SIGKILL of two workers",
        "the zygote is killed and replaced, both workers come back; only what was in hand fails",
        stopped_zygote,
    ),
    Fault(
        "suspend",
        "8",
        "SIGSTOP of the whole fleet for seconds, then SIGCONT, as a laptop's lid",
        "0 fail; nobody is killed, the same workers serve on",
        suspended,
    ),
)
