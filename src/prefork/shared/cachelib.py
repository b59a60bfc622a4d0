"""cachelib's `BaseCache`: for Flask-Caching, Flask-Session and whatever else takes one.

    cache = SharedCache("pages")
    flask_caching.Cache(app, config={"CACHE_TYPE": "prefork.shared.cachelib.SharedCache"})

Flask-Caching gives CACHE_OPTIONS to the class as they are. Needs the package cachelib. Its rules: a time-out of 0 is
for ever, None is the default; a key may be of any length.
"""

from __future__ import annotations

from typing import Any, cast

from cachelib.base import BaseCache

from prefork.shared.cache import Cache
from prefork.shared.foreign import as_pickle_error, fitted
from prefork.shared.values import Serialiser


class SharedCache(BaseCache):
    """A `Cache` as cachelib wants it. Atomic where cachelib's own are not: `add`, `inc`, `dec`.

    default_timeout: in seconds; 0: for ever.
    serialise, on_error, url: see `Cache`.

    Raises ConfigError; methods raise SharedError, unless `on_error` is "miss".
    """

    def __init__(
        self,
        name: str = "cachelib",
        *,
        default_timeout: int = 300,
        ignore_delete_many_errors: bool = True,
        serialise: str | Serialiser = "pickle",
        on_error: str = "raise",
        url: str | None = None,
    ) -> None:
        super().__init__(default_timeout)
        self.ignore_delete_many_errors = ignore_delete_many_errors  # cachelib before 0.16 does not know it
        self._cache = Cache(name, serialise=serialise, on_error=on_error, url=url)

    def _ttl_s(self, timeout: Any) -> float | None:
        seconds = self.default_timeout if timeout is None else timeout
        if hasattr(seconds, "total_seconds"):
            seconds = seconds.total_seconds()
        return None if seconds == 0 else float(cast("float", seconds))

    def get(self, key: str) -> Any:
        return self._cache.get(fitted(key))

    def get_many(self, *keys: str) -> list[Any]:
        names = [fitted(key) for key in keys]
        found = self._cache.get_many(names)
        return [found.get(name) for name in names]

    def set(self, key: str, value: Any, timeout: Any = None) -> bool | None:
        ttl_s = self._ttl_s(timeout)
        if ttl_s is not None and ttl_s < 0:  # it has ended already
            self._cache.delete(fitted(key))
            return True
        with as_pickle_error():
            return self._cache.set(fitted(key), value, ttl_s)

    def add(self, key: str, value: Any, timeout: Any = None) -> bool:
        ttl_s = self._ttl_s(timeout)
        if ttl_s is not None and ttl_s < 0:
            return not self.has(key)
        with as_pickle_error():
            return self._cache.add(fitted(key), value, ttl_s)

    def set_many(self, mapping: dict[str, Any], timeout: Any = None) -> list[Any]:
        return [key for key, value in mapping.items() if self.set(key, value, timeout)]

    def delete(self, key: str) -> bool:
        return self._cache.delete(fitted(key))

    def delete_many(self, *keys: str) -> list[Any]:
        """All keys: those that were not there are as good as deleted."""
        self._cache.delete_many(fitted(key) for key in keys)
        return list(keys)

    def has(self, key: str) -> bool:
        return fitted(key) in self._cache

    def clear(self) -> bool:
        self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """The sum, which no other caller gets; from 0 where there is none. Raises NotANumberError."""
        return self._cache.increment(fitted(key), delta, ttl_s=self._ttl_s(None))

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self.inc(key, -delta)
