"""The control socket, as the master sees it: clients that come, ask, wait, and go; none of them is ever waited for.

Rules:

* Nothing blocks: a client that says nothing, or reads nothing, delays nobody, and is no wake-up.
* Everything is bounded: clients, the bytes of a request, the bytes of answers that a client has not read. Who exceeds a
  bound is let go of. Where all places are taken, who waits for nothing goes first.
* Only root and the master's own user are heard: by the socket's mode, and by the kernel's word on who has connected.
* One request at a time for each client; what it sends meanwhile waits.
* The admin process, which strangers may reach, may ask for the status and for nothing else.
* A client may close its sending side and still read its answer (`echo '{"request": "status"}' | nc -NU PATH`).

The clients hang on a selector of their own, and the master's loop watches that (epoll(7): an epoll descriptor is readable
when something in it is).

Not here: what is said (`prefork.control`), what it means (`requests`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prefork import control
from prefork.master import events as e
from prefork.net.unixpath import OwnedPath, UnixOptions, bind_path

MOST_CLIENTS: Final = 16
BACKLOG: Final = 128
"""Those who connect in the same moment; taken in at once, one after the other."""
MODE: Final = 0o600
UNREAD_BYTES: Final = 1024 * 1024
"""Answers that a client has not read: more than the status of a thousand workers, less than anything that matters."""
_LISTENER: Final = 0


@dataclass(slots=True, eq=False)
class _Client:
    """Somebody on the other side."""

    number: int
    sock: socket.socket
    inbox: bytearray = field(default_factory=bytearray)
    outbox: bytearray = field(default_factory=bytearray)
    is_asking: bool = False
    """It has asked for something, and has not had the last word on it."""
    has_said_all: bool = False
    """It has closed its sending side, or is gone: a try to answer it will tell."""
    is_reader: bool = False
    """The admin process: it may only look, and keeps its place."""


class Controls:
    """One control socket. Used by the master's loop only."""

    def __init__(self, path: str) -> None:
        """Nothing is opened yet. "" for no path: nobody but the admin process asks then."""
        self.path = str(Path(path).absolute()) if path else ""
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}
        self._next_number = _LISTENER + 1
        self._sock: socket.socket | None = None
        self._owned: OwnedPath | None = None
        # Where no descriptor is left, this one is given up for a moment, so that whoever connects can be turned away;
        # otherwise the connection would wait, and wake us up again and again.
        self._spare = -1

    def open(self, *, takes_over: bool = False) -> None:
        """Listen, if there is a path. Raises AddressError.

        takes_over: an old master listens at the path, and it is to be ours, without a moment in which nobody answers.
        """
        if not self.path:
            return
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            # A short name, because a socket's path may have 107 bytes only (unix(7)).
            path = Path(self.path).with_name(f".{os.getpid()}") if takes_over else Path(self.path)
            self._owned = bind_path(sock, str(path), UnixOptions(mode=MODE))
            sock.listen(BACKLOG)
            if takes_over:
                path.replace(self.path)
                self._owned = OwnedPath.claim(self.path)
        except BaseException:
            if self._owned is not None:
                self._owned.remove()
            sock.close()
            raise
        self._sock = sock
        self._keep_spare()
        self._selector.register(sock, selectors.EVENT_READ, None)

    def adopt(self, sock: socket.socket) -> None:
        """Hear the admin process at the other end of `sock`, which becomes ours."""
        self._add(sock, is_reader=True)

    def fileno(self) -> int:
        """Readable when there is something to `take`."""
        epoll: selectors.EpollSelector = self._selector  # type: ignore[assignment]  # or kqueue, which has it too
        return epoll.fileno()

    def take(self) -> Iterator[e.Event]:
        """What has been asked. Never blocks."""
        for key, events in self._selector.select(0):
            if key.data is None:
                self._accept()
                continue
            client: _Client = key.data
            if client.number not in self._clients:  # let go of earlier in this round
                continue
            if events & selectors.EVENT_WRITE:
                yield from self._send(client)
            if events & selectors.EVENT_READ and client.number in self._clients:
                yield from self._hear(client)

    def answer(self, number: int, answer: control.Answer) -> Iterator[e.Event]:
        """Answer a client; one that is gone is no error. Never blocks."""
        client = self._clients.get(number)
        if client is None:
            return
        client.outbox += control.encode(answer)
        if isinstance(answer, control.FINAL):
            client.is_asking = False
        yield from self._send(client)
        if number in self._clients and not client.is_asking:
            yield from self._next_request(client)

    def close(self) -> None:
        """Let go of everything; the path is removed, if it is still ours. Also for the copy in a forked zygote."""
        if self._owned is not None and self._sock is not None:
            self._owned.remove()
        for client in self._clients.values():
            client.sock.close()
        self._clients = {}
        self._selector.close()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    # -- one client -------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._sock is not None
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:  # it has left already
            return
        except OSError:
            self._turn_away()
            return
        if not _is_allowed(sock) or not self._make_room():
            with contextlib.suppress(OSError):
                sock.send(control.encode(control.Failed("not now: others are being answered")))
            sock.close()
            return
        self._add(sock)

    def _add(self, sock: socket.socket, *, is_reader: bool = False) -> None:
        sock.setblocking(False)
        client = _Client(self._next_number, sock, is_reader=is_reader)
        self._next_number += 1
        self._clients[client.number] = client
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _turn_away(self) -> None:
        """Close a connection that there is no descriptor for (EMFILE)."""
        assert self._sock is not None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            self._sock.accept()[0].close()
        self._keep_spare()

    def _keep_spare(self) -> None:
        with contextlib.suppress(OSError):  # none is left: tried again at the next connection
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _make_room(self) -> bool:
        """Whether there is a place for one more; who waits for nothing gives way, the first to come first."""
        strangers = [client for client in self._clients.values() if not client.is_reader]
        if len(strangers) < MOST_CLIENTS:
            return True
        idle = next((client for client in strangers if not client.is_asking), None)
        if idle is None:
            return False
        self._drop(idle)
        return True

    def _hear(self, client: _Client) -> Iterator[e.Event]:
        try:
            data = client.sock.recv(control.LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            client.has_said_all = True
            if client.is_asking or client.outbox:
                self._watch(client)
            else:
                yield from self._lose(client)
            return
        client.inbox += data
        if not client.is_asking:
            yield from self._next_request(client)
        if len(client.inbox) > control.LINE_BYTES:
            client.outbox += control.encode(
                control.Failed(f"a request has {control.LINE_BYTES} bytes at most")
            )
            yield from self._send(client)
            yield from self._lose(client)

    def _next_request(self, client: _Client) -> Iterator[e.Event]:
        """The next line of what it has said, if there is one."""
        while not client.is_asking and client.number in self._clients:
            line, end, rest = client.inbox.partition(b"\n")
            if not end:
                return
            client.inbox = rest
            try:
                request = _request_of(client, bytes(line))
            except control.ControlError as error:
                client.outbox += control.encode(control.Failed(str(error)))
                yield from self._send(client)
            else:
                client.is_asking = True
                yield e.Asked(client.number, request)

    def _send(self, client: _Client) -> Iterator[e.Event]:
        try:
            while client.outbox:
                del client.outbox[: client.sock.send(client.outbox)]
        except BlockingIOError:
            if len(client.outbox) > UNREAD_BYTES:
                yield from self._lose(client)
                return
        except OSError:  # it is gone
            yield from self._lose(client)
            return
        if client.has_said_all and not client.is_asking and not client.outbox:
            yield from self._lose(client)
        else:
            self._watch(client)

    def _watch(self, client: _Client) -> None:
        """Watch a client for what can come of it now."""
        events = 0 if client.has_said_all else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if client.outbox else 0
        is_watched = client.sock in self._selector.get_map()
        if not events:
            if is_watched:
                self._selector.unregister(client.sock)
        elif not is_watched:
            self._selector.register(client.sock, events, client)
        elif self._selector.get_key(client.sock).events != events:
            self._selector.modify(client.sock, events, client)

    def _lose(self, client: _Client) -> Iterator[e.Event]:
        """It is gone, or is let go of: nobody waits any more for what it has asked."""
        if client.number in self._clients:
            self._drop(client)
            yield e.ClientLeft(client.number)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.number]
        if client.sock in self._selector.get_map():
            self._selector.unregister(client.sock)
        client.sock.close()


def _request_of(client: _Client, line: bytes) -> control.Request:
    request = control.decode_request(line)
    if client.is_reader and not isinstance(request, control.Status):
        raise control.ControlError("the admin process may only look")
    return request


def _is_allowed(sock: socket.socket) -> bool:
    """Whether root or our own user has connected, as the kernel says (unix(7), SO_PEERCRED). Elsewhere the mode decides."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    return int.from_bytes(data[4:8], sys.byteorder) in (0, os.geteuid())
