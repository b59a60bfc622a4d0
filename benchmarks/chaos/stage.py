"""Where a fault happens: a folder, fleets, load, and the count of it all. A context manager that leaves nothing.

Every process that is signalled here was started here, and is known by pid and start time (tests/process/procfs.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from signal import SIGTERM, Signals
from types import TracebackType
from typing import Self

from benchmarks.chaos.fault import Outcome
from tests.process import procfs
from tests.process.apps import UNCACHED, Request, Site, serving
from tests.process.harness import Fleet, wait_until
from tests.process.load import Load, Report

APPS = Path(__file__).parent
CLIENTS = 16
END_LIMIT_S = 25.0
GRACE = ("--grace-period", "3")


class Stage:
    """One fault's own world. `is_quick`: fewer rounds of the same."""

    def __init__(self, outcome: Outcome, *, is_quick: bool) -> None:
        self.outcome = outcome
        self.is_quick = is_quick
        self._stack = contextlib.ExitStack()
        self._fleets: list[Fleet] = []
        self._loads: list[Load] = []

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="prefork-chaos-")))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        said = "\n".join(fleet.output for fleet in self._fleets)
        self._stack.close()
        if exc is not None or self.outcome.broken:
            self.outcome.said = said

    # ------------------------------------------------------------------------------------ what is served

    def fleet(self, *words: str, workers: int = 2, app: str = "app", before: tuple[str, ...] = ()) -> Fleet:
        """A fleet that serves app.py with all its workers. `before`: a command that runs the rest of its words."""
        return self.ready(
            self.started(*serving(app, *GRACE, *words, folder=APPS, workers=workers), before=before)
        )

    def site(self, *words: str, workers: int = 2) -> tuple[Site, Fleet]:
        """A fleet that serves a module which can be rewritten."""
        site = Site(self.folder)
        fleet = self.started(*site.serving(*GRACE, *words, workers=workers), env=UNCACHED)
        return site, self.ready(fleet, workers)

    def started(
        self, *words: str, before: tuple[str, ...] = (), env: Mapping[str, str | None] | None = None
    ) -> Fleet:
        """A fleet that has been started, and no more."""
        arguments = [*before, sys.executable, "-m", "prefork", *words]
        fleet = Fleet(arguments, env=env)
        self._fleets.append(fleet)
        return self._stack.enter_context(fleet)

    @staticmethod
    def ready(fleet: Fleet, workers: int = 2) -> Fleet:
        """Wait until it serves with all its workers."""
        fleet.wait_for(r"ready: \d+ workers?")
        fleet.wait_for_workers(workers)
        return fleet

    # ------------------------------------------------------------------------------------ what is counted

    def load(self, fleet: Fleet, *, path: str = "/", clients: int = CLIENTS) -> Load:
        """Counted load on `fleet`, that runs when this returns."""
        return self.load_url(fleet.url.rstrip("/") + path, clients=clients)

    def load_url(self, url: str, *, clients: int = CLIENTS) -> Load:
        """The same, where the fleet cannot say its URL."""
        load = Load(url, clients=clients)
        self._loads.append(load)
        return self._stack.enter_context(load)

    def finish(
        self, load: Load, *, may_fail: int = 0, kinds: str = r"(send|head|body): (reset|closed|short)"
    ) -> Report:
        """End the load, count it, and hold it to its promise.

        Args:
            load: what `load()` gave.
            may_fail: how many requests may fail.
            kinds: how those may fail, as a regular expression; never while they connect, unless it says so.
        """
        report = load.finish()
        self.count(report.tried, report.answered, report.failed, report.slowest_s)
        allowed = sum(count for kind, count in report.failed.items() if re.fullmatch(kinds, kind))
        self.hold(
            allowed == report.failed_count <= may_fail,
            f"{report.failed_count} of {report.tried} requests failed, {may_fail} may: {report.failed}",
        )
        if not allowed == report.failed_count <= may_fail:
            for one in report.failures[:5]:
                self.note(
                    f"at {one['at_s']:.3f} s {one['kind']} {one['detail']}, "
                    f"{one['client']} client, request {one['request_on_connection']} of its connection"
                )
        self.hold(report.answered > 0, "nobody was answered at all")
        return report

    def count(self, tried: int, answered: int, failed: Mapping[str, int], slowest_s: float = 0.0) -> None:
        """Add to what has been counted."""
        self.outcome.tried += tried
        self.outcome.answered += answered
        self.outcome.failed.update(failed)
        self.outcome.slowest_s = max(self.outcome.slowest_s, slowest_s)

    def hold(self, is_kept: object, otherwise: str) -> None:
        """A promise: if it is not kept, what is wrong."""
        if not is_kept:
            self.outcome.broken.append(otherwise)

    def note(self, text: str) -> None:
        """Something worth a line in the report."""
        self.outcome.notes.append(text)

    def rounds(self, quick: int, full: int) -> range:
        """As many rounds as this run has time for."""
        return range(quick if self.is_quick else full)

    def last(self, quick_s: float, full_s: float) -> None:
        """Let the load run on for a while: the only waiting by the clock, for the count and for no expectation."""
        time.sleep(quick_s if self.is_quick else full_s)

    # ------------------------------------------------------------------------------------ how it ends

    def ends(self, fleet: Fleet, number: Signals = SIGTERM, *, may_trace: bool = False) -> None:
        """It stops when it is told, in time, with status 0, and nobody is left; `may_trace`: the log may tell why."""
        status = fleet.stop(number, timeout_s=END_LIMIT_S)
        self.hold(status == 0, f"its exit status is {status}")
        fleet.assert_nothing_left(END_LIMIT_S)
        self.hold(may_trace or not fleet.find_all("Traceback"), "a traceback in the log")


def answer(fleet: Fleet, path: str = "/") -> bytes:
    """All bytes of one answer on a fresh connection, whatever its status; b"" where there was none."""
    request = Request(fleet.connect(), path).send()
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := request.connection.recv(65536):
            received += data
    return bytes(received)


def status_of(received: bytes) -> str:
    """The status of an answer, or "none"."""
    found = re.match(rb"HTTP/1\.[01] (\d{3})", received)
    return found[1].decode() if found else "none"


def wait_until_stopped(pid: int) -> None:
    """Until a SIGSTOP has taken effect."""
    wait_until(lambda: procfs.state(pid) == "T", f"process {pid} is stopped")


def is_root() -> bool:
    """Whether this user may do everything, by name."""
    return os.geteuid() == 0
