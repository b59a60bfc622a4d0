from __future__ import annotations

import pytest

from prefork.errors import (
    ConfigError,
    KeyTooLongError,
    NotANumberError,
    NotSerialisableError,
    SharedError,
    ValueTooLargeError,
)
from prefork.shared import Cache, Serialiser, SharedDict
from tests.shared.worlds import World


def cache_in(world: World, name: str = "pages", **options: object) -> Cache:
    return Cache(name, url=world.url, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [b"", b"bytes", "text", 7, -(2**63), 2**64, 1.5, None, True, [1, {"a": (2,)}]]
)
def test_what_is_set_is_got(world: World, value: object) -> None:
    """Any value comes back equal and of the same type."""
    cache = cache_in(world)
    assert cache.set("key", value)
    found = cache.get("key", "missing")
    assert found == value
    assert type(found) is type(value)


def test_what_is_not_there_is_the_default(world: World) -> None:
    """None, or what the caller says."""
    cache = cache_in(world)
    assert cache.get("nothing") is None
    assert cache.get("nothing", 5) == 5
    assert "nothing" not in cache


def test_none_is_a_value(world: World) -> None:
    """A stored None is a hit."""
    cache = cache_in(world)
    cache.set("key", None)
    assert cache.get("key", "missing") is None
    assert "key" in cache


def test_add_stores_only_what_is_absent(world: World) -> None:
    """The second one fails and changes nothing."""
    cache = cache_in(world)
    assert cache.add("key", 1)
    assert not cache.add("key", 2)
    assert cache.get("key") == 1


def test_replace_stores_only_what_is_present(world: World) -> None:
    """Nothing comes to be by it."""
    cache = cache_in(world)
    assert not cache.replace("key", 1)
    assert "key" not in cache
    cache.set("key", 1)
    assert cache.replace("key", 2)
    assert cache.get("key") == 2


def test_delete_says_whether_it_was_there(world: World) -> None:
    """And it is gone."""
    cache = cache_in(world)
    cache.set("key", 1)
    assert cache.delete("key")
    assert not cache.delete("key")
    assert "key" not in cache


def test_an_entry_expires(world: World) -> None:
    """Whoever asks later finds nothing; `add` may store anew, `replace`, `touch` and `delete` find nothing."""
    cache = cache_in(world)
    for key in ("added", "replaced", "touched", "deleted", "swapped", "got"):  # the last one ends last
        cache.set(key, 1, ttl_s=world.moment_s)
    token = cache.gets("swapped")[1]
    world.after(world.moment_s, lambda: "got" not in cache)
    assert cache.add("added", 2)
    assert not cache.replace("replaced", 2)
    assert not cache.touch("touched", 10)
    assert not cache.delete("deleted")
    assert not cache.compare_and_set("swapped", 2, token)
    assert list(cache.keys()) == ["added"]


def test_an_entry_lives_as_long_as_the_cache_says(world: World) -> None:
    """`ttl_s` of the cache holds where a call says nothing; None in a call is for ever."""
    cache = cache_in(world, ttl_s=world.moment_s)
    cache.set("short", 1)
    cache.set("long", 1, ttl_s=None)
    world.after(world.moment_s, lambda: "short" not in cache)
    assert "long" in cache


def test_touch_gives_a_new_life(world: World) -> None:
    """Longer, shorter, or without end."""
    cache = cache_in(world)
    cache.set("longer", 1, ttl_s=world.moment_s)
    cache.set("shorter", 1)
    assert cache.touch("longer", None)
    assert cache.touch("shorter", world.moment_s)
    assert not cache.touch("nothing", 1)
    world.after(world.moment_s, lambda: "shorter" not in cache)
    assert cache.get("longer") == 1


def test_compare_and_set_takes_only_what_nobody_changed(world: World) -> None:
    """The token of `gets` is good for one change."""
    cache = cache_in(world)
    cache.set("key", 1)
    value, token = cache.gets("key")
    assert value == 1
    assert cache.compare_and_set("key", 2, token)
    assert not cache.compare_and_set("key", 3, token)
    assert cache.get("key") == 2


def test_compare_and_set_of_what_is_not_there(world: World) -> None:
    """The token None stands for nothing."""
    cache = cache_in(world)
    assert cache.gets("key") == (None, None)
    assert cache.compare_and_set("key", 1, None)
    assert not cache.compare_and_set("key", 2, None)


def test_many_at_once(world: World) -> None:
    """Set, get and delete of many are what each would be by itself."""
    cache = cache_in(world)
    values = {f"key {number}": number for number in range(250)}
    assert cache.set_many(values)
    assert cache.get_many([*values, "nothing"]) == values
    assert cache.delete_many(["key 1", "key 2", "nothing"]) == 2
    assert cache.get_many(["key 1", "key 3"]) == {"key 3": 3}
    assert cache.get_many([]) == {}


def test_increment_gives_each_caller_a_number_of_its_own(world: World) -> None:
    """It begins from `initial`, and is an ordinary value."""
    cache = cache_in(world)
    assert cache.increment("id") == 1
    assert cache.increment("id", 5) == 6
    assert cache.increment("id", -10) == -4
    assert cache.increment("other", 1, initial=100) == 101
    assert cache.increment("nothing", initial=None) is None
    assert cache.get("id") == -4
    cache.set("id", 41)
    assert cache.increment("id") == 42


def test_increment_keeps_the_time_to_live(world: World) -> None:
    """A count for a while ends when it was to end."""
    cache = cache_in(world)
    cache.increment("count", ttl_s=world.moment_s)
    cache.increment("count", ttl_s=1000)
    world.after(world.moment_s, lambda: "count" not in cache)


@pytest.mark.parametrize("value", [b"12", "12", 1.5, None])
def test_only_an_integer_can_be_added_to(world: World, value: object) -> None:
    """A clear error, and the value is as it was."""
    cache = cache_in(world)
    cache.set("key", value)
    with pytest.raises(NotANumberError, match="no integer"):
        cache.increment("key")
    assert cache.get("key") == value


def test_an_integer_has_64_bits(world: World) -> None:
    """One more than the largest is refused."""
    cache = cache_in(world)
    cache.set("key", 2**63 - 1)
    with pytest.raises(NotANumberError):
        cache.increment("key")
    assert cache.get("key") == 2**63 - 1


def test_caches_of_different_names_are_strangers(world: World) -> None:
    """Even where one name begins as the other; `clear` and `keys` are of one alone."""
    pages, page = cache_in(world, "pages"), cache_in(world, "page")
    pages.set("key", 1)
    page.set("skey", 2)
    page.set("key", 3)
    assert pages.get("key") == 1
    assert sorted(page.keys()) == ["key", "skey"]
    pages.clear()
    assert "key" not in pages
    assert page.get("key") == 3


def test_caches_of_one_name_are_one(world: World) -> None:
    """Whoever makes the object."""
    cache_in(world).set("key", 1)
    assert cache_in(world).get("key") == 1


def test_clear_takes_many(world: World) -> None:
    """More than any batch."""
    cache = cache_in(world)
    cache.set_many({f"key {number}": number for number in range(1500)})
    assert sum(1 for _ in cache) == 1500
    cache.clear()
    assert list(cache.keys()) == []
    cache.set("key", 1)
    assert list(cache.keys()) == ["key"]


@pytest.mark.parametrize("key", ["\0", "a\0b", "ключ", b"\xff\x00", "x" * 400, " "])
def test_any_key_will_do(world: World, key: str | bytes) -> None:
    """NUL, other alphabets, bytes, 400 of them."""
    cache = cache_in(world)
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert [cache.get(each) for each in cache] == [1]


@pytest.mark.parametrize("key", ["", "x" * 401, "я" * 201])
def test_a_key_that_is_too_long_is_refused(world: World, key: str) -> None:
    """Every method says what is wrong."""
    cache = cache_in(world)
    for call in (cache.get, cache.delete, cache.touch, cache.gets, lambda key: cache.set(key, 1)):
        with pytest.raises(KeyTooLongError, match="1 to 400"):
            call(key)


def test_a_value_that_is_too_large_is_refused(world: World) -> None:
    """And what was there stays."""
    cache = cache_in(world)
    cache.set("key", 1)
    with pytest.raises(ValueTooLargeError):
        cache.set("key", b"x" * 65 * 2**20 if world.url.startswith("unix") else b"x" * 4 * 2**20)
    assert cache.get("key") == 1


def test_a_large_value_fits(world: World) -> None:
    """A megabyte in a store of 16."""
    cache = cache_in(world)
    value = bytes(range(256)) * 4096
    cache.set("key", value)
    assert cache.get("key") == value


def test_what_cannot_be_serialised_is_refused(world: World) -> None:
    """Naming the type, the serialiser and what to do."""
    cache = cache_in(world)
    with pytest.raises(NotSerialisableError, match=r"pickle.*function.*plain data"):
        cache.set("key", lambda: None)
    assert "key" not in cache


def test_what_another_serialiser_wrote_is_refused(world: World) -> None:
    """JSON does not read pickle, above all."""
    cache_in(world).set("key", {"a": 1})
    with pytest.raises(NotSerialisableError, match="another serialiser"):
        cache_in(world, serialise="json").get("key")


def test_json_stores_what_json_can(world: World) -> None:
    """And refuses the rest."""
    cache = cache_in(world, serialise="json")
    cache.set("key", {"a": [1, None, "x"]})
    assert cache.get("key") == {"a": [1, None, "x"]}
    for value in ({1, 2}, float("nan")):
        with pytest.raises(NotSerialisableError):
            cache.set("key", value)


def test_msgspec_stores_what_it_can(world: World) -> None:
    """What MessagePack can say, bytes too; and it refuses the rest."""
    pytest.importorskip("msgspec")
    cache = cache_in(world, serialise="msgspec")
    cache.set("key", {"a": [1, None, b"x"]})
    assert cache.get("key") == {"a": [1, None, b"x"]}
    with pytest.raises(NotSerialisableError):
        cache.set("key", object())


def test_a_serialiser_of_ones_own(world: World) -> None:
    """Any two functions, and a mark that is its own."""
    upper = Serialiser("upper", b"U", lambda value: value.upper().encode(), lambda data: data.decode())
    cache = cache_in(world, serialise=upper)
    cache.set("key", "text")
    assert cache.get("key") == "TEXT"
    for wrong in (
        "yaml",
        Serialiser("x", b"b", str.encode, bytes.decode),
        Serialiser("x", b"xx", str.encode, bytes.decode),
    ):
        with pytest.raises(ConfigError, match="serialiser"):
            cache_in(world, serialise=wrong)


def test_an_error_is_a_miss_by_option(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The application goes on; the log says why, once a minute."""
    cache = cache_in(world, on_error="miss")
    assert cache.get("x" * 500, "default") == "default"
    assert not cache.set("key", lambda: None)
    assert cache.get_or_set("x" * 500, lambda: "computed") == "computed"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "taken for a miss" in caplog.text


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), "5"])
def test_a_time_to_live_is_more_than_nothing(world: World, ttl_s: object) -> None:
    """A slip in the program, whatever `on_error` says."""
    cache = cache_in(world, on_error="miss")
    with pytest.raises(ConfigError, match="ttl_s"):
        cache.set("key", 1, ttl_s=ttl_s)  # type: ignore[arg-type]


def test_statistics_count_hits_and_misses_of_this_cache(world: World) -> None:
    """Those of others are not mixed in; bytes grow with what is stored."""
    cache, other = cache_in(world), cache_in(world, "other")
    cache.set("key", b"x" * 10_000)
    for key in ("key", "key", "nothing"):
        cache.get(key)
        other.get(key)
    cache.get_many(["key", "nothing", "nothing"])
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions) == (3, 3, 0)
    assert stats.bytes >= 10_000 or world.url.startswith("unix")
    assert (other.stats().hits, other.stats().misses) == (0, 3)


def test_get_or_set_computes_once(world: World) -> None:
    """And then never again, until it is gone; what the computation raises is raised."""
    cache = cache_in(world)
    asked = []

    def make() -> str:
        asked.append(1)
        return "made"

    assert cache.get_or_set("key", make) == "made"
    assert cache.get_or_set("key", make) == "made"
    assert len(asked) == 1
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("broken", lambda: 1 // 0)
    assert cache.get_or_set("broken", lambda: "mended") == "mended"


def test_a_dictionary_that_all_workers_see(world: World) -> None:
    """`SharedDict` is a `MutableMapping`."""
    settings = SharedDict("settings", url=world.url)
    settings["a"] = 1
    settings.update(b=2, c=3)
    assert dict(settings) == {"a": 1, "b": 2, "c": 3}
    assert len(settings) == 3
    del settings["a"]
    for do in (lambda: settings["a"], lambda: settings.__delitem__("a")):
        with pytest.raises(KeyError):
            do()
    assert settings.pop("b") == 2
    assert settings.setdefault("d", 4) == 4
    settings.clear()
    assert not settings


@pytest.mark.parametrize("name", ["", "x" * 65, "a\0b", "\x01limits", 5])
def test_a_name_that_cannot_be_is_refused(name: object) -> None:
    """When the object is made."""
    with pytest.raises(ConfigError, match="name of a cache"):
        Cache(name)  # type: ignore[arg-type]


def test_every_error_is_of_one_kind() -> None:
    """Whoever wants to go on, whatever happens, catches `SharedError`."""
    for kind in (KeyTooLongError, ValueTooLargeError, NotSerialisableError, NotANumberError):
        assert issubclass(kind, SharedError)
