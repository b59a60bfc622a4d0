"""What only several processes at once can show. Forked from the test, as workers are from a zygote."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from prefork.shared import Cache, Counter, Lock, Metrics, Topic
from tests.shared.worlds import WAIT_S, Crowd, World

LEASE_S = 4.0


def lease_of(world: World) -> float | None:
    """A server does not see a process die: there a lock has to have a lease."""
    return LEASE_S if world.url.startswith("unix") else None


def test_no_increment_is_lost(common_world: World, crowd: Crowd) -> None:
    """Four processes, 20,000 additions each (100,000 in the benchmark): exactly 80,000."""
    counter = Counter("visits", url=common_world.url)

    def add() -> None:
        for _ in range(20_000 if common_world.store.is_local else 2_000):
            counter.add()

    for _ in range(4):
        crowd.add(add)
    crowd.answers()
    assert counter.get() == (80_000 if common_world.store.is_local else 8_000)


def test_a_reset_loses_nothing(common_world: World, crowd: Crowd) -> None:
    """What resets gave and what is left are all that was added."""
    counter = Counter("visits", url=common_world.url)
    for _ in range(2):
        crowd.add(lambda: [counter.add() for _ in range(3_000)][:0])
    crowd.go()
    taken = sum(counter.reset() for _ in range(200))
    crowd.answers()
    assert taken + counter.get() == 6_000


def test_what_was_counted_outlives_who_counted(common_world: World, crowd: Crowd) -> None:
    """A worker that is gone took nothing with it, and the next one goes on."""
    counter = Counter("visits", url=common_world.url)
    orders = Metrics(url=common_world.url).counter("orders_total", "Orders")
    for _ in range(3):
        with Crowd() as others:
            others.add(lambda: (counter.add(5), orders.add(5), os.kill(os.getpid(), signal.SIGKILL)))
            others.answers()
    assert counter.get() == 15
    assert "orders_total 15\n" in Metrics(url=common_world.url).prometheus()


def test_each_gets_a_number_of_its_own(common_world: World, crowd: Crowd) -> None:
    """`Cache.increment` among processes."""
    cache = Cache("ids", url=common_world.url)
    for _ in range(4):
        crowd.add(lambda: [cache.increment("order") for _ in range(500)])
    numbers = [number for answer in crowd.answers() for number in answer]
    assert sorted(numbers) == list(range(1, 2001))


def test_one_of_many_succeeds(common_world: World, crowd: Crowd) -> None:
    """`add` and `compare_and_set` have one winner each time."""
    cache = Cache("races", url=common_world.url)

    def race() -> list[str]:
        won = [f"add {n}" for n in range(100) if cache.add(f"key {n}", os.getpid())]
        for n in range(100):
            token = cache.gets("start")[1] if n == 0 else None
            if n == 0 and cache.compare_and_set("start", os.getpid(), token):
                won.append("swap")
        return won

    for _ in range(4):
        crowd.add(race)
    won = [each for answer in crowd.answers() for each in answer]
    assert sorted(each for each in won if each != "swap") == sorted(f"add {n}" for n in range(100))


def test_compare_and_set_counts_right(common_world: World, crowd: Crowd) -> None:
    """Read, compute, set if unchanged, else anew: nothing is lost."""
    cache = Cache("counts", url=common_world.url)
    cache.set("count", {"n": 0})

    def count() -> None:
        for _ in range(100):
            while True:
                value, token = cache.gets("count")
                if cache.compare_and_set("count", {"n": value["n"] + 1}, token):
                    break

    for _ in range(3):
        crowd.add(count)
    crowd.answers()
    assert cache.get("count") == {"n": 300}


def test_what_many_miss_is_computed_once(common_world: World, crowd: Crowd) -> None:
    """Eight processes ask for one missing key at once; one computes, all get it."""
    cache = Cache("pages", url=common_world.url)
    computed = Counter("computed", url=common_world.url)

    def make() -> str:
        computed.add()
        time.sleep(0.2)  # is what takes long: the others come meanwhile
        return f"made by {os.getpid()}"

    for _ in range(8):
        crowd.add(lambda: cache.get_or_set("page", make))
    answers = crowd.answers()
    assert len(set(answers)) == 1
    assert computed.get() == 1


def test_who_waits_for_a_computation_learns_of_its_death(common_world: World, crowd: Crowd) -> None:
    """The computing process is killed; the one that waits computes by itself."""
    cache = Cache("pages", url=common_world.url)
    read, write = os.pipe()

    def hang() -> str:
        os.write(write, b"!")
        signal.pause()
        return "never"

    wait_s = 30 if common_world.store.is_local else 1  # on a server, the lease of who computes
    first = crowd.add(lambda: cache.get_or_set("page", hang, wait_s=wait_s))
    crowd.go()
    assert os.read(read, 1) == b"!"
    with Crowd() as waiting:
        waiting.add(lambda: cache.get_or_set("page", lambda: "made by the second", wait_s=60))
        waiting.go()
        crowd.kill(first)
        assert waiting.answers() == ["made by the second"]
    os.close(read)
    os.close(write)


def test_a_computation_that_hangs_is_not_waited_for_longer_than_asked(
    common_world: World, crowd: Crowd
) -> None:
    """Past `wait_s` the next one computes by itself."""
    cache = Cache("pages", url=common_world.url)
    read, write = os.pipe()

    def hang() -> str:
        os.write(write, b"!")
        signal.pause()
        return "never"

    first = crowd.add(lambda: cache.get_or_set("page", hang))
    crowd.go()
    assert os.read(read, 1) == b"!"
    assert cache.get_or_set("page", lambda: "my own", wait_s=0.05) == "my own"
    crowd.kill(first)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_lock_ends_with_its_holder(common_world: World, crowd: Crowd, number: signal.Signals) -> None:
    """Whatever signal killed it; who waits gets it."""
    lock = Lock("nightly", lease_s=lease_of(common_world), url=common_world.url)
    read, write = os.pipe()

    def hold() -> None:
        lock.acquire()
        os.write(write, b"!")
        signal.pause()

    holder = crowd.add(hold)
    crowd.go()
    assert os.read(read, 1) == b"!"
    assert not lock.acquire(timeout_s=0)
    os.kill(holder, number)
    assert lock.acquire(timeout_s=WAIT_S)
    lock.release()
    os.close(read)
    os.close(write)


def test_a_lock_keeps_others_out(common_world: World, crowd: Crowd) -> None:
    """A value that is read, and written a moment later, under a lock: nothing is lost."""
    lock = Lock("sum", lease_s=lease_of(common_world) and 30.0, url=common_world.url)
    cache = Cache("sums", url=common_world.url)
    cache.set("sum", 0)

    def work() -> None:
        for _ in range(100):
            with lock:
                value = cache.get("sum")
                os.sched_yield()
                cache.set("sum", value + 1)

    for _ in range(4):
        crowd.add(work)
    crowd.answers()
    assert cache.get("sum") == 400


def test_one_tells_all_others(common_world: World, crowd: Crowd) -> None:
    """Three processes listen, one speaks, all hear the same in the same order."""
    topic = Topic("news", url=common_world.url)
    read, write = os.pipe()

    def listen() -> list[int]:
        with topic.listen() as listener:
            os.write(write, b"!")
            return [listener.get(timeout_s=WAIT_S) for _ in range(100)]

    for _ in range(3):
        crowd.add(listen)
    crowd.go()
    heard = b""
    while len(heard) < 3:
        heard += os.read(read, 3)
    for number in range(100):
        topic.publish(number)
    assert crowd.answers() == [list(range(100))] * 3
    os.close(read)
    os.close(write)


def test_a_killed_listener_stops_nobody(common_world: World, crowd: Crowd) -> None:
    """What it left is taken away by who speaks next."""
    topic = Topic("news", url=common_world.url)
    read, write = os.pipe()

    def listen() -> None:
        with topic.listen():
            os.write(write, b"!")
            signal.pause()

    pid = crowd.add(listen)
    crowd.go()
    assert os.read(read, 1) == b"!"
    crowd.kill(pid)
    with topic.listen() as listener:
        topic.publish("still here")
        assert listener.get(timeout_s=WAIT_S) == "still here"
    os.close(read)
    os.close(write)


def test_killed_writers_lose_and_damage_nothing(common_world: World) -> None:
    """Kill -9 at random moments of a loop of writes, 25 times (200 in the benchmark).

    Each write that was acknowledged, by a byte in a pipe, is there afterwards; the next call goes through.
    """
    cache = Cache("writes", url=common_world.url)
    chance = random.Random(5)
    for generation in range(25):
        read, write = os.pipe()

        def work(generation: int = generation, write: int = write) -> None:
            number = 0
            while True:
                number += 1
                cache.set(f"{generation}/{number % 50}", (generation, number, b"x" * (number % 700)))
                os.write(write, b"!")

        with Crowd() as crowd:
            pid = crowd.add(work)
            os.close(write)
            crowd.go()
            acknowledged = 0
            while acknowledged < chance.randrange(200, 2000):
                acknowledged += len(os.read(read, 4096))
            crowd.kill(pid)
        while piece := os.read(read, 65536):
            acknowledged += len(piece)
        os.close(read)
        # The last acknowledged one and, perhaps, the one after it that was being written.
        numbers = sorted(cache.get(key)[1] for key in cache if key.startswith(f"{generation}/"))
        assert numbers[-1] in {acknowledged, acknowledged + 1}
        assert len(numbers) == 50
        assert numbers[0] > acknowledged - 50
