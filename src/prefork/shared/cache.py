"""The cache that all workers see."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from prefork.errors import ConfigError, LockTimeoutError, SharedError, StoreError
from prefork.shared.face import Deadline, Face, check_ttl, key_bytes, name_bytes, wait_for
from prefork.shared.store import HasReader, Hold, Space, Stats, When
from prefork.shared.values import MISSING, Serialiser, decode, encode, serialiser

_T = TypeVar("_T")

ON_ERROR: Final = ("raise", "miss")
_COMPLAIN_EVERY_S: Final = 60.0


def _reader(space: Space, using: Serialiser) -> Callable[[bytes], Any]:
    """From a key to its value, or `MISSING`, in the quickest way that the space has."""
    if isinstance(space, HasReader):
        return space.reader(using)

    def read(key: bytes) -> Any:
        payload = space.get(key)
        return MISSING if payload is None else decode(payload, using)

    return read


class _Default:
    """Stands for "the cache's own time to live", where None has a meaning already."""

    def __repr__(self) -> str:
        return "the cache's own"


DEFAULT: Final = _Default()
Ttl = float | None | _Default


class Cache(Face):
    """Keys and values that all workers see, bounded in bytes; the least used go first.

        cache = Cache("pages", ttl_s=60)
        page = cache.get_or_set("/", lambda: render("/"))

    Make it at import; it is opened at the first use, in each process. Caches of one name and store are one cache.

    name: up to 64 bytes.
    ttl_s: how long an entry lives, in seconds, where nothing else is said; None: until it is evicted.
    serialise: "pickle", "json", "msgspec" or a `values.Serialiser`, for what is neither bytes nor int. Read about safety
        in `values.py` before pickle goes to a Redis that others can write to.
    on_error: "raise", or "miss": a failure is logged (at most once a minute) and taken for a miss; the application goes on.
    url: another store than the fleet's; see `place.py`.

    Methods raise SharedError of all kinds, unless `on_error` is "miss"; ConfigError for arguments that can never work.
    On `lmdb://` a hit takes 1 µs and a `set` 3 µs, and neither waits for anything but the writes of others.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        serialise: str | Serialiser = "pickle",
        on_error: str = "raise",
        url: str | None = None,
    ) -> None:
        super().__init__(url)
        if on_error not in ON_ERROR:
            raise ConfigError(f'cache {name!r}: on_error must be "raise" or "miss", not {on_error!r}')
        self.name = name
        self._name = name_bytes(name, "cache")
        self.ttl_s = check_ttl(ttl_s)
        self._serialiser = serialiser(serialise)
        self._is_tolerant = on_error == "miss"
        self._complain_from_s = 0.0
        self._space: Space | None = None
        self._read: Callable[[bytes], Any] = self._find_and_read

    @property
    def space(self) -> Space:
        """The entries, below keys as text and values as objects. Raises ConfigError."""
        if self._space is None:
            self._space = self.store.space(self._name)
        return self._space

    # -- one entry --------------------------------------------------------------------------------

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """The value, or `default`."""
        try:
            value = self._read(key.encode())  # type: ignore[union-attr]  # bytes go the other way
            if value is not MISSING:
                return value
            key_bytes(key)  # what cannot be a key was never stored: looked at now, a hit need not be
        except SharedError as error:
            return self._tolerate(error, default)
        except (AttributeError, UnicodeEncodeError):
            return self._get_odd(key, default)
        return default

    def _get_odd(self, key: object, default: Any) -> Any:
        """For keys that are bytes, or bytes that are no text, as `keys` gives them."""
        try:
            value = self._read(key_bytes(key))
        except SharedError as error:
            return self._tolerate(error, default)
        return default if value is MISSING else value

    def _find_and_read(self, key: bytes) -> Any:
        """The first `_read` of this object, which finds the quicker one."""
        self._read = _reader(self.space, self._serialiser)
        return self._read(key)

    def set(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """Store it; True, or False where a failure is taken for a miss."""
        return self._set(key, value, ttl_s, When.ALWAYS)

    def add(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """Store it if the key is not there; whether it was stored. One of many callers at once succeeds."""
        return self._set(key, value, ttl_s, When.ABSENT)

    def replace(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """Store it if the key is there; whether it was stored."""
        return self._set(key, value, ttl_s, When.PRESENT)

    def _set(self, key: str | bytes, value: Any, ttl_s: Ttl, when: When) -> bool:
        try:
            payload = encode(value, self._serialiser)
            return self.space.set(key_bytes(key), payload, self._ttl(ttl_s), when)
        except SharedError as error:
            return self._tolerate(error, False)

    def _ttl(self, ttl_s: Ttl) -> float | None:
        return self.ttl_s if isinstance(ttl_s, _Default) else check_ttl(ttl_s)

    def delete(self, key: str | bytes) -> bool:
        """Remove it; whether it was there."""
        return self.delete_many([key]) == 1

    def touch(self, key: str | bytes, ttl_s: Ttl = DEFAULT) -> bool:
        """Let it live for `ttl_s` from now on; whether it was there."""
        try:
            return self.space.touch(key_bytes(key), self._ttl(ttl_s))
        except SharedError as error:
            return self._tolerate(error, False)

    def increment(
        self, key: str | bytes, amount: int = 1, *, initial: int | None = 0, ttl_s: Ttl = DEFAULT
    ) -> int | None:
        """Add to an integer and return the sum, which no other caller gets. Raises NotANumberError.

        initial: what to begin from where there is none; None: return None there.
        """
        try:
            return self.space.increment(key_bytes(key), amount, initial, self._ttl(ttl_s))
        except StoreError as error:
            return self._tolerate(error, None)

    # -- compare and set --------------------------------------------------------------------------

    def gets(self, key: str | bytes) -> tuple[Any, bytes | None]:
        """The value and a token for `compare_and_set`; (None, None) where there is none. Source: memcached."""
        try:
            payload = self.space.get(key_bytes(key))
            return (None, None) if payload is None else (decode(payload, self._serialiser), payload)
        except SharedError as error:
            return self._tolerate(error, (None, None))

    def compare_and_set(
        self, key: str | bytes, value: Any, token: bytes | None, ttl_s: Ttl = DEFAULT
    ) -> bool:
        """Store it if what is there is what `gets` gave; whether it was stored. Of many callers one succeeds.

        token: of `gets`; None: only if there is nothing. It compares contents, so that a value which was changed and changed
        back counts as the same.
        """
        if token is None:
            return self.add(key, value, ttl_s)
        try:
            payload = encode(value, self._serialiser)
            return self.space.swap(key_bytes(key), token, payload, self._ttl(ttl_s))
        except SharedError as error:
            return self._tolerate(error, False)

    # -- many -------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Any]:
        """Those that are there, by key."""
        wanted = list(keys)
        try:
            payloads = self.space.get_many([key_bytes(key) for key in wanted])
            return {
                key: decode(payload, self._serialiser)
                for key, payload in zip(wanted, payloads, strict=True)
                if payload is not None
            }
        except SharedError as error:
            return self._tolerate(error, {})

    def set_many(self, values: Mapping[str, Any] | Mapping[bytes, Any], ttl_s: Ttl = DEFAULT) -> bool:
        """Store all of them; each is stored as a whole, all together are not. True, or False as with `set`."""
        try:
            items = [(key_bytes(key), encode(value, self._serialiser)) for key, value in values.items()]
            self.space.set_many(items, self._ttl(ttl_s))
        except SharedError as error:
            return self._tolerate(error, False)
        return True

    def delete_many(self, keys: Iterable[str | bytes]) -> int:
        """Remove them; how many were there."""
        try:
            return self.space.delete([key_bytes(key) for key in keys])
        except SharedError as error:
            return self._tolerate(error, 0)

    # -- one computation for all ------------------------------------------------------------------

    def get_or_set(
        self, key: str | bytes, make: Callable[[], _T], ttl_s: Ttl = DEFAULT, *, wait_s: float = 30.0
    ) -> _T:
        """The value, or what `make()` gives, which is stored. However many ask at once, in all workers, one computes.

        make: called without arguments; what it raises is raised here, and the next who waits tries. If its process dies,
            who waits learns of it at once.
        wait_s: how long to wait for another's computation before making one's own: a bound on a hang.

        Blocks this thread while another computes. Raises SharedError, unless `on_error` is "miss".
        """
        deadline = Deadline(wait_s)
        try:
            encoded = key_bytes(key)
            hold = None
            while hold is None:
                found: _T = self._read(encoded)
                if found is not MISSING:
                    return found
                hold = self._try_or_wait(encoded, deadline, wait_s)
        except LockTimeoutError:  # who computes hangs: the next hang is our own
            value = make()
            self.set(key, value, ttl_s)
            return value
        except SharedError as error:
            self._tolerate(error, None)
            return make()
        return self._compute(hold, encoded, make, ttl_s)

    def once_name(self, encoded: bytes) -> bytes:
        """The name of the lock under which one computes. For twins of `get_or_set`."""
        return b"o" + self._name + b"\0" + encoded

    def _compute(self, hold: Hold, encoded: bytes, make: Callable[[], _T], ttl_s: Ttl) -> _T:
        """Compute and store, alone; unless another has, between our look and the lock."""
        try:
            found = self.get(encoded, MISSING)
            if found is not MISSING:
                return found  # type: ignore[no-any-return]
            value = make()
            self.set(encoded, value, ttl_s)
            return value
        finally:
            hold.release()

    def _try_or_wait(self, encoded: bytes, deadline: Deadline, lease_s: float) -> Hold | None:
        """The right to compute, or None after a wait. Raises LockTimeoutError."""
        name = self.once_name(encoded)
        # A store of this machine sees a holder die; a server far away has to be told for how long to believe in it.
        lease = None if self.store.is_local else lease_s
        hold = self.store.try_lock(name, lease)
        if hold is not None:
            return hold
        waiter = self.store.lock_waiter(name)
        try:
            hold = self.store.try_lock(name, lease)
            if hold is None:
                wait_for(waiter, deadline, encoded)
            return hold
        finally:
            waiter.close()

    # -- all of it --------------------------------------------------------------------------------

    def keys(self) -> Iterator[str]:
        """The keys that are there, as text; those that come or go meanwhile may be seen or not."""
        for key in self.space.keys():  # noqa: SIM118  (a space is no mapping)
            yield key.decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def clear(self) -> None:
        """Remove all entries of this cache, and of no other."""
        try:
            self.space.clear()
        except SharedError as error:
            self._tolerate(error, None)

    def stats(self) -> Stats:
        """Hits and misses of this cache, all processes together; evictions and bytes of its store."""
        return self.space.stats()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, bytes)) and self.get(key, MISSING) is not MISSING

    def __repr__(self) -> str:
        return f"Cache({self.name!r})"

    def _tolerate(self, error: SharedError, instead: _T) -> _T:
        """Raise it, or log it and go on as if there was nothing."""
        if not self._is_tolerant:
            raise error
        now_s = time.monotonic()
        if now_s >= self._complain_from_s:
            self._complain_from_s = now_s + _COMPLAIN_EVERY_S
            logging.getLogger("prefork.shared").warning("cache %r: taken for a miss: %s", self.name, error)
        return instead
