from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any

import pytest

from prefork.errors import ConfigError
from prefork.shared import cached
from tests.shared.worlds import Crowd, World


def test_a_function_is_computed_once_for_its_arguments(world: World) -> None:
    """However they are given; other arguments are another value."""
    calls = []

    @cached(ttl_s=60, url=world.url, name="prices")
    def price(product: int, currency: str = "eur", *rest: int, **more: Any) -> tuple[Any, ...]:
        calls.append(product)
        return (product, currency, rest, more)

    assert price(1) == price(product=1) == price(1, "eur") == price(1, currency="eur") == (1, "eur", (), {})
    assert calls == [1]
    assert price(1, "usd", 5, a=1, b=2) == price(1, "usd", 5, b=2, a=1)
    assert price("1") != price(1)  # type: ignore[arg-type]
    assert price(True) is not None
    assert len(calls) == 4
    assert price.__name__ == "price"


def test_a_value_can_be_taken_back(world: World) -> None:
    """One by its arguments, or all."""
    calls = []

    @cached(url=world.url, name="squares")
    def square(number: int) -> int:
        calls.append(number)
        return number * number

    for number in (1, 2):
        square(number)
    assert square.invalidate(1)
    assert not square.invalidate(1)
    square(1)
    square(2)
    assert calls == [1, 2, 1]
    square.clear()
    square(2)
    assert calls == [1, 2, 1, 2]


def test_a_value_ends(world: World) -> None:
    """After `ttl_s`."""
    calls: list[int] = []

    @cached(ttl_s=world.moment_s, url=world.url, name="times")
    def count() -> int:
        calls.append(1)
        return len(calls)

    assert count() == 1
    world.after(world.moment_s, lambda: count() > 1)


def test_what_is_raised_and_what_is_none(world: World) -> None:
    """An error is not kept; None is."""
    calls = []

    @cached(url=world.url, name="moody")
    def moody() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        moody()
    assert moody() is None
    assert moody() is None
    assert len(calls) == 2


def test_a_coroutine_function_is_awaited(world: World) -> None:
    """Called, invalidated and cleared; fifty at once compute once."""
    calls = []

    @cached(url=world.url, name="pages")
    async def page(path: str) -> str:
        calls.append(path)
        await asyncio.sleep(0)
        return f"<{path}>"

    async def story() -> None:
        assert set(await asyncio.gather(*(page("/") for _ in range(50)))) == {"</>"}
        assert calls == ["/"]
        assert await page.invalidate("/")
        await page("/")
        await page.clear()
        await page("/")

    asyncio.run(story())
    assert len(calls) == 3
    assert inspect.iscoroutinefunction(page.__call__)


def test_a_key_of_ones_own(world: World) -> None:
    """For arguments that are no plain data, and for methods."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @cached(key=lambda self, product: f"{self.name}/{product['id']}", url=world.url, name="shop")
        def price(self, product: dict[str, int]) -> str:
            return f"{self.name} {product['id']}"

    assert Shop("a").price({"id": 1}) == "a 1"
    assert Shop("b").price({"id": 1}) == "b 1"
    assert Shop.price.invalidate(Shop("a"), {"id": 1})
    assert "b/1" in Shop.price.cache


@pytest.mark.parametrize("argument", [object(), [1], {"a": 1}, (1, [2]), {1}])
def test_arguments_of_which_no_key_can_be_made_are_refused(world: World, argument: object) -> None:
    """A key that is not the same in all workers would be a cache that never hits."""

    @cached(url=world.url, name="things")
    def thing(value: object) -> object:
        return value

    with pytest.raises(TypeError, match=r"cached\(key=\.\.\.\)"):
        thing(argument)


def test_long_arguments_have_a_key(world: World) -> None:
    """A digest of them."""

    @cached(url=world.url, name="long")
    def length(text: str) -> int:
        return len(text)

    assert [length("x" * size) for size in (1000, 1001, 1000)] == [1000, 1001, 1000]
    assert len(length.key_of("x" * 1000)) <= 400


def test_names_come_from_the_function(world: World) -> None:
    """Module and qualified name, cut with a digest where they are long; a lambda has none."""

    @cached(url=world.url)
    def with_a_name_that_is_so_very_long_that_it_does_not_fit() -> None: ...

    name = with_a_name_that_is_so_very_long_that_it_does_not_fit.cache.name
    assert len(name.encode()) <= 64
    assert "that_it_does_not_fit-" in name
    with pytest.raises(ConfigError, match="name="):
        cached(url=world.url)(lambda: 1)
    with pytest.raises(ConfigError, match="ttl_s"):
        cached(ttl_s=0)


def test_all_workers_see_one_value(common_world: World, crowd: Crowd) -> None:
    """Four processes ask at once; one of them computes."""

    @cached(url=common_world.url, name="pid")
    def who() -> int:
        return os.getpid()

    for _ in range(4):
        crowd.add(who)
    answers = crowd.answers()
    assert len(set(answers)) == 1
    assert answers[0] in crowd.pids
