"""The cache, for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar, cast

from prefork.errors import LockTimeoutError, SharedError
from prefork.shared.aio.away import INLINE_BYTES, STEP, away, release, try_or_wait
from prefork.shared.cache import DEFAULT, Cache, Ttl
from prefork.shared.face import Deadline, key_bytes
from prefork.shared.store import Hold, Stats
from prefork.shared.values import Serialiser

_T = TypeVar("_T")
_MISSING: Final = object()


class AsyncCache:
    """A `Cache` whose methods are awaited. All arguments, results and errors are those of `Cache`.

    cache = AsyncCache("pages", ttl_s=60)
    page = await cache.get_or_set("/", render)

    `cache` is the one behind it, for code that does not run in a loop: both see the same entries.
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
        self.cache = Cache(name, ttl_s=ttl_s, serialise=serialise, on_error=on_error, url=url)

    @classmethod
    def of(cls, cache: Cache) -> AsyncCache:
        """The twin of a cache that is there already."""
        made = cls.__new__(cls)
        made.cache = cache
        return made

    @property
    def name(self) -> str:
        """Its name."""
        return self.cache.name

    async def _away(self, do: Callable[..., _T], *args: Any) -> _T:
        return await away(self.cache.store, do, *args)

    async def _store(self, do: Callable[..., bool], key: str | bytes, value: Any, ttl_s: Ttl) -> bool:
        if isinstance(value, (bytes, str)) and len(value) > INLINE_BYTES:
            return await asyncio.to_thread(do, key, value, ttl_s)
        return await self._away(do, key, value, ttl_s)

    async def get(self, key: str | bytes, default: Any = None) -> Any:
        """As `Cache.get`."""
        return await self._away(self.cache.get, key, default)

    async def set(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """As `Cache.set`."""
        return await self._store(self.cache.set, key, value, ttl_s)

    async def add(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """As `Cache.add`."""
        return await self._store(self.cache.add, key, value, ttl_s)

    async def replace(self, key: str | bytes, value: Any, ttl_s: Ttl = DEFAULT) -> bool:
        """As `Cache.replace`."""
        return await self._store(self.cache.replace, key, value, ttl_s)

    async def delete(self, key: str | bytes) -> bool:
        """As `Cache.delete`."""
        return await self._away(self.cache.delete, key)

    async def touch(self, key: str | bytes, ttl_s: Ttl = DEFAULT) -> bool:
        """As `Cache.touch`."""
        return await self._away(self.cache.touch, key, ttl_s)

    async def increment(
        self, key: str | bytes, amount: int = 1, *, initial: int | None = 0, ttl_s: Ttl = DEFAULT
    ) -> int | None:
        """As `Cache.increment`."""
        return await self._away(lambda: self.cache.increment(key, amount, initial=initial, ttl_s=ttl_s))

    async def gets(self, key: str | bytes) -> tuple[Any, bytes | None]:
        """As `Cache.gets`."""
        return await self._away(self.cache.gets, key)

    async def compare_and_set(
        self, key: str | bytes, value: Any, token: bytes | None, ttl_s: Ttl = DEFAULT
    ) -> bool:
        """As `Cache.compare_and_set`."""
        return await self._away(self.cache.compare_and_set, key, value, token, ttl_s)

    async def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Any]:
        """As `Cache.get_many`, in steps."""
        found: dict[str | bytes, Any] = {}
        async for some in _Steps(keys):
            found |= await self._away(self.cache.get_many, some)
        return found

    async def set_many(self, values: Mapping[str, Any] | Mapping[bytes, Any], ttl_s: Ttl = DEFAULT) -> bool:
        """As `Cache.set_many`, in steps."""
        is_good = True
        async for some in _Steps(values.items()):
            is_good &= await self._away(self.cache.set_many, dict(some), ttl_s)
        return is_good

    async def delete_many(self, keys: Iterable[str | bytes]) -> int:
        """As `Cache.delete_many`, in steps."""
        gone = 0
        async for some in _Steps(keys):
            gone += await self._away(self.cache.delete_many, some)
        return gone

    async def keys(self) -> list[str]:
        """The keys that are there. In a thread: it looks at every entry."""
        return await asyncio.to_thread(lambda: list(self.cache.keys()))

    async def clear(self) -> None:
        """As `Cache.clear`. In a thread."""
        await asyncio.to_thread(self.cache.clear)

    async def stats(self) -> Stats:
        """As `Cache.stats`."""
        return await self._away(self.cache.stats)

    async def get_or_set(
        self,
        key: str | bytes,
        make: Callable[[], Awaitable[_T] | _T],
        ttl_s: Ttl = DEFAULT,
        *,
        wait_s: float = 30.0,
    ) -> _T:
        """As `Cache.get_or_set`: one computation for all tasks of all workers; the others wait, and the loop does not.

        make: a coroutine function, or a function, which is called where the loop runs.
        """
        cache = self.cache
        deadline = Deadline(wait_s)
        try:
            encoded = key_bytes(key)
            hold = None
            while hold is None:
                found = await self.get(encoded, _MISSING)
                if found is not _MISSING:
                    return cast("_T", found)
                lease_s = None if cache.store.is_local else wait_s  # see Cache.get_or_set
                hold = await try_or_wait(cache.store, cache.once_name(encoded), lease_s, deadline, key)
        except LockTimeoutError:  # who computes hangs: the next hang is our own
            value = await _made(make)
            await self.set(key, value, ttl_s)
            return value
        except SharedError as error:
            cache._tolerate(error, None)  # noqa: SLF001  (its twin)
            return await _made(make)
        return await self._compute(hold, encoded, make, ttl_s)

    async def _compute(
        self, hold: Hold, encoded: bytes, make: Callable[[], Awaitable[_T] | _T], ttl_s: Ttl
    ) -> _T:
        try:
            found = await self.get(encoded, _MISSING)
            if found is not _MISSING:
                return cast("_T", found)
            value = await _made(make)
            await self.set(encoded, value, ttl_s)
            return value
        finally:
            await release(self.cache.store, hold)

    def __repr__(self) -> str:
        return f"AsyncCache({self.name!r})"


async def _made(make: Callable[[], Awaitable[_T] | _T]) -> _T:
    value = make()
    return await value if inspect.isawaitable(value) else value


class _Steps:
    """Some at a time, and the loop's turn between."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._rest: Iterator[Any] = iter(items)
        self._is_first = True

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> list[Any]:
        if not self._is_first:
            await asyncio.sleep(0)
        self._is_first = False
        some = list(islice(self._rest, STEP))
        if not some:
            raise StopAsyncIteration
        return some
