"""The file with the master's pid: written whole or not at all, and removed only while it is still ours."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from prefork.errors import ConfigError


class Pidfile:
    """One file, for one master.

    A pid that stands there already is overwritten: that another master serves is what the sockets tell.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()  # a later chdir of the program does not make it another file
        self._pid = os.getpid()

    def write(self) -> None:
        """Write our pid. Raises ConfigError."""
        draft = self._path.with_name(f".{self._path.name}.{self._pid}")
        try:
            draft.write_text(f"{self._pid}\n")
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise ConfigError(f"pidfile {self._path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Remove it, if it still names this process: a new master may have taken over. Not in a fork's copy."""
        if os.getpid() != self._pid:
            return
        with contextlib.suppress(OSError, ValueError):
            if int(self._path.read_text()) == self._pid:
                self._path.unlink()
