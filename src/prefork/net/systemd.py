"""systemd, in both directions: sockets that it opened for us, and news that we send it.

Rules:

* Sockets: the protocol of sd_listen_fds(3). The variables are for one process, named in LISTEN_PID, and are
  removed once read, so that no child takes them for its own.
* News: the protocol of sd_notify(3), one datagram for each message. Nothing here raises and nothing waits:
  a service manager that is gone or slow must not hurt serving.
* Only the main process may speak (`NotifyAccess=main`, the default). So at an upgrade the old master
  names the new one with `main_pid` before it goes, and starts it with `successor_environ`.

Without the variables everything is a cheap no-op. Not here: when to say what (the master).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from prefork.errors import AddressError

FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

_LISTEN_VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES")
_MICROSECONDS_A_SECOND: Final = 1_000_000


def inherited_listeners(environ: MutableMapping[str, str], pid: int) -> tuple[int, ...]:
    """Take the descriptors that systemd opened for the process `pid`; they become close-on-exec.

    Removes the LISTEN_* variables of the protocol from `environ`, also where they are not for us. Raises
    `AddressError` where they contradict what is open. Runs in the master, before it opens anything.
    """
    count_text, pid_text = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    for name in _LISTEN_VARIABLES:
        environ.pop(name, None)
    if not count_text or pid_text != str(pid):
        return ()
    if not (count_text.isascii() and count_text.isdecimal() and len(count_text) < 8):
        raise AddressError(f"LISTEN_FDS is {count_text!r} and not a number: unset it, or start from systemd")
    fds = tuple(range(FIRST_FD, FIRST_FD + int(count_text)))
    for fd in fds:
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise AddressError(
                f"LISTEN_FDS promises {count_text} descriptors, and {fd} is not open:"
                " check Sockets= in the service's unit"
            ) from error
    return fds


def successor_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the program that replaces this master.

    Without what is bound to this process's pid: with it the new master would take the watchdog for
    somebody else's, and systemd would kill the service for its silence.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in _LISTEN_VARIABLES and name != "WATCHDOG_PID"
    }


class Notifier:
    """Tells systemd how the service is. Made and used in the master; never raises, never blocks.

    Each method returns whether the message was handed over. `watchdog_interval_s` is how often to call
    `watchdog`, half of what systemd allows, or None where it does not watch.
    """

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        self.watchdog_interval_s = _watchdog_interval_s(environ, os.getpid() if pid is None else pid)
        self._address = _notify_address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None

    def ready(self, status: str = "") -> bool:
        """The service serves; also the end of `reloading`."""
        return self.send(READY="1", **({"STATUS": status} if status else {}))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it. The time is what `Type=notify-reload` goes by."""
        return self.send(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def stopping(self) -> bool:
        """The service goes down."""
        return self.send(STOPPING="1")

    def status(self, text: str) -> bool:
        """A line for `systemctl status`."""
        return self.send(STATUS=text)

    def main_pid(self, pid: int) -> bool:
        """From now on `pid` is the service's main process."""
        return self.send(MAINPID=str(pid))

    def watchdog(self) -> bool:
        """The master is alive."""
        return self.send(WATCHDOG="1")

    def send(self, **state: str) -> bool:
        """Send variables of sd_notify(3), such as `STATUS="…"`, as one message."""
        if self._address is None:
            return False
        # A line break would begin another variable.
        lines = [f"{name}={' '.join(value.splitlines())}" for name, value in state.items()]
        # Whoever listens may be gone, or slow: serving goes on all the same.
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
            return True
        return False

    def close(self) -> None:
        """Let go of the descriptor. The next message opens another. May be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _notify_address(text: str) -> str | None:
    """A path, or an abstract name with its NUL. Other families (vsock, for virtual machines) are left out."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) > 0):
        return None
    return int(text) / _MICROSECONDS_A_SECOND / 2
