"""Locks with a lease, and waiting for them.

A server does not see a process die. What releases a lock then is the end of its lease: `lease_s` if the lock has one,
and it is never made longer; else 10 s (`lease_s` of the URL), which a thread of the holder's process renews every
third of that, for as long as the process lives. A holder that is stopped for longer than its lease has lost the lock;
`is_held` and `release` say so, and `fencing` lets what is guarded refuse it.

Who waits listens to a channel on which the holder tells that it lets go, and tries again when the lease ends.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from prefork.errors import StoreError
from prefork.shared.remote import scripts
from prefork.shared.remote.client import Client, milliseconds
from prefork.shared.remote.topics import Ear

_MARGIN_S: Final = 0.001
"""The server rounds what is left of a lease to milliseconds."""
_END_S: Final = 0.1


class RedisHold:
    """See `store.Hold`. `lease_s` in seconds; `renewer`: None for a lease that is not to be made longer."""

    def __init__(
        self,
        client: Client,
        name: bytes,
        token: bytes,
        *,
        fencing: int,
        lease_s: float,
        renewer: Renewer | None,
    ) -> None:
        self._client = client
        self._name = name
        self._token = token
        self.fencing = fencing
        self._lease_s = lease_s
        self._renewer = renewer
        self._is_over = False
        if renewer is not None:
            renewer.add(self)

    def is_held(self) -> bool:
        if self._is_over:
            return False
        return bool(self._client.command("GET", key_of(self._client, self._name)) == self._token)

    def renew(self) -> bool:
        """Begin the lease anew; False if it has been lost. Raises StoreError."""
        where = [key_of(self._client, self._name)]
        return bool(self._client.run(scripts.RENEW, where, [self._token, milliseconds(self._lease_s)]))

    def release(self) -> bool:
        """See `store.Hold.release`. False too if the server cannot be reached: nobody knows then whether it was ours to the end."""
        if self._is_over:
            return False
        self._is_over = True
        if self._renewer is not None:
            self._renewer.drop(self)
        where, channel = [key_of(self._client, self._name)], channel_of(self._client, self._name)
        try:
            return bool(self._client.run(scripts.UNLOCK, where, [self._token, channel]))
        except StoreError:
            return False


class Renewer:
    """A thread that keeps what this process holds. It is there only while something is held: who forks wants no threads."""

    def __init__(self, every_s: float) -> None:
        self.pid = os.getpid()
        self._every_s = every_s
        self._changed = threading.Condition()
        self._holds: set[RedisHold] = set()
        self._thread: threading.Thread | None = None

    def add(self, hold: RedisHold) -> None:
        """Renew it from now on."""
        with self._changed:
            self._holds.add(hold)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="prefork-shared-leases", daemon=True)
                self._thread.start()

    def drop(self, hold: RedisHold) -> None:
        """Renew it no more. Waits a moment for the end of the thread, if it was the last one."""
        with self._changed:
            self._holds.discard(hold)
            if self._holds or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not threading.current_thread():
            thread.join(_END_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._changed.wait(self._every_s)
                if (
                    self._thread is not threading.current_thread()
                ):  # nothing is held, or by another thread's time
                    return
                holds = list(self._holds)
            for hold in holds:
                try:
                    is_ours = hold.renew()
                except StoreError:  # the server is away: two more turns fit into a lease
                    continue
                if not is_ours:
                    self.drop(hold)


class RedisWaiter:
    """See `store.Waiter`. A connection of its own, for as long as it waits."""

    def __init__(self, client: Client, name: bytes) -> None:
        self._client = client
        self._name = name
        self._ear = Ear(client, channel_of(client, name), is_brief=True)

    @property
    def retry_after_s(self) -> float | None:
        left_ms = int(self._client.command("PTTL", key_of(self._client, self._name)))
        return 0.0 if left_ms < 0 else left_ms / 1000 + _MARGIN_S

    def fileno(self) -> int:
        return self._ear.fileno()

    def close(self) -> None:
        self._ear.close()


def key_of(client: Client, name: bytes) -> bytes:
    """Where a lock stands."""
    return client.prefix + b"l:" + name


def channel_of(client: Client, name: bytes) -> bytes:
    """Where its holder says that it lets go. Channels are the same in all databases of a server."""
    return client.prefix + b"u:%d:" % client.database + name
