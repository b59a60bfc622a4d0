"""One listening socket at a time: made, adopted, asked.

Rules:

* Every socket is close-on-exec, has SO_REUSEADDR, and TCP_NODELAY, which accepted sockets inherit (Linux).
* No TCP_DEFER_ACCEPT: it hides the backlog, and a deferred connection is reset at close.
* The blocking flag of a socket from outside is never touched. It belongs to the open description, which
  the workers of a predecessor still share: made blocking, it would hang their event loops in accept().
* What the kernel refuses becomes one `AddressError` that says what to do, with the `OSError` as its cause.

Not here: which sockets belong together and who closes them (`listeners.py`), paths (`unixpath.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prefork.errors import AddressError
from prefork.net.address import Address

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

# struct tcp_info, linux/tcp.h: eight bytes, then words; the fifth word is tcpi_unacked, which on a
# listening socket is the number of connections that wait for accept().
_TCP_INFO_UNACKED_OFFSET: Final = 8 + 4 * 4

_BACKLOG_UNKNOWN: Final = 2048
"""Backlog for a listener that cannot tell its own (Unix sockets); the kernel caps it at net.core.somaxconn."""

_TCPI_SACKED_OFFSET: Final = 28
"""Offset of `tcpi_sacked` in `struct tcp_info`: on a listening socket it is the backlog (tcp(7))."""

_SOMAXCONN_FILE: Final = Path("/proc/sys/net/core/somaxconn")


@dataclass(frozen=True, slots=True)
class Place:
    """Where exactly to bind: what is left of an address once names are resolved."""

    family: int
    sockaddr: Any  # as `socket` has it: its shape depends on the family
    is_v6_only: bool = True

    @classmethod
    def of(cls, sock: socket.socket) -> Place:
        """The place at which `sock` is bound, so that a sibling can join it there."""
        is_v6_only = True
        if sock.family == socket.AF_INET6:
            is_v6_only = bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        return cls(sock.family, sock.getsockname(), is_v6_only)


def bind_tcp(address: Address, *, share: bool) -> socket.socket:
    """Bind the first socket of a TCP address. It does not listen yet.

    `share` lets later sockets join it (SO_REUSEPORT). The option is set after the bind, not before: so a
    port that a stranger holds is refused here, in place of being shared with that stranger in silence,
    and the places in the group are ours from the first one on.
    Raises `AddressError`. Runs in the master; may block on the resolver if the host is a name.
    """
    places = _resolve(address)
    for nth, place in enumerate(places, start=1):
        try:
            sock = _bind(place, join=False)
        except OSError as error:
            if nth < len(places) and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue
            raise AddressError(_bind_trouble(address, error)) from error
        if share:
            _set_reuseport(sock)
        return sock
    raise AddressError(f"cannot find an address for {address.host!r}: check the name")


def join_tcp(first: socket.socket, address: Address) -> socket.socket:
    """Bind one more socket beside `first`; it does not listen yet. Raises `AddressError`. Master only."""
    try:
        _set_reuseport(first)  # one from a predecessor that did not share may lack it
        return _bind(Place.of(first), join=True)
    except OSError as error:
        raise AddressError(_bind_trouble(address, error)) from error


def bind_abstract(sock: socket.socket, address: Address) -> None:
    """Bind a fresh Unix socket in Linux's abstract namespace. Raises `AddressError`. Runs in the master."""
    try:
        sock.bind("\0" + address.path[1:])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(f"{address} is in use: stop the program that has it") from error
        raise AddressError(f"cannot bind {address}: {_reason(error)}; abstract names need Linux") from error


def listen(sock: socket.socket, address: Address, backlog: int) -> None:
    """Begin to listen, or change the backlog of a listening socket. Raises `AddressError`."""
    try:
        sock.listen(backlog)
    except OSError as error:
        raise AddressError(_bind_trouble(address, error)) from error


def adopt(fd: int, address: Address) -> socket.socket:
    """Make a descriptor from outside ours: it must be a listening stream socket.

    On success the returned socket owns `fd`; on `AddressError` it stays as it was. Runs in the master.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        trouble = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise AddressError(f"descriptor {fd} for {address} {trouble}: pass a listening socket") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise AddressError(
            f"descriptor {fd} for {address} is not a listening stream socket: bind it and call listen() first"
        )
    sock.set_inheritable(False)
    if is_internet(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def is_internet(sock: socket.socket) -> bool:
    """True for a TCP socket, false for a Unix one."""
    return sock.family in _INTERNET


def bound_to(sock: socket.socket, address: Address) -> Address:
    """`address` with what the kernel made of it: the real port, and for "fd" where that socket is bound."""
    name = sock.getsockname()
    if not is_internet(sock):
        path = name.replace(b"\0", b"@", 1) if isinstance(name, bytes) else name
        return Address(address.kind, path=os.fsdecode(path), fd=address.fd)
    host, port = name[0], name[1]
    if address.kind == "fd":
        return Address("fd", host=host, port=port, fd=address.fd)
    if address.host == "::" and sock.family == socket.AF_INET:  # IPv6 is off, and we fell back
        return Address("tcp4", host=host, port=port)
    return Address(address.kind, host=address.host, port=port)


def queue_depth(sock: socket.socket) -> int:
    """How many connections wait for accept(): exact on a listening TCP socket on Linux, otherwise 0.

    No privilege needed. Runs in any process; does not block.
    """
    option = getattr(socket, "TCP_INFO", None)
    if option is None or not is_internet(sock):
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_UNACKED_OFFSET + 4)
    depth: int = struct.unpack_from("=I", info, _TCP_INFO_UNACKED_OFFSET)[0]
    return depth


def backlog_limit() -> int | None:
    """The longest queue that the kernel grants, or None where it does not say (not Linux)."""
    # Only a warning hangs on it, so a kernel that does not say is no trouble.
    with contextlib.suppress(OSError, ValueError):
        return int(_SOMAXCONN_FILE.read_text(encoding="ascii"))
    return None


def _resolve(address: Address) -> list[Place]:
    """Where to bind `address`, best first. More than one only for both families on one socket."""
    if address.kind == "tcp" and address.host == "::":
        return [
            Place(socket.AF_INET6, ("::", address.port), is_v6_only=False),
            Place(socket.AF_INET, ("0.0.0.0", address.port)),
        ]
    family = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6}.get(address.kind, socket.AF_UNSPEC)
    # As bytes: for a text Python loads the codec of international names, and, where no descriptor is left to load it with,
    # remembers for good that there is none.
    host = address.host.encode() if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, family, socket.SOCK_STREAM)
    except (socket.gaierror, LookupError, UnicodeError) as error:
        raise AddressError(
            f"cannot find host {address.host!r} of {address}: {_reason(error)};"
            " check the name, or write an IP address or ':PORT'"
        ) from error
    # IPv4 first and one address only, as Go's net.Listen does with a name.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [Place(found[0][0], found[0][4])] if found else []


def _bind(place: Place, *, join: bool) -> socket.socket:
    sock = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if place.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place.is_v6_only))
        if join:
            _set_reuseport(sock)
        sock.bind(place.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_reuseport(sock: socket.socket) -> None:
    # Windows has no such option: there SO_REUSEADDR, set already, means the same.
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind_trouble(address: Address, error: OSError) -> str:
    port = address.port
    if error.errno == errno.EADDRINUSE:
        is_dual = address.kind == "tcp" and address.host == "::"
        both = f", or write tcp6://[::]:{port} for IPv6 alone" if is_dual else ""
        return (
            f"{address} is in use: stop the program that has port {port}"
            f" (ss -ltnp 'sport = :{port}' names it), or choose another port{both}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"no permission to bind {address}: port {port} needs root or CAP_NET_BIND_SERVICE;"
            " use a port from 1024, or systemd's socket activation"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"cannot bind {address}: no interface of this machine has {address.host};"
            f" use an address that it has (ip addr), or ':{port}' for all"
        )
    if error.errno == errno.EAFNOSUPPORT:
        return f"cannot bind {address}: IPv6 is off on this machine; write '127.0.0.1:{port}' or ':{port}'"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"cannot bind {address}: too many open files; raise the limit (ulimit -n, LimitNOFILE=)"
    return f"cannot bind {address}: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def backlog_of(listener: socket.socket) -> int:
    """The backlog that `listener` has now, in connections.

    A loop calls `listen(backlog)` on what it is given, and a second `listen` changes the queue of a shared socket for
    everybody: so it is told to change it to what it is.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return _BACKLOG_UNKNOWN
    with contextlib.suppress(OSError):  # not a listening TCP socket after all: the kernel's cap decides
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_SACKED_OFFSET + 4)
        backlog: int = struct.unpack_from("=I", info, _TCPI_SACKED_OFFSET)[0]
        return backlog or _BACKLOG_UNKNOWN
    return _BACKLOG_UNKNOWN
