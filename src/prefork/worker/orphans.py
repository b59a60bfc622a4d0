"""What a worker does when its master is gone, unless the program says otherwise."""

from __future__ import annotations

import os
import signal

ORPHAN_S = 0.8
"""What is left to an orphan to drain: with the master's death to be seen and processes to be ended, all are gone
within one second. Nobody can follow an orphan, so it may not keep a port for a grace period."""


def drain_orphan() -> None:
    """The default of `on_master_death`: drain, and be gone within `ORPHAN_S` whatever happens. In the worker."""
    # The kernel's timer and the signal's default action: they end a process whose interpreter is stuck, too.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, ORPHAN_S)
    os.kill(os.getpid(), signal.SIGTERM)
