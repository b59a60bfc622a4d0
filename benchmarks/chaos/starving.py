"""Nothing left: descriptors, processes, address space, memory."""

from __future__ import annotations

import contextlib
import re
import resource

from benchmarks.chaos.confined import limited, virtual_bytes, without_processes, without_roots_rights
from benchmarks.chaos.fault import Fault
from benchmarks.chaos.groups import memory_group
from benchmarks.chaos.killing import MANY, zygote_of
from benchmarks.chaos.stage import CLIENTS, Stage, answer, status_of
from tests.process import procfs
from tests.process.harness import Fleet

SPAWN_FAILS = r"worker \d: cannot be spawned, will be tried again: .*"


def _crash_while(stage: Stage, fleet: Fleet, limit: contextlib.AbstractContextManager[None]) -> None:
    """Kill workers while a limit holds: it is said, tried again, and they are replaced once there is room."""
    load = stage.load(fleet)
    with limit:
        mark = fleet.mark()
        killed = 1
        fleet.kill(fleet.workers()[0])
        # The worker that was parked before there was a limit may answer the first crash.
        if "ready" in fleet.wait_for(rf"{SPAWN_FAILS}|generation 1\) ready", since=mark)[0]:
            fleet.kill(fleet.workers()[-1])
            killed += 1
        fleet.wait_for_all(SPAWN_FAILS, 2, since=mark)
        stage.hold(status_of(answer(fleet)) == "200", "nobody answers while no worker can be made")
        mark = fleet.mark()
    fleet.wait_for_workers(1, since=mark)
    stage.finish(load, may_fail=killed * CLIENTS)


def descriptors(stage: Stage) -> None:
    """In the master, in the zygote, and in the workers."""
    fleet = stage.fleet(*MANY)
    for pid in (fleet.pid, zygote_of(fleet)):
        _crash_while(stage, fleet, limited(pid, resource.RLIMIT_NOFILE, 3))
    stage.ends(fleet)
    fleet = stage.fleet()
    before = fleet.workers()
    with contextlib.ExitStack() as limits:
        for pid in before:
            highest = max(procfs.open_descriptors(pid))
            # Each of two workers may be left with all the clients that keep their connections.
            limits.enter_context(limited(pid, resource.RLIMIT_NOFILE, highest + 2 + CLIENTS // 2))
        load = stage.load(fleet)
        stage.last(2, 8)
        stage.finish(load)
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.ends(fleet)


def processes(stage: Stage) -> None:
    """EAGAIN at each fork."""
    as_user = without_roots_rights()
    fleet = stage.fleet(*MANY, before=as_user)
    _crash_while(stage, fleet, without_processes(zygote_of(fleet), as_user))
    stage.ends(fleet)


def address_space(stage: Stage) -> None:
    """A request that wants more than there is fails, alone."""
    fleet = stage.fleet()
    before = fleet.workers()
    load = stage.load(fleet)
    with contextlib.ExitStack() as limits:
        for pid in before:
            limits.enter_context(limited(pid, resource.RLIMIT_AS, virtual_bytes(pid) + (128 << 20)))
        greedy = [status_of(answer(fleet, "/grow?512")) for _ in stage.rounds(4, 40)]
        stage.last(1, 5)
        stage.finish(load)
    stage.note(f"{len(greedy)} greedy requests were answered with {sorted(set(greedy))}")
    stage.hold(set(greedy) == {"500"}, f"greedy requests were answered with {greedy}")
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.ends(fleet, may_trace=True)  # the application's own MemoryError


def memory(stage: Stage) -> None:
    """The kernel kills who takes too much: one request is lost with what its worker had in hand."""
    with memory_group() as group:
        fleet = stage.fleet(*MANY)
        group.take([process.pid for process in sorted(fleet.members())])
        group.limit(256 << 20)
        load = stage.load(fleet)
        killed = 0
        for _ in stage.rounds(2, 10):
            mark = fleet.mark()
            stage.hold(status_of(answer(fleet, "/grow?1024")) == "none", "1 GiB was had from 256 MiB")
            fleet.wait_for(r"worker \d .* crashed: killed by signal 9", since=mark)
            fleet.wait_for_workers(1, since=mark)
            killed += len(fleet.find_all(r"crashed: killed by signal 9", mark))
        stage.note(f"{killed} processes were killed by the kernel")
        stage.finish(load, may_fail=killed * CLIENTS)
        stage.ends(fleet)


def scarce(stage: Stage) -> None:
    """More clients than descriptors: who finds none waits in the queue, and is served."""
    fleet = stage.fleet("--connections", "8", "--head-timeout", "1", "--keep-alive", "1")
    with contextlib.ExitStack() as idle:
        for _ in range(64):
            idle.enter_context(fleet.connect())
        load = stage.load(fleet)
        stage.last(2, 8)
        stage.finish(load)
    stage.hold(
        not [line for line in fleet.lines if re.search("crashed|killing", line)], "somebody was killed"
    )
    stage.ends(fleet)


FAULTS = (
    Fault(
        "no-descriptors",
        "1, 7",
        "RLIMIT_NOFILE takes every descriptor from the master, from the zygote (workers are killed meanwhile), then from workers",
        "a spawn is tried again until there is room; clients of a worker without descriptors wait and are served",
        descriptors,
    ),
    Fault(
        "no-processes",
        "7",
        "RLIMIT_NPROC lets no fork succeed, workers are killed meanwhile",
        "EAGAIN is said and tried again, not fatal; siblings answer; replaced once there is room",
        processes,
    ),
    Fault(
        "no-address-space",
        "6",
        "RLIMIT_AS of each worker, and requests that want more",
        "those are answered with 500; 0 of the others fail; no worker dies",
        address_space,
    ),
    Fault(
        "out-of-memory",
        "1, 7",
        "a control group of 256 MiB, and requests that take 1 GiB",
        "the kernel kills the worker, it is replaced; only what it had in hand fails; the master lives",
        memory,
    ),
    Fault(
        "more-clients-than-room",
        "1",
        "64 silent connections and 16 clients where each of two workers takes 8",
        "0 fail: they wait in the queue",
        scarce,
    ),
)
