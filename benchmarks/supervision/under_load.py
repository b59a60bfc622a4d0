"""Scenarios under load: reloads, kills, and connections that wait for a worker that dies. Failures are counted."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

from benchmarks.supervision.scenario import Reading
from benchmarks.supervision.subjects import (
    GUNICORN,
    GUNICORN_REUSEPORT,
    REUSEPORT,
    SHARED,
    UVICORN,
    Running,
    Subject,
    ask,
    running,
)
from tests.process import procfs
from tests.process.harness import wait_until
from tests.process.load import Load, Report

CLIENTS = 32
SUBJECTS = (SHARED, REUSEPORT, GUNICORN, GUNICORN_REUSEPORT, UVICORN)
QUICK_SUBJECTS = (SHARED, GUNICORN, UVICORN)
WAITING = 60
RELOAD_LIMIT_S = 10.0


def kinds(report: Report) -> str:
    """How many requests failed, and in which phase."""
    named = ", ".join(f"{kind} {count}" for kind, count in sorted(report.failed.items()))
    return f"{report.failed_count} of {report.tried:,}" + (f" ({named})" if named else "")


def _pace(times: int, every_s: float) -> Iterator[int]:
    """Count up to `times`, one each `every_s` seconds by the clock, not by pauses."""
    begun_s = time.monotonic()
    for number in range(times):
        yield number
        time.sleep(max(0.0, begun_s + (number + 1) * every_s - time.monotonic()))


def reloads(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """HUP twice a second under clients of which half come fresh and half keep their connection."""
    count, seconds = (4, 2) if is_quick else (20, 10)
    with running(subject) as one:
        one.wait_until_up()
        mark = one.fleet.mark()
        with Load(one.url, clients=CLIENTS) as load:
            for _ in _pace(count, seconds / count):
                one.fleet.signal(signal.SIGHUP)
            # A busy machine may need longer for one than we have been asking; without one nothing is measured.
            with contextlib.suppress(AssertionError):
                one.fleet.wait_for_all(r"up pid \d+", one.workers, RELOAD_LIMIT_S, since=mark)
            report = load.finish()
        renewed = len(one.fleet.find_all(r"up pid \d+", mark)) / one.workers
    setting = f"{count} HUPs in {seconds} s, {CLIENTS} clients"
    yield Reading(setting, "failed requests", "", (report.failed_count,), 0, is_each=True, note=kinds(report))
    yield Reading(setting, "slowest answer", "s", (report.slowest_s,))
    yield Reading(setting, "reloads that were done", "", (renewed,))


def kills(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """SIGKILL of a worker every half second: what fails, and how."""
    every_s, seconds = 0.5, 2 if is_quick else 10
    killed = 0
    with running(subject) as one:
        one.wait_until_up()
        with Load(one.url, clients=CLIENTS) as load:
            for _ in _pace(int(seconds / every_s), every_s):
                if pids := one.worker_pids():
                    one.fleet.kill(pids[0])
                    killed += 1
            report = load.finish()
    # A client that is not connected yet is in a queue; what fails there is a connection that no worker had.
    in_queue = sum(count for kind, count in report.failed.items() if kind.startswith("connect"))
    setting = f"SIGKILL of a worker each {every_s} s for {seconds} s, {CLIENTS} clients"
    each = report.failed_count / max(killed, 1)
    # What the killed worker had taken up may fail, and it may have them all.
    yield Reading(setting, "failed requests a kill", "", (each,), CLIENTS, is_each=True, note=kinds(report))
    yield Reading(setting, "failed while connecting", "", (in_queue,), 0, is_each=True)


def queue(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """Workers stop (SIGSTOP), connections pile up behind them, the workers are killed: who is answered."""
    waiting_count = WAITING // 3 if is_quick else WAITING
    with running(subject) as one:
        one.wait_until_up()
        time.sleep(0.5)  # peers have no word for "accepting now"
        answered = _answered_after_kill(one, waiting_count)
    setting = f"{waiting_count} connections wait for workers that are stopped, then killed"
    yield Reading(setting, "never answered", "", (waiting_count - answered,), 0, is_each=True)


def _read_all(connection: socket.socket) -> bytes:
    answer = b""
    while data := connection.recv(4096):
        answer += data
    return answer


def _answered_after_kill(one: Running, count: int) -> int:
    pids = one.worker_pids()
    for pid in pids:
        one.fleet.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: procfs.state(pid) == "T", "the worker is stopped")  # type: ignore[misc]
    waiting = [socket.create_connection(("127.0.0.1", one.port), 10.0) for _ in range(count)]
    for connection in waiting:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: benchmark\r\nConnection: close\r\n\r\n")
    for pid in pids:
        one.fleet.kill(pid)
    answered = 0
    for connection in waiting:
        with connection:
            try:
                answered += b"pid" in _read_all(connection)
            except OSError:
                continue
    return answered if ask(one.port) else 0
