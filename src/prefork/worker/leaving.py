"""How a forked process ends: its own exit handlers run, those of the process it was forked from do not.

A fork copies the list of `atexit` handlers. Run in a worker, a handler that the parent program registered to
remove its temporary directory would remove it under everybody's feet; so a fork starts with an empty list, as
`multiprocessing` does, and what the worker registers itself is run when it leaves.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from typing import NoReturn


def start_afresh() -> None:
    """Forget the exit handlers that came with the fork. Call first thing in the child."""
    atexit._clear()  # noqa: SLF001


def leave(status: int) -> NoReturn:
    """End a forked process: wait for its threads, run its exit handlers, flush, exit. Never returns.

    `threading._shutdown` is what the interpreter does at its end, and `multiprocessing` at a fork's: it first tells the
    idle threads of a `ThreadPoolExecutor` to go, which nobody else does, and then waits for all that are no daemons.

    Not `sys.exit`: the stack below us belongs to the program that was forked, and its `finally` blocks are not
    ours to run.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed, or a full disk: nobody is left to tell
            continue
    os._exit(status)
