"""A dictionary that all workers see."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from prefork.shared.cache import Cache
from prefork.shared.values import Serialiser


class SharedDict(MutableMapping[str, Any]):
    """A `MutableMapping` over a cache without a time to live, so it is bounded: the least used entries go when its store is full.

        settings = SharedDict("settings")
        settings["theme"] = "dark"

    What is read is a copy: change it, and store it again. `len` and iteration look at every entry.
    """

    def __init__(self, name: str, *, serialise: str | Serialiser = "pickle", url: str | None = None) -> None:
        self.cache = Cache(name, serialise=serialise, url=url)

    def __getitem__(self, key: str) -> Any:
        missing = object()
        value = self.cache.get(key, missing)
        if value is missing:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.cache.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.cache.delete(key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return self.cache.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self.cache)

    def clear(self) -> None:
        """Remove all entries at once."""
        self.cache.clear()

    def __repr__(self) -> str:
        return f"SharedDict({self.cache.name!r})"
