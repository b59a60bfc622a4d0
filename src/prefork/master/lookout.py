"""The lookout: the master's hold on the process that watches the code (`observe/watcher.py`).

Started anew whenever `master/watching.py` says so; what it says becomes events. It is run by name, so nothing of it is
loaded here. Its end is seen as the end of its pipe.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork import system
from prefork.errors import ConfigError
from prefork.identity import MARKER
from prefork.master import commands as c
from prefork.master import events as e
from prefork.master.deeds import Deeds
from prefork.master.household import FIRST, Household
from prefork.master.spawn import launcher

_PROGRAM = (
    # The path as we have it: prefork itself may come from a place that only this program knows.
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from prefork.observe.watcher import main; main()"
)
_LEAVES_MS = 1000


@dataclass(frozen=True, slots=True)
class Sights:
    """What is watched: directories, and the globs of what counts in them."""

    roots: tuple[str, ...]
    includes: tuple[str, ...]
    excludes: tuple[str, ...]

    @classmethod
    def of(cls, folders: Sequence[str], includes: Sequence[str], excludes: Sequence[str]) -> Sights:
        """Check them; a folder that is none, or a missing watchfiles, is a ConfigError. Runs in the master, at the start."""
        if not _is_installed("watchfiles"):
            raise ConfigError("--reload needs watchfiles: pip install 'prefork[watch]'")
        roots = []
        for folder in folders or (".",):
            path = Path(folder).resolve()
            if not path.is_dir():
                raise ConfigError(f"--reload-dir {folder!r} is not a directory")
            roots.append(str(path))
        return cls(tuple(roots), tuple(includes), tuple(excludes))


def _is_installed(name: str) -> bool:
    """Whether it could be imported, without doing so."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # in sys.modules by hand, without a spec
        return False


class Lookout:
    """One process at a time. Used by the master's loop only."""

    def __init__(self, household: Household, sights: Sights | None) -> None:
        """sights: None where the code is not watched."""
        self._household = household
        self._sights = sights
        self._popen: subprocess.Popen[Any] | None = None
        self._heard = b""
        self._fd = -1
        """Readable when it has something to say, or has ended."""

    @property
    def pids(self) -> set[int]:
        """The pid, while there is a process."""
        return {self._popen.pid} if self._popen is not None else set()

    def deeds(self) -> Deeds:
        return {c.StartLookout: self._start, c.EndLookout: self._end}

    def _start(self, _command: c.StartLookout) -> Iterable[e.Event]:
        assert self._sights is not None
        try:
            self._run(self._sights)
        except OSError as error:
            return (e.LookoutLost(f"it cannot be started: {error}"),)
        self._household.watch(self._fd, FIRST, self._said)
        return ()

    def _run(self, sights: Sights) -> None:
        read, write = os.pipe()
        words = json.dumps([write, sights.roots, sights.includes, sights.excludes])
        prefix = launcher() if sys.platform == "linux" else []
        command = [*prefix, sys.executable, "-P", "-c", _PROGRAM, words, json.dumps(sys.path)]
        environ = {name: value for name, value in os.environ.items() if name != MARKER}
        try:
            with system.signals_held():
                self._popen = subprocess.Popen(
                    command, env=environ, pass_fds=[write], stdin=subprocess.DEVNULL
                )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._fd = read

    def _said(self) -> Iterator[e.Event]:
        """What it has said since it was last asked; `LookoutLost` is the last thing that it ever says."""
        assert self._sights is not None
        data = os.read(self._fd, 65536)
        *lines, self._heard = (self._heard + data).split(b"\n")
        why = ""
        for line in lines:
            word, _, text = line.decode(errors="replace").partition(" ")
            if word == "watching":
                yield e.LookoutReady(", ".join(self._sights.roots))
            elif word == "changed":
                yield e.CodeChanged(text)
            else:
                why = text
        if why or not data:
            yield e.LookoutLost(why or self._how_it_ended())

    def _how_it_ended(self) -> str:
        assert self._popen is not None
        try:
            status = self._popen.wait(_LEAVES_MS / 1000)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def _end(self, _command: c.EndLookout) -> None:
        """End it, if it is there, and forget what it has said."""
        self._household.unwatch(self._fd)
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None
        self._heard = b""
        self.close()

    def close(self) -> None:
        """Let go of the descriptor without touching the process. Also for the copy in a forked zygote."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
