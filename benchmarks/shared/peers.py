"""Who else keeps state for several processes: each as a function that gives its (get, set, add) in the process that measures.

Redis needs its server; diskcache and the client of gunicorn's stash are imported from the peers' environment; the Manager is the
standard library's. Who cannot be had is said, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, Final

from benchmarks.run import peers
from benchmarks.run.places import APPS
from benchmarks.run.tools import program
from benchmarks.shared.bench import OURS, REDIS, VALUE, Bench, Calls
from prefork.shared import Cache, Counter
from tests.process.harness import Fleet, free_port
from tests.shared.worlds import RedisServer

DISKCACHE: Final = "diskcache"
MANAGER: Final = "multiprocessing Manager"
STASH: Final = "gunicorn's stash"
NAMES: Final = (OURS, REDIS, DISKCACHE, MANAGER, STASH)
KEYS: Final = tuple(f"key:{number}" for number in range(1000))
Trio = tuple[Calls, Calls, Calls]
"""get, set and add, each called with how many times."""


@dataclass(slots=True)
class Peers:
    """Who can be measured, and why the others cannot."""

    makers: dict[str, Callable[[], Trio]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def subjects(bench: Bench) -> Iterator[Peers]:
    """All of them that are wanted, with their servers, while it lasts."""
    found = Peers()
    with contextlib.ExitStack() as stack:
        stack.enter_context(peers.importable())
        offered: dict[str, Callable[[], Callable[[], Trio]]] = {
            OURS: lambda: lambda: _ours(bench.url),
            REDIS: lambda: _redis(stack),
            DISKCACHE: lambda: _diskcache(bench.folder / "diskcache"),
            MANAGER: lambda: _manager(stack),
            STASH: lambda: _stash(stack),
        }
        for name, offer in offered.items():
            if bench.wish.is_wanted(name):
                try:
                    found.makers[name] = offer()
                except (ImportError, OSError, AssertionError) as error:
                    found.missing[name] = str(error).partition("\n")[0]
        yield found


def _trio(
    get: Callable[[str], object], put: Callable[[str, bytes], object], add: Callable[[], object]
) -> Trio:
    def get_all(count: int) -> None:
        for number in range(count):
            get(KEYS[number % 1000])

    def put_all(count: int) -> None:
        for number in range(count):
            put(KEYS[number % 1000], VALUE)

    def add_all(count: int) -> None:
        for _ in range(count):
            add()

    return get_all, put_all, add_all


def _ours(url: str) -> Trio:
    cache, counter = Cache("bench", url=url), Counter("bench", url=url)
    return _trio(cache.get, cache.set, counter.add)


def _redis(stack: contextlib.ExitStack) -> Callable[[], Trio]:
    if program("redis-server") is None:
        raise OSError("redis-server is not installed")
    redis: Any = importlib.import_module("redis")
    server = RedisServer()
    stack.callback(server.stop)
    server.start()
    url = server.new_url()

    def make() -> Trio:
        client = redis.Redis.from_url(url)
        return _trio(client.get, client.set, lambda: client.incr("counter"))

    return make


def _diskcache(folder: Path) -> Callable[[], Trio]:
    diskcache: Any = importlib.import_module("diskcache")

    def make() -> Trio:
        cache = diskcache.Cache(str(folder))
        return _trio(cache.get, cache.set, lambda: cache.incr("counter"))

    return make


def _manager(stack: contextlib.ExitStack) -> Callable[[], Trio]:
    shared = stack.enter_context(SyncManager()).dict()

    def add() -> None:  # not atomic: there is nothing that is
        shared["counter"] = shared.get("counter", 0) + 1

    return lambda: _trio(shared.get, shared.__setitem__, add)


def _stash(stack: contextlib.ExitStack) -> Callable[[], Trio]:
    """Of gunicorn 25.1 and newer: tables in the process of its "dirty arbiter", asked over a Unix socket."""
    stash: Any = importlib.import_module("gunicorn.dirty.stash")
    words = [str(peers.PEERS / "bin" / "gunicorn"), "--chdir", str(APPS), "-b", f"127.0.0.1:{free_port()}"]
    words += ["-w", "1", "--dirty-workers", "1", "--dirty-app", "stash_app:Nothing", "stash_app:app"]
    fleet = stack.enter_context(Fleet(words))
    path = fleet.wait_for(r"[Dd]irty arbiter listening on (\S+)")[1]

    def make() -> Trio:
        client = stash.StashClient(path)
        # Its `get` has a default, but what is not there raises all the same (27.0.1).
        client.put("bench", "counter", 0)

        def add() -> None:  # not atomic, either
            client.put("bench", "counter", client.get("bench", "counter", 0) + 1)

        return _trio(
            lambda key: client.get("bench", key), lambda key, value: client.put("bench", key, value), add
        )

    return make
