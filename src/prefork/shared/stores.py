"""From a URL to its store: one object for each place in a process, whoever asks.

One, because LMDB must not be opened twice in a process: closing the second handle would take the locks of the first
one with it (fcntl(2) locks belong to the process and the file, not to the descriptor).
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Final

from prefork.errors import ConfigError
from prefork.shared.place import Place, default_place, located, parse
from prefork.shared.store import Store


class _Stores:
    """The stores of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_place: dict[str, Store] = {}
        os.register_at_fork(after_in_child=self._afresh)

    def _afresh(self) -> None:
        """In a fork: a lock may have been copied while another thread held it."""
        self._lock = threading.Lock()

    def of(self, url: str | None) -> Store:
        with self._lock:
            place = default_place() if url is None else located(parse(url))
            key = f"lmdb://{os.path.realpath(place.path)}" if place.scheme == "lmdb" else place.url
            store = self._by_place.get(key)
            if store is None:
                store = self._by_place[key] = _make(place)
            return store


_STORES: Final = _Stores()


def connect(url: str | None = None) -> Store:
    """The store of a URL (see `place.py`), or the default store. Opens nothing yet. Raises ConfigError."""
    return _STORES.of(url)


def _make(place: Place) -> Store:
    if place.scheme == "memory":
        from prefork.shared.memory import MemoryStore  # noqa: PLC0415  (only the backend that is asked for)

        return MemoryStore(place.options.size_mb)
    if place.scheme == "lmdb":
        try:
            from prefork.shared.local.store import LmdbStore  # noqa: PLC0415  (see above)
        except ImportError as error:
            raise ConfigError(
                f"shared state on this machine needs the package lmdb ({error}): pip install prefork[shared]"
            ) from error
        store = LmdbStore(place)
        atexit.register(
            store.close
        )  # before the directory of a lone process is removed, which was made earlier
        return store
    try:
        from prefork.shared.remote.store import RedisStore  # noqa: PLC0415  (see above)
    except ImportError as error:
        raise ConfigError(
            f"shared state on Redis needs the package redis ({error}): pip install prefork[redis]"
        ) from error
    return RedisStore(place.url)
