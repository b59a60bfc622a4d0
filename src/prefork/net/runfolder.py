"""Where control sockets live: the run-time directory, for the master that makes one and for whoever looks for it.

    $RUNTIME_DIRECTORY        systemd's RuntimeDirectory=
    $XDG_RUNTIME_DIR/prefork  a user's session
    /run/prefork              root, or who has been given it
    /tmp/prefork-UID          where there is nothing else

The first that can be used is. A folder that somebody else could have put there is not: who owns the folder decides whom one
talks to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from prefork.errors import AddressError

_SUFFIX: Final = ".sock"
_SYSTEM: Final = Path("/run/prefork")


def candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """The folders, in order of preference."""
    if environ.get("RUNTIME_DIRECTORY"):
        yield Path(environ["RUNTIME_DIRECTORY"].partition(":")[0])
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "prefork"
    yield _SYSTEM
    import tempfile  # noqa: PLC0415  (hardly ever needed, and the master carries what it imports about for ever)

    with contextlib.suppress(FileNotFoundError):  # a read-only root has none
        yield Path(tempfile.gettempdir()) / f"prefork-{os.geteuid()}"


def new_path(environ: Mapping[str, str]) -> str:
    """A path for this master's socket; makes its folder, and clears away what dead masters left. Raises AddressError."""
    tried = []
    for folder in candidates(environ):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700)
        if is_trusted(folder) and os.access(folder, os.W_OK):
            _sweep(folder)
            return str(folder / f"{os.getpid()}{_SUFFIX}")
        tried.append(str(folder))
    raise AddressError(
        f"no directory for a control socket among {', '.join(tried)}: give one with --control PATH"
    )


def sockets(environ: Mapping[str, str]) -> list[Path]:
    """The control sockets on which somebody answers, in all the folders."""
    found = []
    for folder in dict.fromkeys(candidates(environ)):
        if is_trusted(folder):
            with contextlib.suppress(OSError):  # not ours to read
                found += [path for path in sorted(folder.glob(f"*{_SUFFIX}")) if is_answering(path)]
    return found


def is_trusted(folder: Path) -> bool:
    """Whether only root and we could have put something there."""
    try:
        seen = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(seen.st_mode)
        and seen.st_uid in (0, os.geteuid())
        and not seen.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    )


def is_answering(path: Path) -> bool:
    """Whether somebody listens there. Does not wait."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True


def _sweep(folder: Path) -> None:
    """Remove the sockets of masters that were killed: the pid in the name is nobody's, and nobody answers."""
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError, ValueError):
            if not _is_alive(int(path.stem)) and not is_answering(path):
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
