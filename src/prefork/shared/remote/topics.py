"""Topics: the server's publish and subscribe, heard on a connection of one's own.

What the server drops (`client-output-buffer-limit pubsub`: 32 MB, or 8 MB for a minute) or what was said while the
connection was broken is lost; the listener is told so, once, as soon as it hears again. Its descriptor is then a new
one.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

import redis

from prefork.errors import MessagesLostError, StoreUnavailableError, ValueTooLargeError
from prefork.shared.remote.client import Client

MESSAGE_BYTES: Final = 16 * 1024


def channel_of(client: Client, topic: bytes) -> bytes:
    """Where a topic is told. Channels are the same in all databases of a server."""
    return client.prefix + b"t:%d:" % client.database + topic


def publish(client: Client, topic: bytes, message: bytes) -> None:
    """See `store.Store.publish`."""
    if len(message) > MESSAGE_BYTES:
        raise ValueTooLargeError(
            f"a message of {len(message)} bytes is more than {MESSAGE_BYTES}: store the value, and tell its key"
        )
    client.command("PUBLISH", channel_of(client, topic), message)


class Ear:
    """A connection that hears one channel. Its descriptor stays readable once the connection is gone.

    is_brief: it hears little, for a while (one who waits for a lock): its connection is used again, which spares the next one
        half a millisecond.
    """

    def __init__(self, client: Client, channel: bytes, *, is_brief: bool = False) -> None:
        self._client = client
        self._channel = channel
        self._is_brief = is_brief
        self._fd = -1
        self._connection: Any = None
        self._error: Exception | None = None
        try:
            self._begin(client.connection(is_any=is_brief))
        except (redis.RedisError, OSError) as error:
            if not is_brief or isinstance(error, redis.TimeoutError):
                raise client.told(error) from error
            try:  # the one that was kept has died meanwhile
                self._begin(client.connection(is_any=False))
            except (redis.RedisError, OSError) as later:
                raise client.told(later) from later

    def _begin(self, connection: Any) -> None:
        """Listen. From here on nothing is missed."""
        try:
            connection.send_command("SUBSCRIBE", self._channel)
            # What comes before the answer was asked for by who had this connection before.
            while connection.read_response()[:2] != [b"subscribe", self._channel]:
                pass
            # A copy, because redis-py closes its own when the connection ends: a loop would never hear of that.
            self._fd = os.dup(connection._sock.fileno())  # noqa: SLF001  (redis-py has no name for it)
        except BaseException:
            connection.disconnect()
            raise
        self._connection = connection

    def fileno(self) -> int:
        """Readable when there may be something, the end included."""
        return self._fd

    def take(self) -> list[bytes]:
        """What has been said. Raises StoreUnavailableError once there is nothing more, and never will be.

        Does not wait, but for the rest of a message that has begun to come (`timeout_s` at most).
        """
        found: list[bytes] = []
        while self._error is None:
            try:
                if not self._connection.can_read(timeout=0):
                    return found
                answer = self._connection.read_response()
            except (redis.RedisError, OSError) as error:
                self._error = error
            else:
                if answer[0] == b"message":
                    found.append(answer[2])
        if not found:
            raise self._client.told(self._error) from self._error
        return found

    def close(self) -> None:
        """Hear no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._end(connection)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _end(self, connection: Any) -> None:
        if self._is_brief and self._error is None:
            with contextlib.suppress(redis.RedisError, OSError):
                connection.send_command("UNSUBSCRIBE", self._channel)
                self._client.keep(connection)
                return
        connection.disconnect()

    def __del__(self) -> None:
        self.close()  # of a task that was cancelled while a thread connected


class RedisSubscription:
    """See `store.Subscription`. Take once before the first wait: what was said just then may have been read already."""

    def __init__(self, client: Client, topic: bytes) -> None:
        self._client = client
        self._channel = channel_of(client, topic)
        self._ear = Ear(client, self._channel)

    def fileno(self) -> int:
        return self._ear.fileno()

    def take(self) -> list[bytes]:
        """See `store.Subscription.take`. Connects anew if need be. Raises StoreUnavailableError while that cannot be."""
        with contextlib.suppress(StoreUnavailableError):
            return self._ear.take()
        ear = Ear(self._client, self._channel)
        self._ear.close()
        self._ear = ear
        raise MessagesLostError(
            "the server dropped this listener or went away, and messages were lost: take it that anything was said "
            "(a cache: clear it)"
        )

    def close(self) -> None:
        self._ear.close()
