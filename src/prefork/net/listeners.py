"""All listening sockets of the master, and their one owner.

Rules:

* A listening socket is opened once, by the master, and outlives every worker (DESIGN §4, promise 1).
* Per-slot: under `reuseport`, a TCP address has one socket for each slot, opened in slot order. All else
  (Unix, `fd://`, `reuseport=False`) has one socket, which every slot gets.
* Slots are opened and closed at the end only. The kernel fills the hole of a removed socket with the last
  one, so closing in the middle would give slots other places than the steering means.
* All slots of an address share the port that the first one got.
* What fails while opening closes all that was opened.

How a slot goes: `steer_below(slot)` turns new connections away from it; its worker goes on accepting until
`queue_depth(slot)` stays 0; then `close_slot(slot)`. Handshakes under way when the steering came still end
up in the old queue, so the worker should be given about a second past the first 0.

How the program is replaced (USR2): the old master gives `handover()` to the new program, which passes it to
`open(inherited=…)`. Until the new one is known to work either may go, so neither removes a path that the
other needs: then the old one calls `leave_paths()` and the new one `take_over()`.

Not here: one socket's options and errors (`sockets.py`), files of Unix sockets (`unixpath.py`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from prefork.errors import AddressError
from prefork.net import sockets, steering
from prefork.net.address import Address
from prefork.net.unixpath import OwnedPath, UnixOptions, bind_path

__all__ = ["ListenerSet", "UnixOptions"]

_AS_THE_PROCESS: Final = UnixOptions()
_NOTHING: Final[Mapping[str, Sequence[int]]] = MappingProxyType({})


@dataclass(slots=True)
class _Group:
    """The sockets of one address: one for each slot, or a single one for all."""

    configured: Address
    is_per_slot: bool
    sockets: list[socket.socket] = field(default_factory=list)
    owned: OwnedPath | None = None

    def for_slot(self, slot: int) -> socket.socket:
        return self.sockets[slot if self.is_per_slot else 0]

    def close(self) -> None:
        if self.owned is not None:
            self.owned.remove()  # before the socket goes: it is what keeps the inode number ours
            self.owned = None
        while self.sockets:
            self.sockets.pop().close()


class ListenerSet:
    """The listening sockets of all addresses. Make it with `open`. Lives in the master, in one thread.

    `warnings` is for the master to log. Nothing here blocks, except `open` on the name of a host.
    """

    def __init__(self, groups: list[_Group], slots: int, backlog: int, warnings: tuple[str, ...]) -> None:
        self.warnings = warnings
        self._groups = groups
        self._slots = slots
        self._backlog = backlog
        self._steered_below: int | None = None

    @classmethod
    def open(
        cls,
        addresses: Sequence[Address],
        *,
        reuseport: bool,
        slots: int,
        backlog: int = 2048,
        unix: UnixOptions = _AS_THE_PROCESS,
        inherited: Mapping[str, Sequence[int]] = _NOTHING,
    ) -> ListenerSet:
        """Open, or adopt, the listening sockets of `addresses`, which listen at once.

        `slots` is the number of workers at first, `backlog` the connections that may wait in one queue.
        `inherited` is the predecessor's `handover()`: its descriptors become ours, those of addresses that
        are no longer wanted are closed. Where it had more slots than asked for, they are all kept, for
        their queues may hold connections: see `slots_open`.

        Raises `AddressError` with one line that says what to do, after closing all it had opened, the
        inherited ones too. Runs in the master; may block on the resolver if a host is a name.
        """
        if slots < 1 or backlog < 1:
            raise ValueError(f"slots and backlog must be 1 or more, not {slots} and {backlog}")
        adopted = {key: list(fds) for key, fds in inherited.items()}
        groups: list[_Group] = []
        try:
            _refuse_unclear(addresses)
            for address in addresses:
                group = _Group(address, is_per_slot=reuseport and address.is_tcp)
                groups.append(group)
                _adopt(group, adopted.pop(str(address), []), backlog)
                if not group.sockets:
                    _open_first(group, backlog, unix)
            count = max([slots, *(len(group.sockets) for group in groups)])
            for group in groups:
                while group.is_per_slot and len(group.sockets) < count:
                    _open_another(group, backlog)
        except BaseException:
            for group in groups:
                group.close()
            _close_descriptors(adopted)
            raise
        _close_descriptors(adopted)
        return cls(groups, count, backlog, _backlog_warnings(groups, backlog))

    @property
    def addresses(self) -> tuple[Address, ...]:
        """In the order given: where we really listen, with the port that the kernel chose for port 0."""
        return tuple(sockets.bound_to(group.sockets[0], group.configured) for group in self._groups)

    @property
    def slots_open(self) -> int:
        """How many slots there are; the next one to open has this number, the last one is one less."""
        return self._slots

    def for_slot(self, slot: int) -> tuple[socket.socket, ...]:
        """The sockets that the worker in `slot` serves, one for each address, in order.

        `slot == slots_open` opens one more slot, which gets connections only once `steer_below` includes it:
        nobody is there yet to accept them. The sockets stay ours: who
        serves them has a copy (fork, or a descriptor that was passed), and never calls shutdown() on it,
        which would end it for all.
        Raises `ValueError` for any other slot, and `AddressError` where the kernel refuses; then nothing has
        changed, and its cause is the `OSError`, whose errno says whether to try again (EMFILE, ENOBUFS).
        """
        if not 0 <= slot <= self._slots:
            raise ValueError(f"slot {slot} is not open, and the next one to open is {self._slots}")
        if slot == self._slots:
            self._open_slot()
        return tuple(group.for_slot(slot) for group in self._groups)

    def steer_below(self, count: int) -> None:
        """Let new connections go to slots below `count` only. Without per-slot sockets: does nothing.

        With `count == slots_open` the choice is the kernel's hash again. Raises `ValueError` for a count
        outside 1 to `slots_open`, and `OSError` where the kernel refuses.
        """
        if not 1 <= count <= self._slots:
            raise ValueError(f"count must be from 1 to {self._slots}, not {count}")
        if count == self._slots:
            self._steer_off()
            return
        self._attach(count)

    def close_slot(self, slot: int) -> None:
        """Close the sockets of the last slot. See the module's text for what has to come before.

        Raises `ValueError` for any slot but the last, and for slot 0: a listening socket outlives every
        worker, and `close` ends the set.
        """
        if slot != self._slots - 1 or slot == 0:
            raise ValueError(
                f"slot {slot} cannot be closed: only the last may be, {self._slots - 1}, and not 0"
            )
        for group in self._per_slot():
            group.sockets.pop().close()
        self._slots -= 1
        if self._steered_below is not None and self._steered_below >= self._slots:
            self._steer_off()

    def queue_depth(self, slot: int) -> int:
        """How many TCP connections wait for accept() in `slot`, all addresses together. Unix counts as 0.

        A shared socket has one queue, which counts for every slot. Raises `ValueError` for an unknown slot.
        """
        if not 0 <= slot < self._slots:
            raise ValueError(f"slot {slot} is not open: the last one is {self._slots - 1}")
        return sum(sockets.queue_depth(group.for_slot(slot)) for group in self._groups)

    def connections_waiting(self) -> int:
        """How many TCP connections wait for accept() in all queues. Unix counts as 0."""
        return sum(sockets.queue_depth(sock) for group in self._groups for sock in group.sockets)

    def handover(self) -> dict[str, list[int]]:
        """For the new program: the address as it was configured, and its descriptors by slot.

        They are close-on-exec, so whoever starts the program must pass them (`pass_fds`), under the same
        numbers or with the numbers changed here too.
        """
        return {str(group.configured): [sock.fileno() for sock in group.sockets] for group in self._groups}

    def leave_paths(self) -> None:
        """The successor has taken over: this process no longer removes the files of Unix sockets."""
        for group in self._groups:
            group.owned = None

    def take_over(self) -> None:
        """The predecessor is done: its Unix paths are ours to remove, and its steering no longer holds.

        Called by the new program once the upgrade is certain. Before that `close` leaves the paths alone, as
        the predecessor goes on with them if we fail. Raises `OSError` where the kernel refuses.
        """
        for group in self._groups:
            address = group.configured
            if address.kind == "unix" and not address.is_abstract and group.owned is None:
                # A path that is gone already needs nobody to remove it.
                with contextlib.suppress(OSError):
                    group.owned = OwnedPath.claim(address.path)
        self._steer_off()

    def close(self) -> None:
        """Close everything, and remove the paths that this process bound. May be called twice.

        In a forked child it closes the child's copies and removes nothing.
        """
        for group in self._groups:
            group.close()
        self._groups = []
        self._slots = 0

    def __repr__(self) -> str:
        steered = "" if self._steered_below is None else f", steered below {self._steered_below}"
        places = ", ".join(str(address) for address in self.addresses) or "closed"
        return f"<ListenerSet {places}: {self._slots} slots{steered}>"

    def _per_slot(self) -> list[_Group]:
        return [group for group in self._groups if group.is_per_slot]

    def _open_slot(self) -> None:
        opened: list[_Group] = []
        if self._steered_below is None:
            # A socket takes its share of connections from its first moment in the group.
            self._attach(self._slots)
        try:
            for group in self._per_slot():
                _open_another(group, self._backlog)
                opened.append(group)
        except BaseException:
            for group in opened:
                group.sockets.pop().close()
            raise
        self._slots += 1

    def _attach(self, count: int) -> None:
        if steering.is_supported():
            for group in self._per_slot():
                steering.steer_below(group.sockets[0], count)
        self._steered_below = count

    def _steer_off(self) -> None:
        self._steered_below = None
        if steering.is_supported():
            for group in self._per_slot():
                steering.steer_off(group.sockets[0])


def _refuse_unclear(addresses: Sequence[Address]) -> None:
    if not addresses:
        raise AddressError("there is no address to listen on: give one, such as ':8080'")
    for nth, address in enumerate(addresses):
        if address in addresses[:nth]:
            # The text is the key of the handover, so twice ":0" would be one address too.
            raise AddressError(f"address {address} is given twice: leave one out")


def _adopt(group: _Group, fds: list[int], backlog: int) -> None:
    address = group.configured
    if len(fds) > 1 and not group.is_per_slot:
        _close_descriptors({str(address): fds})
        raise AddressError(
            f"{address} is inherited as {len(fds)} sockets, and reuseport is off now: a running program"
            " cannot change that, so stop it and start it again"
        )
    while fds:
        # Off the list one by one: what is left in it when one is refused is closed below.
        fd = fds[0]
        try:
            group.sockets.append(sockets.adopt(fd, address))
        except AddressError:
            _close_descriptors({str(address): fds})
            raise
        del fds[0]
        if address.kind != "fd":
            sockets.listen(group.sockets[-1], address, backlog)


def _open_first(group: _Group, backlog: int, unix: UnixOptions) -> None:
    address = group.configured
    if address.kind == "fd":
        # Its backlog is left as it is: whoever made the socket chose it (systemd: `Backlog=`).
        group.sockets.append(sockets.adopt(address.fd, address))
        return
    if address.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        group.sockets.append(sock)  # first, so that a failure below closes it
        if address.is_abstract:
            sockets.bind_abstract(sock, address)
        else:
            group.owned = bind_path(sock, address.path, unix)
    else:
        group.sockets.append(sockets.bind_tcp(address, share=group.is_per_slot))
    sockets.listen(group.sockets[0], address, backlog)


def _open_another(group: _Group, backlog: int) -> None:
    first = group.sockets[0]
    address = sockets.bound_to(first, group.configured)
    sock = sockets.join_tcp(first, address)
    try:
        sockets.listen(sock, address, backlog)
    except BaseException:
        sock.close()
        raise
    group.sockets.append(sock)


def _close_descriptors(unwanted: Mapping[str, Sequence[int]]) -> None:
    for fds in unwanted.values():
        for fd in fds:
            # One that was not open to begin with is as good as closed.
            with contextlib.suppress(OSError):
                os.close(fd)


def _backlog_warnings(groups: Sequence[_Group], backlog: int) -> tuple[str, ...]:
    limit = sockets.backlog_limit()
    is_ours = any(group.configured.kind != "fd" for group in groups)
    if limit is None or limit >= backlog or not is_ours:
        return ()
    return (f"backlog {backlog} is cut to {limit} by the kernel: set net.core.somaxconn to have all of it",)
