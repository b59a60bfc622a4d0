"""A call to a master: which one, and what is said. Blocks; runs in `preforkctl`, never in a master."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prefork import control
from prefork.errors import ConfigError, SupervisionError
from prefork.net import runfolder

_READ_BYTES: Final = 65536


class NoMasterError(ConfigError):
    """There is no master to ask, or it cannot be told which one is meant."""


class UnansweredError(SupervisionError):
    """The master did not answer in time, or has gone in the middle of it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Whom to ask, as the command line says it."""

    path: str | None
    pidfile: str | None
    timeout_s: float | None


def find(place: Place, environ: Mapping[str, str]) -> Path:
    """The socket of the master that is meant. Raises NoMasterError."""
    if place.path is not None:
        if place.pidfile is not None:
            raise NoMasterError("give --control or --pidfile, not both")
        return Path(place.path)
    said = environ.get("PREFORK_CONTROL", "")
    if said not in ("", "auto") and place.pidfile is None:
        return Path(said)
    found = runfolder.sockets(environ)
    if place.pidfile is not None:
        return _of_pid(found, _read_pid(place.pidfile), place.pidfile)
    if len(found) == 1:
        return found[0]
    if not found:
        folders = ", ".join(str(folder) for folder in dict.fromkeys(runfolder.candidates(environ)))
        raise NoMasterError(f"no master's control socket in {folders}: name it with --control PATH")
    lines = "".join(f"\n  --control {path}  (master {_master_pid(path) or '?'})" for path in found)
    raise NoMasterError(f"{len(found)} masters run: say which{lines}")


def _read_pid(pidfile: str) -> int:
    try:
        return int(Path(pidfile).read_text())
    except (OSError, ValueError) as error:
        raise NoMasterError(f"pidfile {pidfile} cannot be read: {error}") from error


def _of_pid(found: list[Path], pid: int, pidfile: str) -> Path:
    for path in found:
        if _master_pid(path) == pid:
            return path
    raise NoMasterError(
        f"master {pid} of {pidfile} has no control socket in the run-time directory: name it with --control PATH"
    )


def _master_pid(path: Path) -> int | None:
    """Who listens there, as the kernel says (unix(7), SO_PEERCRED)."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        return peer_pid(sock)
    return None


def peer_pid(sock: socket.socket) -> int | None:
    """The pid of the process that listens on the other side; None where the kernel does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    return int.from_bytes(data[:4], sys.byteorder)


def _timeval(seconds: float) -> bytes:
    """A time as setsockopt(2) takes it."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


class Call:
    """One connection to a master. A context manager."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        """Raises NoMasterError if nobody listens there."""
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._sock = socket.socket(socket.AF_UNIX)
        if timeout_s is not None:
            # Of the kernel's, not of Python's: that makes the socket non-blocking, and a full queue an error (unix(7)).
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_s))
        try:
            self._sock.connect(str(path))
        except OSError as error:
            self._sock.close()
            raise NoMasterError(f"no master answers at {path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sock.close()

    def ask(self, request: control.Request) -> Iterator[control.Answer]:
        """Ask; yields each answer as it comes, the last one last. Raises UnansweredError, ControlError."""
        with contextlib.suppress(BrokenPipeError):  # turned away: it has said why
            self._sock.sendall(control.encode(request))
        for line in self._lines():
            answer = control.decode_answer(line)
            yield answer
            if isinstance(answer, control.FINAL):
                return

    def _lines(self) -> Iterator[bytes]:
        buffer = b""
        while True:
            line, end, rest = buffer.partition(b"\n")
            if end:
                buffer = rest
                yield line
                continue
            buffer += self._receive()

    def _receive(self) -> bytes:
        if self._deadline_s is not None:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                raise self._unanswered()
            self._sock.settimeout(left_s)
        try:
            data = self._sock.recv(_READ_BYTES)
        except TimeoutError:
            raise self._unanswered() from None
        except OSError:  # reset
            data = b""
        if not data:
            raise UnansweredError("the master has gone without a last word")
        return data

    def _unanswered(self) -> UnansweredError:
        return UnansweredError(f"no last word within {self._timeout_s:g} s; what was asked for goes on")
