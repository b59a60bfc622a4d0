"""Typed messages, and descriptors, between two processes, over a Unix socketpair.

Rules:

* The messages below are all there are; both ends run the same program, so there is no version to negotiate.
* One channel joins the master with one process. Its end-of-file means that the other side is gone: that is
  how a worker learns of the master's death, at once and without asking.
* On the wire: a length (4 bytes, big-endian), then JSON. Descriptors travel with the first byte of their
  message (SCM_RIGHTS, unix(7)).
* The master's end never blocks. A process that does not read its channel delays nobody.

The socket is a stream because macOS has no SOCK_SEQPACKET for Unix sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

_LENGTH = struct.Struct(">I")
_READ_BYTES = 65536
MOST_FDS = 253
"""Descriptors that one message may carry: SCM_MAX_FD of the Linux kernel (unix(7))."""
DETAILS_BYTES = 32 * 1024
"""A traceback is cut to this before it is sent, so that a message always fits the socket's buffer."""

MOST_BYTES = 1024 * 1024
"""No message of ours has so many. A longer one is text that somebody has written there, its first letters read as a length."""


@dataclass(frozen=True, slots=True)
class BeZygote:
    """Master to a re-executed program: load the application and fork workers of it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Start:
    """Master to a worker, first of all: who you are. Carries the listeners' descriptors."""

    serial: int
    slot: int
    generation: int
    inherited: tuple[int, ...] = ()
    """Descriptors that came by inheritance as well (start method "exec"): the worker closes them."""
    entry: int | None = None
    """The worker's record on the scoreboard, whose descriptor then comes behind the listeners'. None: it has none."""
    requests: int = 0
    """Requests that it is to serve before it says that it is worn; 0: no bound."""
    log_level: str = ""
    """From which level on to log; "" for that of the zygote."""
    is_watched: bool = False
    """Whether it is to say when it wakes up (`Awake`)."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Master to the zygote: fork a worker. Carries the worker's end of its channel."""

    serial: int


@dataclass(frozen=True, slots=True)
class Forked:
    """Zygote to the master: the worker exists and is the master's child by now."""

    serial: int
    pid: int


@dataclass(frozen=True, slots=True)
class Parked:
    """Zygote to the master: a process waits to become the next worker, and is the master's child already."""

    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """Zygote to the master: no worker could be made."""

    serial: int
    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Zygote: the application is loaded. Worker: connections are accepted."""


@dataclass(frozen=True, slots=True)
class BootFailed:
    """Zygote or worker: the start failed, and why."""

    summary: str
    details: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Reopen:
    """Master to a worker: open your log files again."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Master to a worker: log from this level on."""

    level: str


NOBODY = 0
"""The client who asks for stacks that are for the log only. Controls count theirs from 1."""


@dataclass(frozen=True, slots=True)
class ShowStacks:
    """Master to a worker: say where you stand."""

    client: int
    """Who asks: comes back with the answer. `NOBODY`: it is for the log, and the worker is then killed."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """Worker to the master: here I stand."""

    client: int
    text: str


@dataclass(frozen=True, slots=True)
class Awake:
    """Worker to the master: something happens here again, and I tell on the scoreboard that my loop turns."""


@dataclass(frozen=True, slots=True)
class Renumber:
    """Master to a worker: this is your slot from now on."""

    slot: int


@dataclass(frozen=True, slots=True)
class Worn:
    """Worker to the master: I have served enough."""

    why: str


@dataclass(frozen=True, slots=True)
class BeAdmin:
    """Master to the admin process, first of all. Carries a connection to the control desk, then the listeners' descriptors."""

    user: str | int | None = None
    """Whom to be, as workers are; None: who it is."""
    group: str | int | None = None
    names: tuple[str, ...] = ()
    """Names, besides this machine's, by which it may be asked."""


Message = (
    BeZygote
    | BeAdmin
    | Start
    | Fork
    | Forked
    | Parked
    | ForkFailed
    | Ready
    | BootFailed
    | Reopen
    | LogLevel
    | ShowStacks
    | Stacks
    | Worn
    | Awake
    | Renumber
)
_TYPES: dict[str, Callable[..., Message]] = {t.__name__: t for t in get_args(Message)}


class Channel:
    """One end of a channel. Not thread-safe: each end belongs to one thread of one process."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._fds: deque[int] = deque()
        self._is_short = False
        self.is_closed = False
        """The other side is gone (or this end was closed)."""

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The master's end, and the bare socket to hand to the other process. Raises OSError (EMFILE)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def has_waiting(self, within_ms: int) -> bool:
        """Whether something can be read, end-of-file included, now or within that time. Blocks for it at most."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(within_ms))

    def is_cut(self) -> bool:
        """Whether the other side is gone altogether, whatever it has said before. Reads nothing; never blocks."""
        poll = select.poll()
        poll.register(self._sock, 0)  # hang-up is always told
        return bool(poll.poll(0))

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises OSError: BrokenPipeError (other side gone), BlockingIOError (it reads nothing)."""
        body = json.dumps([type(message).__name__, asdict(message), len(fds)]).encode()
        data = _LENGTH.pack(len(body)) + body
        sent = socket.send_fds(self._sock, [data], list(fds))
        if sent < len(data):
            self._sock.sendall(data[sent:])

    def receive(self) -> list[tuple[Message, tuple[int, ...]]]:
        """All messages that are here, with their descriptors; blocks only if the socket blocks.

        Sets `is_closed` at end-of-file. A message whose descriptors could not be taken in, because this process
        has none left (EMFILE), comes with an empty tuple.
        """
        if self._sock.fileno() < 0:
            return []
        with contextlib.suppress(BlockingIOError, InterruptedError):
            try:
                data, fds, flags, _ = socket.recv_fds(self._sock, _READ_BYTES, MOST_FDS)
            except ConnectionResetError:  # it left with our messages unread: gone all the same
                data, fds, flags = b"", [], 0
            for fd in fds:
                os.set_inheritable(fd, False)  # recv_fds does not hand its flags on (MSG_CMSG_CLOEXEC)
            self._fds.extend(fds)
            self._buffer += data
            self._is_short |= bool(flags & socket.MSG_CTRUNC)
            self.is_closed |= not data
        try:
            return self._messages()
        except (ValueError, KeyError, TypeError, IndexError):
            # Not our protocol: a command of the program's own writes there. Nothing it says means anything to us.
            self._buffer = b""
            self.is_closed = True
            return []

    def _messages(self) -> list[tuple[Message, tuple[int, ...]]]:
        found: list[tuple[Message, tuple[int, ...]]] = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if end > MOST_BYTES:
                raise ValueError(f"a message of {end} bytes")
            if len(self._buffer) < end:
                break
            name, fields, count = json.loads(self._buffer[_LENGTH.size : end])
            self._buffer = self._buffer[end:]
            found.append((_decode(name, fields), self._take_fds(count)))
        return found

    def _take_fds(self, count: int) -> tuple[int, ...]:
        if len(self._fds) < count and self._is_short:
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
            self._is_short = False
            return ()
        return tuple(self._fds.popleft() for _ in range(count))

    def finish(self) -> None:
        """Send no more: the other side reads end-of-file, and what it still has to say is heard."""
        with contextlib.suppress(OSError):  # it is gone already
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end, and descriptors of messages that never came; the other side reads end-of-file."""
        self.is_closed = True
        self._sock.close()
        while self._fds:
            os.close(self._fds.popleft())


def _decode(name: str, fields: dict[str, Any]) -> Message:
    return _TYPES[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})
