"""No room on the disk: under the logs, under the shared state."""

from __future__ import annotations

import http.client
import re
import signal
from collections import Counter
from pathlib import Path

from benchmarks.chaos.confined import on_small_disk
from benchmarks.chaos.fault import Fault, LeftOutError
from benchmarks.chaos.stage import APPS, END_LIMIT_S, GRACE, Stage, answer
from tests.process.apps import serving
from tests.process.harness import Fleet, free_port, wait_until

FULL = Path("/dev/full")
DISK_KB = 64


def _pid_at(fleet: Fleet, port: int) -> int:
    """The worker that answers; 0 where nobody does yet. AssertionError once the fleet is gone."""
    if not fleet.is_running:
        raise AssertionError(f"it ended with status {fleet.wait()}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=END_LIMIT_S)
    try:
        connection.request("GET", "/")
        found = re.search(rb"pid (\d+)", connection.getresponse().read())
    except OSError:
        return 0
    finally:
        connection.close()
    return int(found[1]) if found else 0


def _unheard(stage: Stage, folder: Path, before: tuple[str, ...] = ()) -> None:
    """A fleet whose log cannot be read: it is known by its answers alone."""
    port = free_port()
    log, access_log = (FULL, FULL) if folder == FULL else (folder / "log", folder / "access")
    words = (*GRACE, "--log-file", str(log), "--access-log", str(access_log))
    fleet = stage.started(*serving("app", *words, folder=APPS, bind=f"127.0.0.1:{port}"), before=before)
    wait_until(lambda: _pid_at(fleet, port), "it answers")
    old = {process.pid for process in fleet.members()}
    load = stage.load_url(f"http://127.0.0.1:{port}/")
    stage.last(2, 8)
    if folder != FULL:
        inside = Path(f"/proc/{fleet.pid}/root") / access_log.relative_to("/")
        wait_until(lambda: inside.stat().st_size >= (DISK_KB - 16) << 10, "the disk is full")
    fleet.signal(signal.SIGUSR1)  # logs are opened again
    fleet.signal(signal.SIGHUP)
    wait_until(lambda: _pid_at(fleet, port) not in {0, *old}, "another generation answers")
    stage.finish(load)
    stage.hold(fleet.stop(timeout_s=END_LIMIT_S) == 0, "its exit status is not 0")
    fleet.assert_nothing_left(END_LIMIT_S)


def logs(stage: Stage) -> None:
    """Each write fails from the first one on; and from one in the middle on."""
    if not FULL.exists():
        raise LeftOutError("there is no /dev/full here")
    _unheard(stage, FULL)
    try:
        before = on_small_disk(stage.folder, DISK_KB)
    except LeftOutError as error:
        stage.note(f"/dev/full only: {error}")
        return
    _unheard(stage, stage.folder, before)


def shared(stage: Stage) -> None:
    """The state finds no room at its first use, and no more room later."""
    _keeps(stage, stage.folder, before=on_small_disk(stage.folder, 1024))
    # A bound of its own, far above the disk's: nothing of it is had, and nobody dies by SIGBUS.
    _keeps(stage, None)


def _keeps(stage: Stage, folder: Path | None, before: tuple[str, ...] = ()) -> None:
    url = f"lmdb://{folder or ''}?size_mb={64 if folder else 4}"
    fleet = stage.fleet("--shared", url, before=before)
    workers = fleet.workers()
    load = stage.load(fleet)
    said = Counter[str]()
    for _ in stage.rounds(100, 1000):
        body = answer(fleet, "/keep?256").rpartition(b"\r\n\r\n")[2]
        said[body.decode(errors="replace") or "no answer"] += 1
    stage.finish(load)
    stage.note(f"{url.partition('?')[2]} on {'a full disk' if folder else 'a disk with room'}: {dict(said)}")
    stage.hold(not said["no answer"], f"{said['no answer']} requests to keep something were not answered")
    if folder:
        # Another error would mean that the disk was never tried.
        stage.hold(
            all(word.startswith("not kept: StoreFullError") for word in said),
            f"where there is no room the application was told {dict(said)}",
        )
    stage.hold(fleet.workers() == workers, f"workers were {workers}, and are {fleet.workers()}")
    stage.ends(fleet)


FAULTS = (
    Fault(
        "full-disk-logs",
        "6",
        "log and access log on /dev/full, then on a file system of 64 KiB; USR1 and HUP meanwhile",
        "0 fail; it serves, reloads and stops as if there were room",
        logs,
    ),
    Fault(
        "full-disk-shared",
        "1, 6",
        "shared state on a disk without room, and in a store that overflows",
        "0 fail; the application gets an error that it can read, no worker dies",
        shared,
    ),
)
