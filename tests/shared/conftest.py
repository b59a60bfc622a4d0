"""One world for each backend: every test of the conformance suite runs in all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.shared.stores import connect
from tests.shared.worlds import Crowd, RedisServer, World, local_world, temporary_directory

BACKENDS = ("lmdb", "memory", "redis")
BETWEEN_PROCESSES = ("lmdb", "redis")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real server, for all tests of a run; skipped where it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory in memory, gone with the test."""
    with temporary_directory() as path:
        yield path


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest, directory: Path) -> Iterator[World]:
    """An empty store of each kind, used by this process alone."""
    made = _make(request, directory, has_own_time=True)
    yield made
    made.store.close()


@pytest.fixture(params=BETWEEN_PROCESSES)
def common_world(request: pytest.FixtureRequest, directory: Path) -> Iterator[World]:
    """An empty store of each kind that several processes may use, with real time."""
    made = _make(request, directory, has_own_time=False)
    yield made
    made.store.close()


def _make(request: pytest.FixtureRequest, directory: Path, *, has_own_time: bool) -> World:
    if request.param == "redis":
        pytest.importorskip("redis")
        url = request.getfixturevalue("redis_server").new_url()
        return World(url, connect(url))
    if request.param == "memory":
        return local_world(f"memory://?size_mb=16&name={directory.name}", has_own_time=has_own_time)
    return local_world(f"lmdb://{directory}/store?size_mb=16", has_own_time=has_own_time)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Processes that do something at the same time."""
    with Crowd() as made:
        yield made
