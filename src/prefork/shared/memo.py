"""`cached`: what a function gives for its arguments, computed once for all workers. The shape is `functools.lru_cache`'s."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from prefork.errors import ConfigError
from prefork.shared.aio.cache import AsyncCache
from prefork.shared.cache import Cache
from prefork.shared.face import check_ttl
from prefork.shared.foreign import fitted
from prefork.shared.store import NAME_BYTES
from prefork.shared.values import Serialiser

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PLAIN: Final = (str, bytes, int, float, bool, type(None))


def cached(
    *,
    ttl_s: float | None = None,
    key: Callable[..., str | bytes] | None = None,
    name: str | None = None,
    serialise: str | Serialiser = "pickle",
    on_error: str = "raise",
    wait_s: float = 30.0,
    url: str | None = None,
) -> Callable[[Callable[_P, _R]], CachedFunction[_P, _R]]:
    """Keep what a function gives, for all workers. For functions and coroutine functions.

        @cached(ttl_s=60)
        def price(product: int) -> float: ...

        @cached(ttl_s=60, key=lambda user, page: f"{user.id}/{page}")
        async def page(user, page): ...

        price.invalidate(7)  # awaited for a coroutine function

    ttl_s: how long a value is kept, in seconds; None: until it is evicted.
    key: called with the arguments; gives the key of the value. Without it, arguments must be text, bytes, numbers, None, or tuples of
        those: `f(1)` and `f(x=1)` are one, `f(1)` and `f("1")` are not. So a method needs one, for its `self`.
    name: of the cache; by default the function's module and qualified name, so that one that is renamed begins anew.
    wait_s: how long to wait for another's computation of the same value, see `Cache.get_or_set`.
    serialise, on_error, url: see `Cache`.

    However many call at once, in all workers, one computes. What it raises is not kept. Raises ConfigError, when the function is
    decorated, for options that cannot work; TypeError, when it is called, for arguments of which no key can be made.
    """
    check_ttl(ttl_s)

    def decorate(function: Callable[_P, _R]) -> CachedFunction[_P, _R]:
        cache = Cache(name or _name(function), ttl_s=ttl_s, serialise=serialise, on_error=on_error, url=url)
        kind = _CachedCoroutine if inspect.iscoroutinefunction(function) else CachedFunction
        made: CachedFunction[_P, _R] = kind(function, cache, key, wait_s)
        return made

    return decorate


class CachedFunction(Generic[_P, _R]):
    """What `cached` makes of a function. `cache` is where its values are."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        function: Callable[_P, _R],
        cache: Cache,
        key: Callable[..., str | bytes] | None,
        wait_s: float,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.cache = cache
        self._key = key
        self._wait_s = wait_s
        self._signature = inspect.signature(function)
        kinds = [parameter.kind for parameter in self._signature.parameters.values()]
        is_plain = all(kind in _BY_PLACE for kind in kinds)
        self._plain_arguments = len(kinds) if is_plain else -1  # so many say it all, as they are

    def key_of(self, *args: _P.args, **kwargs: _P.kwargs) -> bytes:
        """The key under which the value for these arguments is kept. Raises TypeError."""
        if self._key is not None:
            return fitted(self._key(*args, **kwargs))
        values: tuple[Any, ...] = args
        if kwargs or len(args) != self._plain_arguments:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = tuple(
                tuple(sorted(value.items())) if self._signature.parameters[name].kind is _REST else value
                for name, value in bound.arguments.items()
            )
        for value in values:
            self._check(value)
        return fitted(repr(values))

    def _check(self, value: object) -> None:
        if type(value) is tuple:
            for each in value:
                self._check(each)
        elif type(value) not in _PLAIN:
            raise TypeError(
                f"{self.__name__}: no key can be made of a {type(value).__name__} that is the same in all workers: "
                "give cached(key=...)"
            )

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.cache.get_or_set(
            self.key_of(*args, **kwargs), lambda: self._function(*args, **kwargs), wait_s=self._wait_s
        )

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bound as a function is, so that it may stand in a class."""
        return self if instance is None else functools.partial(cast("Callable[..., Any]", self), instance)

    def invalidate(self, *args: _P.args, **kwargs: _P.kwargs) -> Any:
        """Forget the value for these arguments; whether there was one. A computation that is under way stores what it makes."""
        return self.cache.delete(self.key_of(*args, **kwargs))

    def clear(self) -> Any:
        """Forget all values."""
        return self.cache.clear()


class _CachedCoroutine(CachedFunction[_P, _R]):
    """Of a coroutine function: called, invalidated and cleared with `await`."""

    def __init__(self, function: Callable[_P, _R], *rest: Any) -> None:
        super().__init__(function, *rest)
        self._twin = AsyncCache.of(self.cache)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    async def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:  # type: ignore[override]  # _R is a coroutine
        def make() -> Awaitable[Any]:
            return cast("Awaitable[Any]", self._function(*args, **kwargs))

        return await self._twin.get_or_set(self.key_of(*args, **kwargs), make, wait_s=self._wait_s)

    def invalidate(self, *args: _P.args, **kwargs: _P.kwargs) -> Awaitable[bool]:
        return self._twin.delete(self.key_of(*args, **kwargs))

    def clear(self) -> Awaitable[None]:
        return self._twin.clear()


_REST: Final = inspect.Parameter.VAR_KEYWORD
_BY_PLACE: Final = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def _name(function: Callable[..., Any]) -> str:
    """A name that is the same in all workers, and fits."""
    module, qualified = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualified, str) or "<lambda>" in qualified:
        raise ConfigError(f"cached: {function!r} has no name of its own: give cached(name=...)")
    full = f"{module}.{qualified}"
    if len(full.encode()) <= NAME_BYTES:
        return full
    digest = hashlib.blake2b(full.encode(), digest_size=8).hexdigest()
    return f"{full.encode()[-(NAME_BYTES - 17) :].decode(errors='ignore')}-{digest}"
