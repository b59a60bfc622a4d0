"""What only a server can do wrong: go away, fall silent, forget, be full, be somebody else's."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork.errors import (
    ConfigError,
    LockLostError,
    MessagesLostError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
)
from prefork.shared import Cache, Counter, Lock, RateLimiter, Topic
from prefork.shared.stores import connect
from tests.shared.worlds import WAIT_S, Crowd, RedisServer

redis = pytest.importorskip("redis")


@pytest.fixture
def url(redis_server: RedisServer) -> Iterator[str]:
    """An empty database of a server that lives."""
    made = redis_server.new_url()
    yield made
    connect(made).close()


@pytest.fixture
def own_server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A server that a test may end (the other one is asked for to skip where there is none)."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()


def kill(server: RedisServer) -> None:
    """End a server; its directory stays, so that it can be started again."""
    assert server._popen is not None
    server._popen.kill()
    server._popen.wait()
    assert server._popen.stdout is not None
    server._popen.stdout.close()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it holds."""
    ends_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < ends_s, "it never happened"
        time.sleep(0.002)
    return found


def client_of(url: str) -> Any:
    return redis.Redis.from_url(url)


# -- gone and back ------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_a_clear_error_and_then_comes_back(own_server: RedisServer) -> None:
    """Nobody has to do anything but to call again."""
    url = own_server.new_url()
    cache, counter = Cache("pages", url=url), Counter("visits", url=url)
    cache.set("key", 1)
    kill(own_server)
    for call in (lambda: cache.get("key"), lambda: cache.set("key", 2), counter.add, counter.get):
        with pytest.raises(StoreUnavailableError, match=r"redis\.sock.*it is not there"):
            call()
    own_server.start()
    assert cache.get("key") is None
    counter.add()
    assert counter.get() == 1
    connect(url).close()


def test_a_server_that_is_gone_is_a_miss_by_option(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The application computes by itself; the log says why, once."""
    url = own_server.new_url()
    cache = Cache("pages", url=url, on_error="miss")
    kill(own_server)
    with caplog.at_level(logging.WARNING, "prefork.shared"):
        assert cache.get("key", "default") == "default"
        assert not cache.set("key", 1)
        assert cache.get_or_set("key", lambda: "computed") == "computed"
    assert len(caplog.records) == 1
    connect(url).close()


def test_a_server_that_goes_during_a_computation_takes_nothing_with_it(own_server: RedisServer) -> None:
    """What was computed is given to who asked."""
    url = own_server.new_url()
    cache = Cache("pages", url=url, on_error="miss")

    def make() -> str:
        kill(own_server)
        return "computed"

    assert cache.get_or_set("key", make) == "computed"
    connect(url).close()


def test_a_server_that_is_silent_is_waited_for_once(own_server: RedisServer) -> None:
    """One call waits for `timeout_s`, the next ones fail at once; when it speaks again all is well."""
    url = f"{own_server.new_url()}&timeout_s=2"
    cache = Cache("pages", url=url)
    cache.set("key", 1)
    assert own_server._popen is not None
    os.kill(own_server._popen.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match=r"no answer within 2 s"):
            cache.get("key")
        with pytest.raises(StoreUnavailableError, match="a moment ago"):
            cache.get("key")
    finally:
        os.kill(own_server._popen.pid, signal.SIGCONT)

    def is_back() -> bool:
        try:
            return cache.get("key") == 1
        except StoreUnavailableError:
            return False

    assert until(is_back)
    connect(url).close()


def test_a_listener_that_was_cut_off_is_told_so_and_hears_again(url: str) -> None:
    """Once; what was said before is not lost."""
    topic, admin = Topic("news", url=url), client_of(url)
    with topic.listen() as listener:
        topic.publish("before")
        assert listener.get(timeout_s=WAIT_S) == "before"
        admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(MessagesLostError, match="anything was said"):
            listener.get(timeout_s=WAIT_S)
        topic.publish("after")
        assert listener.get(timeout_s=WAIT_S) == "after"
    admin.close()


def test_a_listener_of_a_server_that_is_gone_says_so(own_server: RedisServer) -> None:
    """Each time, until there is one again; then that messages were lost."""
    url = own_server.new_url()
    with Topic("news", url=url).listen() as listener:
        kill(own_server)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                listener.get(timeout_s=WAIT_S)
        own_server.start()
        with pytest.raises(MessagesLostError):
            listener.get(timeout_s=WAIT_S)
        Topic("news", url=url).publish("new")
        assert listener.get(timeout_s=WAIT_S) == "new"
    connect(url).close()


# -- forks --------------------------------------------------------------------------------------------------


def test_a_fork_has_connections_of_its_own(url: str, crowd: Crowd) -> None:
    """Parent and children call at the same time, and each gets the answers to its own questions."""
    cache = Cache("numbers", url=url)
    cache.set_many({f"{number}": number for number in range(100)})

    def read() -> list[Any]:
        return [cache.get(f"{number}") for _ in range(10) for number in range(100)]

    for _ in range(3):
        crowd.add(read)
    crowd.go()
    mine = read()
    assert all(answer == mine == [*range(100)] * 10 for answer in crowd.answers())
    assert cache.get("7") == 7


# -- locks --------------------------------------------------------------------------------------------------


def test_a_lock_without_a_lease_is_kept_while_its_process_lives(url: str, crowd: Crowd) -> None:
    """Its lease, of the URL, is made longer again and again; when the process is killed it ends by itself."""
    url = f"{url}&lease_s=3"
    lock, admin = Lock("nightly", url=url), client_of(url.partition("&")[0])
    read, write = os.pipe()

    def hold() -> None:
        lock.acquire()
        os.write(write, b"!")
        signal.pause()

    holder = crowd.add(hold)
    crowd.go()
    assert os.read(read, 1) == b"!"
    for _ in range(3):
        until(lambda: 0 < admin.pttl(b"prefork:l:lnightly") < 2500)
        until(lambda: admin.pttl(b"prefork:l:lnightly") > 2500)
    assert not lock.acquire(timeout_s=0)
    crowd.kill(holder)
    assert lock.acquire(timeout_s=WAIT_S)
    lock.release()
    for fd in (read, write):
        os.close(fd)
    admin.close()
    connect(url).close()


def test_no_thread_stays_behind_a_lock(url: str) -> None:
    """It keeps the lease, and is gone with it: it would be in the way of a fork."""
    lock = Lock("nightly", url=url)
    for _ in range(3):
        with lock:
            assert "prefork-shared-leases" in {thread.name for thread in threading.enumerate()}
        assert "prefork-shared-leases" not in {thread.name for thread in threading.enumerate()}


def test_a_lease_that_cannot_be_kept_is_given_up(url: str) -> None:
    """The thread that keeps it finds that out, and ends."""
    place = f"{url}&lease_s=3"
    lock, admin = Lock("nightly", url=place), client_of(url)
    lock.acquire()
    until(lambda: 0 < admin.pttl(b"prefork:l:lnightly") < 2500)
    until(lambda: admin.pttl(b"prefork:l:lnightly") > 2500)
    admin.set(b"prefork:l:lnightly", "somebody else")
    until(lambda: "prefork-shared-leases" not in {thread.name for thread in threading.enumerate()})
    assert not lock.is_held()
    with pytest.raises(LockLostError):
        lock.release()
    admin.close()
    connect(place).close()


def test_who_waits_uses_the_connection_of_who_waited_before(url: str) -> None:
    """And hears what concerns itself alone; if that one has died, it takes a new one."""
    store, admin = connect(url), client_of(url)
    for number in range(5):
        store.lock_waiter(b"l%d" % number).close()
    assert (
        len([each for each in admin.client_list() if int(each["sub"]) or each["cmd"] == "unsubscribe"]) == 1
    )
    first, second = store.try_lock(b"l1", 60), store.try_lock(b"l2", 60)
    assert first is not None
    assert second is not None
    waiter = store.lock_waiter(b"l1")
    second.release()
    admin.ping()  # the server has sent what there was to be sent
    poll = select.poll()
    poll.register(waiter.fileno(), select.POLLIN)
    assert not poll.poll(20)
    first.release()
    assert poll.poll(WAIT_S * 1000)
    waiter.close()
    admin.client_kill_filter(_type="normal", skipme=True)
    admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    store.lock_waiter(b"l1").close()
    admin.close()


def test_a_lock_that_the_server_has_forgotten_is_lost(url: str) -> None:
    """As after a restart without persistence, or an eviction."""
    lock, admin = Lock("nightly", url=url), client_of(url)
    lock.acquire()
    assert lock.is_held()
    admin.flushdb()
    assert not lock.is_held()
    with pytest.raises(LockLostError):
        lock.release()
    admin.close()


def test_a_lock_that_another_has_taken_meanwhile_is_not_let_go(url: str) -> None:
    """The late holder does not end the hold of the next one."""
    first, second = (Lock("nightly", lease_s=0.05, url=url), Lock("nightly", lease_s=60, url=url))
    first.acquire()
    assert second.acquire(timeout_s=WAIT_S)
    with pytest.raises(LockLostError):
        first.release()
    assert second.is_held()
    second.release()


# -- what else a server can say -----------------------------------------------------------------------------


def test_a_full_server_is_a_full_store(own_server: RedisServer) -> None:
    """It says what to do; reads go on."""
    url = own_server.new_url()
    cache, admin = Cache("pages", url=url), client_of(url)
    cache.set("key", 1)
    admin.config_set("maxmemory", "1mb")
    with pytest.raises(StoreFullError, match="maxmemory-policy"):
        cache.set("other", b"x")
    with pytest.raises(StoreFullError):
        cache.increment("count")
    assert cache.get("key") == 1
    admin.close()
    connect(url).close()


def test_keys_of_another_program_are_not_taken_for_ours(url: str) -> None:
    """A key of another type is damage, and not a crash."""
    admin = client_of(url)
    admin.rpush(b"prefork:e:pages\0key", "x")
    with pytest.raises(StoreDamagedError, match="another prefix"):
        Cache("pages", url=url).get("key")
    admin.close()


def test_prefixes_keep_programs_apart(url: str) -> None:
    """`clear` of one, even of its whole store, is nothing to the other."""
    one, other = f"{url}&prefix=a*:", f"{url}&prefix=ab:"
    Cache("pages", url=one).set("key", 1)
    Cache("pages", url=other).set("key", 2)
    Counter("visits", url=other).add()
    connect(one).clear()
    assert Cache("pages", url=one).get("key") is None
    assert Cache("pages", url=other).get("key") == 2
    assert Counter("visits", url=other).get() == 1
    for each in (one, other):
        connect(each).close()


def test_the_server_learns_of_hits_without_being_told_each_time(url: str) -> None:
    """After 64 of them it knows, though nobody asked for statistics; whichever object of that name was used."""
    admin = client_of(url)
    for _ in range(70):
        cache = Cache("pages", url=url)
        cache.get("nothing")
    assert int(admin.hget(b"prefork:s:pages", "misses")) >= 64
    assert cache.stats().misses == 70
    admin.close()


def test_integers_are_exact_up_to_64_bits(url: str) -> None:
    """Above 2**53, where a double would round."""
    cache, counter = Cache("ids", url=url), Counter("bytes", url=url)
    cache.set("id", 2**62)
    assert cache.increment("id") == 2**62 + 1
    counter.add(2**62 + 1)
    counter.add(1)
    assert counter.get() == 2**62 + 2


def test_the_password_is_never_said(own_server: RedisServer) -> None:
    """Neither in an error nor in a log."""
    url = f"unix://:hunter2@{own_server.socket}?db=1"
    with pytest.raises(StoreUnavailableError, match="password is wrong") as caught:
        Cache("pages", url=url).get("key")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as wrong:
        connect("redis://:hunter2@localhost/0?colour=blue")
    assert "hunter2" not in str(wrong.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    for name in [name for name in sys.modules if name.startswith("prefork.shared.remote")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install prefork\[redis\]"):
        connect("redis://localhost:1/5")


def test_tls_and_a_password(redis_server: RedisServer) -> None:
    """`rediss://` with the authority that signed the server's certificate; without it, a clear error."""
    trustme = pytest.importorskip("trustme")
    authority, server = trustme.CA(), RedisServer()
    certificate = authority.issue_cert("localhost")
    files = {name: server.folder / name for name in ("ca.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    certificate.cert_chain_pems[0].write_to_path(files["cert.pem"])
    certificate.private_key_pem.write_to_path(files["key.pem"])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [
        "--bind",
        "127.0.0.1",
        "--tls-port",
        f"{port}",
        "--requirepass",
        "hunter2",
        "--tls-auth-clients",
        "no",
    ]
    words += ["--tls-cert-file", str(files["cert.pem"]), "--tls-key-file", str(files["key.pem"])]
    words += ["--tls-ca-cert-file", str(files["ca.pem"])]
    try:
        server.start(*words)
    except AssertionError:
        server.stop()
        pytest.skip("this redis-server was built without TLS")
    base = f"rediss://:hunter2@localhost:{port}/1"
    url = f"{base}?ssl_ca_certs={files['ca.pem']}"
    cache, topic = Cache("pages", url=url), Topic("news", url=url)
    cache.set("key", b"x" * 100_000)
    assert cache.get("key") == b"x" * 100_000
    with topic.listen() as listener:
        for number in range(50):
            topic.publish(b"%d" % number * 1000)
        heard = [listener.get(timeout_s=WAIT_S) for _ in range(50)]
        with socket.socket(fileno=os.dup(listener.fileno())) as copy:
            assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert heard == [b"%d" % number * 1000 for number in range(50)]
    with pytest.raises(StoreUnavailableError, match="certificate"):
        Cache("pages", url=base).get("key")
    for each in (url, base):
        connect(each).close()
    server.stop()


@pytest.mark.parametrize("option", ["timeout_s=0", "timeout_s=soon", "lease_s=-1", "colour=blue", "db=first"])
def test_an_option_that_cannot_be_is_refused(option: str) -> None:
    """When the store is made: nothing is connected for it."""
    with pytest.raises(ConfigError, match="shared store redis://localhost"):
        connect(f"redis://localhost?{option}")


@pytest.mark.parametrize("scheme", ["redis", "valkey", "rediss"])
def test_nothing_is_connected_before_the_first_call(scheme: str) -> None:
    """A server that is not there is found out by who calls."""
    limiter = RateLimiter("login", limit=1, url=f"{scheme}://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailableError, match="it is not there"):
        limiter.take("key")
