from __future__ import annotations

import math
import select
import threading

import pytest

from prefork.errors import (
    ConfigError,
    LockLostError,
    MessagesLostError,
    NotANumberError,
    NotSerialisableError,
    ValueTooLargeError,
)
from prefork.shared import Counter, Counters, Lock, Metrics, RateLimiter, Topic
from tests.shared.worlds import World


def is_readable(thing: object) -> bool:
    """Whether there is something to hear now."""
    poll = select.poll()
    poll.register(thing, select.POLLIN)  # type: ignore[arg-type]
    return bool(poll.poll(0))


def will_be_readable(thing: object) -> bool:
    """Whether there is something to hear soon."""
    poll = select.poll()
    poll.register(thing, select.POLLIN)  # type: ignore[arg-type]
    return bool(poll.poll(45_000))


# -- counters ---------------------------------------------------------------------------------------------


def test_a_counter_counts(world: World) -> None:
    """From 0, by any integer; `reset` says what it was."""
    counter = Counter("visits", url=world.url)
    assert counter.get() == 0
    assert counter.reset() == 0
    counter.add()
    counter.add(41)
    assert counter.get() == 42
    counter.add(-2)
    assert counter.reset() == 40
    assert counter.get() == 0
    counter.add(3)
    assert Counter("visits", url=world.url).get() == 3


def test_many_counters_of_one_group(world: World) -> None:
    """By name, and all together."""
    downloads, others = Counters("downloads", url=world.url), Counters("download", url=world.url)
    downloads.add("a")
    downloads.add("b", 5)
    others.add("a", 7)
    assert dict(downloads.items()) == {"a": 1, "b": 5}
    assert downloads.get("b") == 5
    assert downloads.reset("b") == 5
    assert downloads.get("nothing") == 0
    assert others.get("a") == 7


@pytest.mark.parametrize("amount", [1.5, "1", None, True])
def test_a_counter_takes_integers(world: World, amount: object) -> None:
    """A clear error, and nothing is counted."""
    counter = Counter("visits", url=world.url)
    with pytest.raises(NotANumberError, match="integer is wanted"):
        counter.add(amount)  # type: ignore[arg-type]
    assert counter.get() == 0


def test_a_number_is_of_one_kind_for_good(world: World) -> None:
    """A float is not added to an integer; an integer to a float is."""
    store = world.store
    store.add(b"xint", 1)
    with pytest.raises(NotANumberError):
        store.add(b"xint", 1.5)
    store.add(b"xfloat", 1.5)
    store.add(b"xfloat", 1)
    assert store.numbers(b"x") == {b"xint": 1, b"xfloat": 2.5}


def test_clear_forgets_everything_but_what_metrics_mean(world: World) -> None:
    """Numbers and entries; texts stay."""
    store = world.store
    store.add(b"xn", 1)
    store.describe(b"xt", b"text")
    store.space(b"pages").set(b"key", b"bvalue", None)
    store.clear()
    assert store.number(b"xn") == 0
    assert store.descriptions(b"xt") == {b"xt": b"text"}
    assert store.space(b"pages").get(b"key") is None


# -- metrics ----------------------------------------------------------------------------------------------


def test_metrics_are_exported_in_prometheus_format(world: World) -> None:
    """Counters and histograms, labels quoted, buckets cumulative."""
    metrics = Metrics(url=world.url)
    orders = metrics.counter("orders_total", "Orders\nplaced", labels=("country",))
    orders.add(country="de")
    orders.add(1.5, country='a"b')
    plain = metrics.counter("plain_total", "Plain")
    plain.add(2)
    seconds = metrics.histogram("seconds", "Time", buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 7):
        seconds.observe(value)
    assert Metrics(url=world.url).prometheus() == (
        "# HELP orders_total Orders\\nplaced\n"
        "# TYPE orders_total counter\n"
        'orders_total{country="a\\"b"} 1.5\n'
        'orders_total{country="de"} 1\n'
        "# HELP plain_total Plain\n"
        "# TYPE plain_total counter\n"
        "plain_total 2\n"
        "# HELP seconds Time\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{le="0.1"} 2\n'
        'seconds_bucket{le="1"} 3\n'
        'seconds_bucket{le="+Inf"} 4\n'
        "seconds_sum 7.65\n"
        "seconds_count 4\n"
    )


def test_a_histogram_with_labels(world: World) -> None:
    """`le` comes behind its own labels."""
    seconds = Metrics(url=world.url).histogram("seconds", "Time", labels=("path",), buckets=(1,))
    seconds.observe(0.5, path="/")
    text = Metrics(url=world.url).prometheus()
    assert 'seconds_bucket{path="/",le="1"} 1\n' in text
    assert 'seconds_count{path="/"} 1\n' in text


def test_mistakes_with_metrics_are_told(world: World) -> None:
    """Names, labels, buckets, negative amounts."""
    metrics = Metrics(url=world.url)
    counter = metrics.counter("orders_total", "Orders", labels=("country",))
    for do in (
        lambda: metrics.counter("no spaces", ""),
        lambda: metrics.counter("x", "", labels=("le",)),
        lambda: metrics.histogram("x", "", buckets=()),
        lambda: metrics.histogram("x", "", buckets=(2, 1)),
        counter.add,
        lambda: counter.add(town="x", country="de"),
        lambda: counter.add(-1, country="de"),
    ):
        with pytest.raises(ConfigError):
            do()


# -- rate limits ------------------------------------------------------------------------------------------


def test_a_token_bucket_lets_a_burst_through_and_then_an_even_flow(world: World) -> None:
    """Three at once, then one each third of the window."""
    limiter = RateLimiter("login", limit=3, window_s=3 * world.moment_s, url=world.url)
    assert [limiter.take("a").is_allowed for _ in range(4)] == [True, True, True, False]
    assert limiter.take("b").is_allowed
    refused = limiter.take("a")
    assert 0 < refused.retry_after_s <= world.moment_s * 1.001  # as exact as a float
    assert refused.remaining < 1
    world.after(world.moment_s, lambda: limiter.take("a").is_allowed)


def test_a_bucket_never_holds_more_than_its_burst(world: World) -> None:
    """However long nobody came."""
    limiter = RateLimiter("login", limit=10, window_s=10 * world.moment_s, burst=2, url=world.url)
    limiter.take("a")
    world.after(world.moment_s, lambda: limiter.take("a", 2).is_allowed)
    assert not limiter.take("a", 2).is_allowed


def test_more_than_can_ever_be_is_never(world: World) -> None:
    """`retry_after_s` says so, and nothing is taken."""
    for algorithm in ("bucket", "window"):
        limiter = RateLimiter(algorithm, limit=2, window_s=60, algorithm=algorithm, url=world.url)
        verdict = limiter.take("a", 3)
        assert not verdict.is_allowed
        assert verdict.retry_after_s == math.inf
        assert limiter.take("a", 2).is_allowed


def test_a_sliding_window_remembers_the_window_before(world: World) -> None:
    """No double burst at the turn, and all is forgotten after two windows."""
    limiter = RateLimiter("api", limit=4, window_s=0.2, algorithm="window", url=world.url)
    allowed = sum(limiter.take("a").is_allowed for _ in range(6))
    assert 4 <= allowed <= 6 if world.clock is None else allowed == 4
    refused = limiter.take("a")
    assert refused.is_allowed or 0 < refused.retry_after_s <= 0.4
    world.after(0.4, lambda: limiter.take("a").is_allowed)


def test_a_key_can_be_forgiven(world: World) -> None:
    """`forget` gives all of it back."""
    limiter = RateLimiter("login", limit=1, window_s=60, url=world.url)
    limiter.take("a")
    assert not limiter.take("a").is_allowed
    limiter.forget("a")
    assert limiter.take("a").is_allowed


@pytest.mark.parametrize(
    "options",
    [{"limit": 0}, {"limit": 1, "window_s": 0}, {"limit": 1, "burst": -1}, {"limit": 1, "algorithm": "x"},
     {"limit": 1, "algorithm": "window", "burst": 1}, {"limit": True}],
)  # fmt: skip
def test_a_limit_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    """When the limiter is made."""
    with pytest.raises(ConfigError, match="rate limiter"):
        RateLimiter("login", **options)  # type: ignore[arg-type]


# -- locks ------------------------------------------------------------------------------------------------

LEASE_S = 30.0
"""A lock on a server needs a lease, so all have one here that is long enough."""


def test_one_holds_a_lock_at_a_time(world: World) -> None:
    """Another object of that name does not get it, until it is let go."""
    first, second = (Lock("nightly", lease_s=LEASE_S, url=world.url) for _ in range(2))
    with first:
        assert first.is_held()
        assert not second.acquire(timeout_s=0)
        assert not second.acquire(timeout_s=0.01)
        assert Lock("other", lease_s=LEASE_S, url=world.url).acquire(timeout_s=0)
    assert not first.is_held()
    assert second.acquire(timeout_s=0)
    second.release()


def test_who_waits_gets_the_lock_when_it_is_let_go(world: World) -> None:
    """A waiting thread is woken."""
    lock = Lock("nightly", lease_s=LEASE_S, url=world.url)
    got = []

    def wait() -> None:
        with lock:
            got.append(1)

    with lock:
        thread = threading.Thread(target=wait)
        thread.start()
        waiter = world.store.lock_waiter(b"lnightly")
        assert not is_readable(waiter)
    assert will_be_readable(waiter)
    waiter.close()
    thread.join(45)
    assert got == [1]


def test_a_lease_ends(world: World) -> None:
    """Then another may take it, and who had it learns that it was lost."""
    first, second = (Lock("nightly", lease_s=lease_s, url=world.url) for lease_s in (world.moment_s, LEASE_S))
    first.acquire()
    world.after(world.moment_s, lambda: second.acquire(timeout_s=0))
    assert not first.is_held()
    with pytest.raises(LockLostError, match="lease"):
        first.release()
    assert second.is_held()
    second.release()


def test_who_waits_knows_when_a_lease_ends(world: World) -> None:
    """`retry_after_s` is what is left of it."""
    hold = world.store.try_lock(b"lx", 5.0)
    waiter = world.store.lock_waiter(b"lx")
    assert 0 < waiter.retry_after_s <= 5.0
    waiter.close()
    assert hold is not None
    assert hold.release()
    assert not hold.release()


def test_each_holder_has_a_higher_number(world: World) -> None:
    """For what is guarded to refuse one who comes late."""
    lock = Lock("nightly", lease_s=LEASE_S, url=world.url)
    seen = []
    for _ in range(3):
        with lock:
            assert lock.fencing == lock.fencing
            seen.append(lock.fencing)
    assert seen == sorted(set(seen))


def test_a_lock_that_is_not_held_cannot_be_let_go(world: World) -> None:
    """Nor asked for its number; nor waited for by its holder."""
    lock = Lock("nightly", lease_s=LEASE_S, url=world.url)
    with pytest.raises(RuntimeError, match="not held"):
        lock.release()
    with pytest.raises(RuntimeError, match="not held"):
        _ = lock.fencing
    with lock, pytest.raises(RuntimeError, match="holds it already"):
        lock.acquire()


# -- topics -----------------------------------------------------------------------------------------------


def test_all_listeners_hear_what_is_said_in_order(world: World) -> None:
    """From the moment on at which they listen; nothing wakes them otherwise."""
    topic, other = Topic("news", url=world.url), Topic("new", url=world.url)
    topic.publish("before")
    with topic.listen() as first, topic.listen() as second:
        other.publish("of no interest")
        assert not is_readable(first)
        for number in range(3):
            topic.publish({"number": number})
        for listener in (first, second):
            assert [listener.get(timeout_s=45) for _ in range(3)] == [{"number": n} for n in range(3)]
        assert first.take() == []
        with pytest.raises(TimeoutError):
            first.get(timeout_s=0.01)


def test_who_has_left_hears_nothing(world: World) -> None:
    """And disturbs nobody."""
    topic = Topic("news", url=world.url)
    gone = topic.listen()
    gone.close()
    gone.close()
    with topic.listen() as listener:
        topic.publish(1)
        assert listener.get(timeout_s=45) == 1


def test_who_is_too_slow_is_told(world: World) -> None:
    """Once; then it goes on with what is left, up to the newest."""
    if world.url.startswith("unix"):
        pytest.skip("a Redis server drops a slow listener by its own limits (client-output-buffer-limit)")
    topic = Topic("news", url=world.url)
    with topic.listen() as listener:
        for number in range(300):
            topic.publish(number)
        with pytest.raises(MessagesLostError, match="anything was said"):
            listener.take()
        assert will_be_readable(listener)
        left = listener.take()
        assert left == list(range(300 - len(left), 300))
        assert len(left) >= 200
        topic.publish("more")
        assert listener.get(timeout_s=45) == "more"


def test_a_message_that_cannot_be_is_refused(world: World) -> None:
    """Too large, or not to be serialised."""
    topic = Topic("news", url=world.url)
    with pytest.raises(ValueTooLargeError, match="tell its key"):
        topic.publish(b"x" * 20_000)
    with pytest.raises(NotSerialisableError):
        topic.publish(lambda: None)
