from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from prefork.errors import LockLostError
from prefork.shared import (
    AsyncCache,
    AsyncCounter,
    AsyncCounters,
    AsyncLock,
    AsyncRateLimiter,
    AsyncTopic,
    Cache,
    Counter,
    Lock,
)
from tests.shared.worlds import WAIT_S, Crowd, World

LEASE_S = 30.0

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine in each kind of loop, and fails if it takes too long."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda story: runner.run(asyncio.wait_for(story, WAIT_S))


def test_a_cache_is_awaited(world: World, run: Run) -> None:
    """Every method does what its twin does; both see the same entries."""
    cache, twin = AsyncCache("pages", url=world.url), Cache("pages", url=world.url)

    async def story() -> None:
        assert await cache.set("a", [1])
        assert twin.get("a") == [1]
        assert await cache.get("a") == [1]
        assert await cache.get("nothing", 5) == 5
        assert await cache.add("b", 1)
        assert not await cache.add("b", 2)
        assert await cache.replace("b", 3)
        assert await cache.increment("b", 4) == 7
        assert await cache.increment("c", initial=None) is None
        value, token = await cache.gets("a")
        assert await cache.compare_and_set("a", [*value, 2], token)
        assert not await cache.compare_and_set("a", [], token)
        assert await cache.touch("a", 1000)
        assert await cache.delete("a")
        assert sorted(await cache.keys()) == ["b"]
        assert (await cache.stats()).misses >= 1
        await cache.clear()
        assert await cache.keys() == []

    run(story())


def test_many_at_once_are_awaited_in_steps(world: World, run: Run) -> None:
    """The loop has its turn in between, and nothing is left out."""
    cache = AsyncCache("pages", url=world.url)
    values = {f"key {number}": number for number in range(450)}
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def story() -> None:
        counting = asyncio.create_task(count())
        assert await cache.set_many(values)
        assert await cache.get_many([*values, "nothing"]) == values
        assert await cache.delete_many(values) == 450
        counting.cancel()

    run(story())
    assert turns >= 12


def test_a_large_value_is_stored_elsewhere(world: World, run: Run) -> None:
    """In a thread: others may have to go for it."""
    cache = AsyncCache("pages", url=world.url)
    seen = []
    plain = cache.cache.set
    cache.cache.set = lambda *args: (seen.append(threading.current_thread()), plain(*args))[1]  # type: ignore[method-assign]

    async def story() -> None:
        assert await cache.set("large", b"x" * 100_000)
        assert await cache.get("large") == b"x" * 100_000

    run(story())
    assert seen[0] is not threading.main_thread()


def test_one_task_computes_for_all(world: World, run: Run) -> None:
    """Fifty ask at once; the loop goes on meanwhile, because what is computed waits for it."""
    cache = AsyncCache("pages", url=world.url)
    made = 0

    async def story() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def make() -> str:
            nonlocal made
            made += 1
            begun.set()
            await go.wait()
            return "made"

        tasks = [asyncio.create_task(cache.get_or_set("page", make)) for _ in range(50)]
        await begun.wait()
        go.set()
        assert set(await asyncio.gather(*tasks)) == {"made"}
        assert await cache.get_or_set("page", make) == "made"
        assert await cache.get_or_set("other", lambda: "by a function") == "by a function"

    run(story())
    assert made == 1


def test_what_a_computation_raises_is_raised_and_the_next_one_tries(world: World, run: Run) -> None:
    """Nothing is kept, nobody waits for it."""
    cache = AsyncCache("pages", url=world.url)

    async def story() -> None:
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_set("page", lambda: 1 // 0)
        assert await cache.get_or_set("page", lambda: "mended") == "mended"

    run(story())


def test_a_computation_that_is_cancelled_lets_the_next_one_compute(world: World, run: Run) -> None:
    """At once, not when somebody's patience ends."""
    cache = AsyncCache("pages", url=world.url)

    async def story() -> None:
        begun = asyncio.Event()

        async def hang() -> str:
            begun.set()
            await asyncio.Event().wait()
            return "never"

        first = asyncio.create_task(cache.get_or_set("page", hang))
        await begun.wait()
        second = asyncio.create_task(cache.get_or_set("page", lambda: "mine"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "mine"

    run(story())


def test_a_computation_that_hangs_is_waited_for_as_long_as_asked(world: World, run: Run) -> None:
    """Past `wait_s` the next one computes by itself."""
    cache = AsyncCache("pages", url=world.url)

    async def story() -> None:
        begun = asyncio.Event()

        async def hang() -> str:
            begun.set()
            await asyncio.Event().wait()
            return "never"

        first = asyncio.create_task(cache.get_or_set("page", hang))
        await begun.wait()
        assert await cache.get_or_set("page", lambda: "mine", wait_s=0.05) == "mine"
        first.cancel()

    run(story())


def test_a_failure_is_a_miss_by_option(world: World, run: Run) -> None:
    """As with `Cache`."""
    cache = AsyncCache("pages", url=world.url, on_error="miss")

    async def story() -> None:
        assert await cache.get("x" * 500, "default") == "default"
        assert await cache.get_or_set("x" * 500, lambda: "computed") == "computed"

    run(story())


def test_a_lock_is_waited_for_in_the_loop(world: World, run: Run) -> None:
    """Each task holds for itself; another thread's or process's lock of that name is the same lock."""
    lock = AsyncLock("nightly", lease_s=LEASE_S, url=world.url)
    twin = Lock("nightly", lease_s=LEASE_S, url=world.url)
    inside = most = 0

    async def work() -> int:
        nonlocal inside, most
        async with lock:
            inside += 1
            most = max(most, inside)
            assert await lock.is_held()
            assert not twin.acquire(timeout_s=0)
            await asyncio.sleep(0)
            inside -= 1
            return lock.fencing

    async def story() -> None:
        numbers = await asyncio.gather(*(work() for _ in range(8)))
        assert len(set(numbers)) == 8

    run(story())
    assert most == 1


def test_a_lock_that_is_not_to_be_had_in_time(world: World, run: Run) -> None:
    """False; and who asks for what is not held gets an error."""
    lock = AsyncLock("nightly", lease_s=LEASE_S, url=world.url)

    async def story() -> None:
        await lock.acquire()
        other = asyncio.create_task(lock.acquire(timeout_s=0.02))
        assert not await other
        assert not await asyncio.create_task(lock.acquire(timeout_s=0))
        with pytest.raises(RuntimeError, match="holds it already"):
            await lock.acquire()
        await lock.release()
        for do in (lock.release, lambda: asyncio.to_thread(getattr, lock, "fencing")):
            with pytest.raises(RuntimeError):
                await do()

    run(story())


def test_a_task_that_is_cancelled_while_it_waits_holds_nothing(world: World, run: Run) -> None:
    """Whenever that happens, the lock is to be had afterwards."""
    lock = AsyncLock("nightly", lease_s=LEASE_S, url=world.url)

    async def story() -> None:
        for turns in range(6):
            task = asyncio.create_task(lock.acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():  # it had the lock before, and took it with it
                hold = lock._holds.pop(task)
                assert hold.release()
            assert await lock.acquire(timeout_s=WAIT_S)
            await lock.release()

    run(story())


def test_an_error_in_a_lock_lets_it_go(world: World, run: Run) -> None:
    """And is the one that is raised, even if the lease has ended."""
    lock = AsyncLock("nightly", lease_s=LEASE_S, url=world.url)

    async def fail() -> None:
        async with lock:
            raise ZeroDivisionError

    async def story() -> None:
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await lock.acquire(timeout_s=0)
        await lock.release()

    run(story())


def test_a_lease_that_has_ended_is_told(world: World, run: Run) -> None:
    """When it is let go."""
    lock = AsyncLock("nightly", lease_s=world.moment_s, url=world.url)

    async def story() -> None:
        await lock.acquire()
        other = Lock("nightly", lease_s=LEASE_S, url=world.url)
        world.after(world.moment_s, lambda: other.acquire(timeout_s=0))
        assert not await lock.is_held()
        with pytest.raises(LockLostError):
            await lock.release()
        other.release()

    run(story())


def test_a_lock_of_a_process_that_was_killed_wakes_the_loop(
    common_world: World, run: Run, crowd: Crowd
) -> None:
    """The waiting task gets it, and the loop was free meanwhile."""
    lease_s = None if common_world.store.is_local else 3.0
    lock, plain = (kind("nightly", lease_s=lease_s, url=common_world.url) for kind in (AsyncLock, Lock))
    read, write = os.pipe()

    def hold() -> None:
        plain.acquire()
        os.write(write, b"!")
        signal.pause()

    holder = crowd.add(hold)
    crowd.go()
    assert os.read(read, 1) == b"!"

    async def story() -> None:
        waiting = asyncio.create_task(lock.acquire(timeout_s=WAIT_S))
        assert not (await asyncio.wait([waiting], timeout=0.02))[0]
        crowd.kill(holder)
        assert await waiting

    run(story())
    for fd in (read, write):
        os.close(fd)


def test_news_are_heard_in_the_loop(world: World, run: Run) -> None:
    """By all who listen, in order."""
    topic = AsyncTopic("news", url=world.url)

    async def hear(listener: Any) -> list[Any]:
        async with listener:
            return [message async for message in _first(listener, 3)]

    async def story() -> None:
        listeners = [await topic.listen() for _ in range(3)]
        tasks = [asyncio.create_task(hear(each)) for each in listeners]
        for number in range(3):
            await topic.publish({"number": number})
        for heard in await asyncio.gather(*tasks):
            assert heard == [{"number": number} for number in range(3)]
        async with await topic.listen() as silent:
            with pytest.raises(TimeoutError):
                await silent.get(timeout_s=0.02)

    run(story())


async def _first(listener: Any, count: int) -> Any:
    async for message in listener:
        yield message
        count -= 1
        if not count:
            return


def test_numbers_are_awaited(world: World, run: Run) -> None:
    """Counters and rate limits."""
    visits, downloads = AsyncCounter("visits", url=world.url), AsyncCounters("downloads", url=world.url)
    limiter = AsyncRateLimiter("login", limit=1, window_s=60, url=world.url)

    async def story() -> None:
        await visits.add(2)
        await downloads.add("a")
        assert await visits.get() == 2
        assert await visits.reset() == 2
        assert await downloads.get("a") == 1
        assert await downloads.items() == {"a": 1}
        assert await downloads.reset("a") == 1
        assert (await limiter.take("key")).is_allowed
        assert not (await limiter.take("key")).is_allowed
        await limiter.forget("key")
        assert (await limiter.take("key")).is_allowed

    run(story())
    assert Counter("visits", url=world.url).get() == 0
