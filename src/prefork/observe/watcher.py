"""The process that watches code for changes (`--reload`): a program of its own, started and kept alive by the master.

    python -c "... from prefork.observe.watcher import main; main()" JSON

It says on a pipe what it sees, one line each: `watching`, `changed WHAT`, `failed WHY`. It ends with the master. The master
itself must have no threads, and watchfiles has one; nor should it carry a library that only development needs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final

from prefork.observe.watched import Watched

_QUIET_MS: Final = 100
"""Changes with less than this between them are one: a branch that is checked out, a formatter over a whole tree."""
_LONGEST_MS: Final = 2000
_LOOK_MS: Final = 200
"""How soon it says that it watches. watchfiles itself looks every `_QUIET_MS`."""
_MOST_NAMED: Final = 3


def main() -> None:
    """Watch until killed. Arguments, as JSON: fd, roots, includes, excludes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        # They are meant for the master, whose group this is; it ends this process when it wants to.
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    fd, roots, includes, excludes = json.loads(sys.argv[1])
    try:
        _watch(fd, roots, Watched(roots, includes, excludes))
    except BrokenPipeError:
        return  # nobody listens any more
    except Exception as error:
        _say(fd, f"failed {type(error).__name__}: {error}")
        raise SystemExit(1) from error


def _watch(fd: int, roots: list[str], watched: Watched) -> None:
    from watchfiles import Change, watch  # noqa: PLC0415  (an extra; what is wrong with it is told on the pipe)

    def is_meant(change: Change, path: str) -> bool:
        return watched.is_code(path) or (change is Change.added and watched.holds_code(path))

    is_watching = False
    for changes in watch(
        *roots,
        watch_filter=is_meant,
        debounce=_LONGEST_MS,
        step=_QUIET_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        if not is_watching:
            is_watching = True
            _say(fd, "watching")
        if changes:
            _say(fd, f"changed {_named(watched.shown(path) for _, path in changes)}")


def _named(paths: Iterable[str]) -> str:
    several = sorted(set(paths))
    more = len(several) - _MOST_NAMED
    return ", ".join(several[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _say(fd: int, text: str) -> None:
    os.write(fd, " ".join(text.split()).encode(errors="backslashreplace")[:4000] + b"\n")
