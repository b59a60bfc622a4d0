"""Django's cache backend.

    CACHES = {"default": {"BACKEND": "prefork.shared.django.SharedCache"}}

LOCATION is the URL of a store, or nothing for the fleet's own. OPTIONS: `name` (of the cache, "django"), `serialise`,
`on_error`; see `Cache`. Two caches of one LOCATION and name are one, as with memcached, unless KEY_PREFIX tells them
apart. MAX_ENTRIES and CULL_FREQUENCY mean nothing: the store is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from prefork.errors import ConfigError
from prefork.shared.aio.cache import AsyncCache
from prefork.shared.cache import Cache
from prefork.shared.foreign import as_pickle_error, fitted

_T = TypeVar("_T")
_OPTIONS: Final = {"name", "serialise", "on_error"}
_OF_OTHERS: Final = {"MAX_ENTRIES", "CULL_FREQUENCY"}


class SharedCache(BaseCache):  # type: ignore[misc]  # Django has no types
    """See the module. `incr`, `add` and `get_or_set` are atomic among all workers, which Django does not promise.

    Raises ConfigError, SharedError (a `NotANumberError` is a TypeError too).
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = {
            name: value for name, value in (params.get("OPTIONS") or {}).items() if name not in _OF_OTHERS
        }
        if unknown := sorted(set(options) - _OPTIONS):
            raise ConfigError(f"CACHES: OPTIONS of {location!r}: {', '.join(unknown)} is not known")
        self._cache = Cache(options.pop("name", "django"), url=location or None, **options)

    def _key(self, key: Any, version: int | None) -> bytes:
        return fitted(self.make_and_validate_key(key, version=version))

    def _ttl_s(self, timeout: Any) -> float | None:
        """None: for ever; 0 or less: over at once."""
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if seconds is None else float(seconds)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl_s = self._key(key, version), self._ttl_s(timeout)
        if ttl_s is not None and ttl_s <= 0:
            return name not in self._cache
        with as_pickle_error():
            return self._cache.add(name, value, ttl_s)

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self._cache.get(self._key(key, version), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        name, ttl_s = self._key(key, version), self._ttl_s(timeout)
        if ttl_s is not None and ttl_s <= 0:
            self._cache.delete(name)
            return
        with as_pickle_error():
            self._cache.set(name, value, ttl_s)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl_s = self._key(key, version), self._ttl_s(timeout)
        if ttl_s is not None and ttl_s <= 0:
            return self._cache.delete(name)
        return self._cache.touch(name, ttl_s)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self._cache.delete(self._key(key, version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._key(key, version) in self._cache

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        names = {self._key(key, version): key for key in keys}
        return {names[name]: value for name, value in self._cache.get_many(names).items()}  # type: ignore[index]

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        names = {self._key(key, version): value for key, value in data.items()}
        ttl_s = self._ttl_s(timeout)
        if ttl_s is not None and ttl_s <= 0:
            self._cache.delete_many(names)
            return []
        with as_pickle_error():
            return [] if self._cache.set_many(names, ttl_s) else list(data)

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self._cache.delete_many([self._key(key, version) for key in keys])

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        total = self._cache.increment(self._key(key, version), delta, initial=None)
        if total is None:
            raise ValueError(f"Key {key!r} not found")
        return total

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """As Django's; a callable is called by one of all who ask at the same time."""
        ttl_s = self._ttl_s(timeout)
        if not callable(default) or (ttl_s is not None and ttl_s <= 0):
            return super().get_or_set(key, default, timeout, version)
        return self._cache.get_or_set(self._key(key, version), default, ttl_s)

    def clear(self) -> None:
        self._cache.clear()

    # -- for async views: a store of this machine is called in the loop, see prefork.shared.aio -------

    async def _away(self, do: Callable[..., _T], *args: Any) -> _T:
        if self._cache.store.is_local:
            return do(*args)
        return await sync_to_async(do, thread_sensitive=False)(*args)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return await self._away(self.add, key, value, timeout, version)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await self._away(self.get, key, default, version)

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        await self._away(self.set, key, value, timeout, version)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return await self._away(self.touch, key, timeout, version)

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self._away(self.delete, key, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self._away(self.has_key, key, version)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """In one step: Django's own reads, adds and writes."""
        return await self._away(self.incr, key, delta, version)

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        ttl_s = self._ttl_s(timeout)
        if not callable(default) or (ttl_s is not None and ttl_s <= 0):
            return await super().aget_or_set(key, default, timeout, version)
        return await AsyncCache.of(self._cache).get_or_set(self._key(key, version), default, ttl_s)

    async def aclear(self) -> None:
        await AsyncCache.of(self._cache).clear()
