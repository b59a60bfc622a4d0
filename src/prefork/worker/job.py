"""What a worker is given to do: the composition root builds it, the zygote loads it, the worker runs it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Service:
    """A server ready to run: what to call, and how to ask it to finish."""

    serve: Callable[[Sequence[socket.socket]], Any]
    """Serves the listeners until drained; may return an awaitable."""
    drain: Callable[[], object] | None = None
    """Asks for the drain, from a signal handler; None where the server has no such method."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a zygote and its workers need to know of the program they run."""

    load: Callable[[], Service]
    """Loads the application: in the zygote, once (under start method "exec": in the worker)."""
    on_master_death: Callable[[], object] | None
    """Called in the worker when the master is gone."""
    reopen_logs: Callable[[], object]
    follow_logs: Callable[[], object]
    """Opens again what has been moved away since the zygote opened it: a new worker calls it."""
    introduce: Callable[[str, int | None, int], object]
    """Tells the log who this process is: its role, slot and generation."""
    set_log_level: Callable[[str], object]
    report: Callable[[str], object]
    """Logs an error of the worker's own."""
