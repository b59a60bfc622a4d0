"""What a store must be able to do: the narrow interface behind everything in `prefork.shared`.

Rules, for all backends alike (`tests/shared` holds them):

* Keys, names, topics and payloads are bytes. What they mean is the business of the faces (`cache.py`, `counter.py`,
  ...).
* A key is 1 to `KEY_BYTES` bytes, a name of a space 1 to `NAME_BYTES`. The faces check; a backend may rely on it.
* Each method is atomic with respect to all processes that use the store, and has happened when it returns: no way to
  die afterwards takes it back. The many-at-once methods are atomic for each entry, not as a whole.
* `ttl_s` is in seconds, more than 0; None is "until evicted". An expired entry is never seen.
* An object of these types is made before the fork and used behind it: it opens what it needs at the first call in
  each process, and again in a fork. Making one does nothing, and raises nothing but `ConfigError`.
* All methods may be called from several threads.
* What goes wrong is a `SharedError` (`errors.py`), never an error of the library behind.

Not here: serialising (`values.py`), one computation for many (`cache.py`), which store it is (`place.py`,
`connect.py`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from prefork.shared.values import Serialiser

KEY_BYTES: Final = 400
"""Longest key. LMDB takes 511, of which the name of the space and our own marks need some."""
NAME_BYTES: Final = 64
"""Longest name of a cache, counter, lock, topic or limiter."""


class When(enum.Enum):
    """On what a `set` depends."""

    ALWAYS = "always"
    ABSENT = "absent"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache and its store have done since they were made.

    `hits` and `misses` are the cache's own, all processes together; the rest is the store's as a whole.
    """

    hits: int
    misses: int
    evictions: int
    bytes: int
    """Bytes that entries take up now, those that have expired and were not met yet included."""
    limit_bytes: int
    """Bytes that they may take up; 0 where the store does not say."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `burst` tokens at most, refilled with `per_s` tokens a second."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: at most `limit` within any `window_s` seconds, by weighing the window before."""

    limit: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rate limiter says."""

    is_allowed: bool
    remaining: float
    """How much could be taken at once after this."""
    retry_after_s: float
    """Seconds until as much as was asked for may be taken; 0 if it was, `math.inf` if it never may."""


class Space(Protocol):
    """The entries of one cache, from key to payload."""

    def get(self, key: bytes) -> bytes | None:
        """The payload, or None. Counts a hit or a miss."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """A payload or None for each key, in order. Counts hits and misses."""
        ...

    def set(self, key: bytes, payload: bytes, ttl_s: float | None, when: When = When.ALWAYS) -> bool:
        """Store it if `when` holds; whether it was stored. Raises ValueTooLargeError, StoreFullError."""
        ...

    def set_many(self, items: Sequence[tuple[bytes, bytes]], ttl_s: float | None) -> None:
        """Store all of them."""
        ...

    def swap(self, key: bytes, expected: bytes, payload: bytes, ttl_s: float | None) -> bool:
        """Store it if the payload is still `expected`, byte for byte; whether it was stored."""
        ...

    def touch(self, key: bytes, ttl_s: float | None) -> bool:
        """Let it live for so long from now on; whether it was there."""
        ...

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove them; how many were there."""
        ...

    def increment(self, key: bytes, amount: int, initial: int | None, ttl_s: float | None) -> int | None:
        """Add to an entry whose payload is `INTEGER` + decimal digits (`values.py`), and return the sum.

        initial: what to add to where there is no entry, which then lives for `ttl_s`; None: return None there.
        An entry that is there keeps its own time to live. Raises NotANumberError for another payload.
        """
        ...

    def keys(self) -> Iterator[bytes]:
        """The keys that are there; those that come or go meanwhile may be seen or not."""
        ...

    def clear(self) -> None:
        """Remove all entries of this space, and no others."""
        ...

    def stats(self) -> Stats:
        """What has been counted."""
        ...


@runtime_checkable
class HasReader(Protocol):
    """A space that has a quicker way to a value than by its payload."""

    def reader(self, using: Serialiser) -> Callable[[bytes], Any]:
        """A function from a key to its value, or `values.MISSING`; to be kept, in forks too. Counts as `get` does."""
        ...


class Waiter(Protocol):
    """Somebody who waits for a lock, without polling."""

    @property
    def retry_after_s(self) -> float | None:
        """After so many seconds try again though nothing was heard (a lease ends); None: only when something is heard."""
        ...

    def fileno(self) -> int:
        """Readable, or hung up, when it is worth trying again. For poll(2) or a loop's `add_reader`."""
        ...

    def close(self) -> None:
        """Wait no more."""
        ...


class Hold(Protocol):
    """A lock that this process holds."""

    @property
    def fencing(self) -> int:
        """A number that grows with each holder of this name: give it to what you guard, so that it can refuse a late one."""
        ...

    def is_held(self) -> bool:
        """Whether it is still ours: a lease may have ended, and another may have taken it."""
        ...

    def release(self) -> bool:
        """Let it go, and wake who waits; False if it was lost before. A second call does nothing."""
        ...


class Subscription(Protocol):
    """One listener to a topic, in one process."""

    def fileno(self) -> int:
        """Readable when there may be messages. For poll(2) or a loop's `add_reader`."""
        ...

    def take(self) -> list[bytes]:
        """The messages that have come, oldest first; does not wait. Raises MessagesLostError, once, if some are lost."""
        ...

    def close(self) -> None:
        """Listen no more."""
        ...


class Store(Protocol):
    """State that several processes see. Made by `connect`."""

    @property
    def is_local(self) -> bool:
        """Whether a call takes microseconds, so that an event loop may make it; else it goes over a network."""
        ...

    def space(self, name: bytes) -> Space:
        """The entries of the cache of this name."""
        ...

    def add(self, name: bytes, amount: float) -> None:
        """Add to a number: exact, whoever adds at the same time. It is an int or a float for good, as its first amount was."""
        ...

    def add_many(self, items: Sequence[tuple[bytes, float]]) -> None:
        """Add to several numbers."""
        ...

    def numbers(self, prefix: bytes) -> dict[bytes, float]:
        """All numbers whose names begin so; 0 is as good as missing."""
        ...

    def number(self, name: bytes) -> float:
        """One number; 0 if nobody has added to it."""
        ...

    def reset(self, name: bytes) -> float:
        """Set a number to 0 and return what it was: what is added meanwhile is in one or the other."""
        ...

    def take(self, key: bytes, limit: Bucket | Window, amount: float) -> Verdict:
        """Take so much from the rate limit of this key, if it allows (nothing is taken if not)."""
        ...

    def forget(self, key: bytes) -> None:
        """Give a key its full rate limit back."""
        ...

    def try_lock(self, name: bytes, lease_s: float | None) -> Hold | None:
        """Take the lock if nobody has it. It ends with its holder's process, and with its lease if it has one."""
        ...

    def lock_waiter(self, name: bytes) -> Waiter:
        """Wait for the holder of a lock to let go. Make it first, then try once more, then wait."""
        ...

    def publish(self, topic: bytes, message: bytes) -> None:
        """Tell all who listen, this process included. Raises ValueTooLargeError."""
        ...

    def subscribe(self, topic: bytes) -> Subscription:
        """Listen to what is said from now on."""
        ...

    def describe(self, name: bytes, text: bytes) -> None:
        """Keep a short text for good, such as what a metric means."""
        ...

    def descriptions(self, prefix: bytes) -> dict[bytes, bytes]:
        """The texts whose names begin so."""
        ...

    def clear(self) -> None:
        """Forget every entry, number and limit. Texts, locks and listeners stay."""
        ...

    def close(self) -> None:
        """Let go of what is open in this process. The next call opens it again."""
        ...
