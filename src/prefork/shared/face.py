"""What all faces have in common: names, keys, and a store that is looked for at the first use."""

from __future__ import annotations

import math
import select
import time
from typing import Any, Final

from prefork.errors import ConfigError, KeyTooLongError, LockTimeoutError
from prefork.shared.store import KEY_BYTES, NAME_BYTES, Store, Waiter
from prefork.shared.stores import connect

_FOREVER: Final = None


def name_bytes(name: object, what: str) -> bytes:
    """A name as bytes. Raises ConfigError."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the name of a {what} must be text that is not empty, not {name!r}")
    encoded = name.encode()
    if len(encoded) > NAME_BYTES or b"\0" in encoded or encoded[0] == 1:
        raise ConfigError(
            f"the name of a {what} must be at most {NAME_BYTES} bytes, without NUL, not {name!r}"
        )
    return encoded


def key_bytes(key: object) -> bytes:
    """A key as bytes. Raises KeyTooLongError, TypeError."""
    encoded = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    if not isinstance(encoded, bytes):
        raise TypeError(f"a key must be str or bytes, not {type(key).__name__}")
    if not 0 < len(encoded) <= KEY_BYTES:
        raise KeyTooLongError(
            f"a key of {len(encoded)} bytes: 1 to {KEY_BYTES} are possible; take a hash of a longer one"
        )
    return encoded


def check_ttl(ttl_s: Any) -> float | None:
    """A time to live. Raises ConfigError."""
    if ttl_s is None or ttl_s == math.inf:
        return None
    if not isinstance(ttl_s, (int, float)) or not ttl_s > 0:
        raise ConfigError(f"ttl_s must be more than 0 seconds, or None, not {ttl_s!r}")
    return float(ttl_s)


class Face:
    """Base of what an application makes at import and uses in its workers. Making one opens nothing."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store behind it; found at the first use. Raises ConfigError."""
        if self._store is None:
            self._store = connect(self._url)
        return self._store


class Deadline:
    """How long somebody is ready to wait. The clock is that of this process alone."""

    def __init__(self, timeout_s: float | None) -> None:
        self._ends_s = math.inf if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds that are left, 0 or more; inf: for ever."""
        return max(0.0, self._ends_s - time.monotonic())


def wait_for(waiter: Waiter, deadline: Deadline, name: object) -> None:
    """Wait until it is worth trying again. Raises LockTimeoutError. Blocks this thread."""
    left_s = deadline.left_s()
    if left_s == 0.0:
        raise LockTimeoutError(f"lock {name!r}: somebody else held it for all the time that was given")
    retry_s = waiter.retry_after_s
    wait_s = min(left_s, math.inf if retry_s is None else retry_s)
    poll = select.poll()
    poll.register(waiter.fileno(), select.POLLIN)
    poll.poll(_FOREVER if wait_s == math.inf else math.ceil(wait_s * 1000))
