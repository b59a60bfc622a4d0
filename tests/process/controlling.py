"""The test's side of `preforkctl`: ask a fleet as people do, from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tests.process.harness import WAIT_S, Fleet

CONTROL_SOCKET = r"control socket: (?P<path>\S+)"


def control_path(fleet: Fleet) -> str:
    """Where it says that it listens."""
    return fleet.wait_for(CONTROL_SOCKET, since=0)["path"]


class Ctl:
    """`preforkctl ARGUMENTS`, begun. `end` waits for it. A context manager: it does not outlive its test."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "prefork.cli.ctl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.output = ""
        self.errors = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.communicate()

    def wait_for(self, text: str) -> None:
        """Wait until it says, on standard error, a line with `text`; the suite's bound for a test is the bound."""
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self.errors += line
            if text in line:
                return
        raise AssertionError(f"{text!r} is never said: {self.errors}")

    def end(self, timeout_s: float = WAIT_S) -> int:
        """Wait until it has ended: its exit status. What it has said is in `output` and `errors`."""
        output, errors = self._popen.communicate(timeout=timeout_s)
        self.output, self.errors = output, self.errors + errors
        return self._popen.returncode


def ctl(fleet: Fleet, *arguments: str, timeout_s: float = WAIT_S) -> Ctl:
    """Ask this fleet, and wait for the end of it."""
    with Ctl("--control", control_path(fleet), *arguments) as asked:
        asked.end(timeout_s)
        return asked


def done(fleet: Fleet, *arguments: str) -> str:
    """Ask this fleet for what must be done: what is said in the end."""
    with Ctl("--control", control_path(fleet), *arguments) as asked:
        status = asked.end()
        assert status == 0, (asked.output, asked.errors, fleet.output)
        return asked.output.rstrip("\n")


def refused(fleet: Fleet, *arguments: str) -> str:
    """Ask this fleet for what cannot be done: why."""
    with Ctl("--control", control_path(fleet), *arguments) as asked:
        status = asked.end()
        assert status == 1, (status, asked.output, asked.errors, fleet.output)
        assert "Traceback" not in asked.errors
        return asked.errors.splitlines()[-1]


def status_of(fleet: Fleet) -> dict[str, Any]:
    """The fleet as `status --json` shows it."""
    found: dict[str, Any] = json.loads(done(fleet, "status", "--json"))
    return found
