"""cachelib's interface, and Flask-Caching on top of it."""

from __future__ import annotations

import datetime as dt
import os
import pickle
from typing import Any

import pytest

from prefork.errors import ConfigError, NotANumberError, NotSerialisableError
from tests.shared.worlds import Crowd, World

pytest.importorskip("cachelib")
flask = pytest.importorskip("flask")
flask_caching = pytest.importorskip("flask_caching")

from prefork.shared.cachelib import SharedCache  # noqa: E402  (skipped above where cachelib is not installed)


def cache_in(world: World, **options: object) -> SharedCache:
    return SharedCache("pages", url=world.url, **options)  # type: ignore[arg-type]


def test_it_does_what_cachelib_asks_for(world: World) -> None:
    """Method by method, as its documentation has it."""
    cache = cache_in(world)
    assert cache.get("a") is None
    assert cache.set("a", {"x": 1})
    assert cache.get("a") == {"x": 1}
    assert cache.has("a")
    assert not cache.add("a", 2)
    assert cache.add("b", 2)
    assert cache.get_many("a", "nothing", "b") == [{"x": 1}, None, 2]
    assert cache.get_dict("b", "nothing") == {"b": 2, "nothing": None}
    assert cache.set_many({"c": 3, "d": 4}) == ["c", "d"]
    assert cache.delete("a")
    assert not cache.delete("a")
    assert cache.delete_many("b", "nothing") == ["b", "nothing"]
    assert not cache.has("b")
    assert cache.inc("n") == 1
    assert cache.inc("n", 4) == 5
    assert cache.dec("n", 2) == 3
    assert cache.clear()
    assert not cache.has("c")


def test_its_times(world: World) -> None:
    """None is the default, 0 is for ever, a negative one is over; a timedelta will do."""
    cache = cache_in(world, default_timeout=1000)
    cache.set("default", 1)
    cache.set("ever", 1, timeout=0)
    cache.set("delta", 1, timeout=dt.timedelta(seconds=world.moment_s))
    cache.set("over", 1, timeout=-1)
    assert not cache.has("over")
    assert cache.add("over", 1, timeout=-1)
    world.after(world.moment_s, lambda: not cache.has("delta"))
    assert cache.has("default")
    assert cache.has("ever")
    eternal = cache_in(world, default_timeout=0)
    eternal.set("x", 1)
    assert eternal.has("x")


@pytest.mark.parametrize("key", ["", "x" * 1000, "ключ " * 100, "a\0b"])
def test_any_key_will_do(world: World, key: str) -> None:
    """Of any length: cachelib knows no bound."""
    cache = cache_in(world)
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert cache.delete(key)


def test_what_is_no_number_is_not_added_to(world: World) -> None:
    """A clear error, and the value is as it was."""
    cache = cache_in(world)
    cache.set("key", "text")
    with pytest.raises(NotANumberError):
        cache.inc("key")
    assert cache.get("key") == "text"


def test_what_cannot_be_pickled_is_the_error_that_cachelib_names(world: World) -> None:
    """And ours, too."""
    cache = cache_in(world)
    for store in (cache.set, cache.add):
        with pytest.raises(pickle.PickleError) as caught:
            store("key", lambda: None)
        assert isinstance(caught.value, NotSerialisableError)


def shop(url: str) -> tuple[Any, Any, list[str]]:
    """A Flask application with a cached view and a memoized function, and a list of what was computed."""
    app, computed = flask.Flask("shop"), []
    cache = flask_caching.Cache(
        app,
        config={
            "CACHE_TYPE": "prefork.shared.cachelib.SharedCache",
            "CACHE_OPTIONS": {"name": "flask", "url": url},
        },
    )

    @app.get("/page")
    @cache.cached(timeout=60, query_string=True)
    def page() -> str:
        computed.append(flask.request.full_path)
        return f"page {os.getpid()}"

    @cache.memoize(60)
    def price(product: int) -> int:
        computed.append(f"price {product}")
        return product * 10

    app.price = price
    return app, cache, computed


def test_flask_caching_keeps_views_and_functions(world: World) -> None:
    """`cached`, `memoize`, `delete_memoized`, `clear`."""
    app, cache, computed = shop(world.url)
    client = app.test_client()
    assert client.get("/page?a=1").data == client.get("/page?a=1").data
    assert len(computed) == 1
    client.get("/page?a=2")
    assert len(computed) == 2
    with app.app_context():
        assert app.price(7) == app.price(7) == 70
        assert computed[2:] == ["price 7"]
        cache.delete_memoized(app.price, 7)
        app.price(7)
        assert computed[2:] == ["price 7"] * 2
        cache.clear()
    client.get("/page?a=1")
    assert len(computed) == 5


def test_flask_caching_is_one_cache_for_all_workers(common_world: World, crowd: Crowd) -> None:
    """What one process has computed, the others show."""
    app, _, _ = shop(common_world.url)
    first = app.test_client().get("/page").data
    assert first == f"page {os.getpid()}".encode()
    for _ in range(3):
        crowd.add(lambda: app.test_client().get("/page").data)
    assert crowd.answers() == [first] * 3


def test_a_wrong_option_is_told(world: World) -> None:
    """When the application is made."""
    with pytest.raises(ConfigError, match="on_error"):
        cache_in(world, on_error="pray")
