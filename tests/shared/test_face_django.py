"""Django's cache backend: Django's own tests of backends, and what they do not ask."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from prefork.errors import ConfigError
from tests.shared.worlds import Crowd, World

django = pytest.importorskip("django")

from prefork.shared.django import SharedCache  # noqa: E402  (skipped above where Django is not installed)

DOWNLOAD_LIMIT_S = 100


def backend_in(url: str, **params: Any) -> SharedCache:
    return SharedCache(url, params)


@pytest.fixture(scope="session")
def django_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tests` of the source distribution of the Django that is installed; skipped where it cannot be had."""
    folder = tmp_path_factory.mktemp("django")
    words = ["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    words += ["--no-binary", "django", "--dest", str(folder), f"django=={django.get_version()}"]
    try:
        subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=DOWNLOAD_LIMIT_S)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"Django's source distribution cannot be had: {error}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar.getmembers() if "/tests/cache/" in member.name]
        tar.extractall(folder, wanted, filter="data")
    return next(folder.glob("*/tests"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_django_s_own_tests_pass(common_world: World, django_tests: Path) -> None:
    """Those that it has for every backend; three of them are about a bound in entries, and are skipped."""
    suite = Path(__file__).with_name("django_suite.py")
    done = subprocess.run(
        [sys.executable, suite, django_tests, common_world.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "skipped 3" in done.stdout
    assert int(done.stdout.partition("ran ")[2].partition(",")[0]) > 50


def test_it_does_what_django_asks_for(world: World) -> None:
    """The same in short, for where the above cannot be had."""
    cache = backend_in(world.url)
    assert cache.add("a", 1)
    assert not cache.add("a", 2)
    cache.set("b", None, timeout=None)
    assert cache.get("b", "default") is None
    assert cache.get_many(["a", "b", "nothing"]) == {"a": 1, "b": None}
    assert cache.incr("a", 5) == 6
    assert cache.decr("a") == 5
    with pytest.raises(ValueError, match="not found"):
        cache.incr("nothing")
    assert cache.has_key("b")
    assert "b" in cache
    assert cache.set_many({"c": 3, "d": 4}) == []
    assert cache.incr_version("c") == 2
    assert cache.get("c") is None
    assert cache.get("c", version=2) == 3
    cache.delete_many(["b", "d"])
    assert not cache.delete("d")
    assert cache.get_or_set("e", 5) == 5
    assert cache.get_or_set("f", lambda: 6) == 6
    cache.clear()
    assert cache.get("f") is None


def test_its_times(world: World) -> None:
    """None is for ever; 0 and less is over at once; the rest is seconds."""
    cache = backend_in(world.url, TIMEOUT=1000)
    cache.set("short", 1, timeout=world.moment_s)
    cache.set("default", 1)
    cache.set("ever", 1, timeout=None)
    for timeout in (0, -5):
        cache.set("over", 1)
        cache.set("over", 1, timeout=timeout)
        assert cache.get("over") is None
        cache.set("touched", 1)
        assert cache.touch("touched", timeout)
        assert cache.get("touched") is None
        assert cache.get_or_set("made", lambda: 1, timeout=timeout) == 1
        assert cache.get("made") is None
        assert cache.set_many({"many": 1}, timeout=timeout) == []
        assert cache.get("many") is None
        assert cache.add("added", 1, timeout=timeout)
    world.after(world.moment_s, lambda: cache.get("short") is None)
    assert cache.get("default") == cache.get("ever") == 1


def test_async_views_use_it_too(world: World) -> None:
    """And `aincr` loses nothing, which Django's own does."""
    cache = backend_in(world.url)

    async def story() -> None:
        await cache.aset("n", 0)
        await asyncio.gather(*(cache.aincr("n") for _ in range(50)))
        assert await cache.aget("n") == 50
        assert await cache.aadd("a", 1)
        assert await cache.ahas_key("a")
        assert await cache.atouch("a", 10)
        assert await cache.adelete("a")
        assert await cache.aget_or_set("b", lambda: 2) == 2
        assert await cache.aget_or_set("c", 3) == 3
        assert await cache.aget_many(["b", "c"]) == {"b": 2, "c": 3}
        await cache.aclear()
        assert await cache.aget("b") is None

    asyncio.run(story())


def test_what_many_miss_is_computed_once(common_world: World, crowd: Crowd) -> None:
    """`get_or_set` in four processes."""
    cache = backend_in(common_world.url)
    for _ in range(4):
        crowd.add(lambda: cache.get_or_set("pid", os.getpid))
    answers = crowd.answers()
    assert len(set(answers)) == 1
    assert answers[0] in crowd.pids


def test_options_are_checked(world: World) -> None:
    """When the backend is made; those of other backends are passed over."""
    backend_in(world.url, OPTIONS={"MAX_ENTRIES": 5, "name": "other", "serialise": "json"})
    with pytest.raises(ConfigError, match="colour"):
        backend_in(world.url, OPTIONS={"colour": "blue"})
    with pytest.raises(ConfigError, match="on_error"):
        backend_in(world.url, OPTIONS={"on_error": "pray"})
