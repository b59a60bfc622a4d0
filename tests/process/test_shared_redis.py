"""A fleet whose state is on a server, and a rate limit in front of it, under a real master."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.apps import UNCACHED, Site, ask, reload, wait_until_ready
from tests.process.harness import WAIT_S, Fleet
from tests.shared.worlds import RedisServer

COUNTING = """
    import os
    from prefork.shared import AsyncCache, AsyncCounter

    pages, computed = AsyncCache("pages"), AsyncCounter("computed")

    async def make():
        await computed.add()
        return os.getpid()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    return
        number = await pages.increment("number")
        maker = await pages.get_or_set("maker", make)
        text = f"pid {os.getpid()} number {number} computed {await computed.get()} by {maker}"
        body = text.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    """

LIMITED = """
    from prefork.shared import RateLimitASGI, RateLimiter

    async def hello(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    app = RateLimitASGI(hello, RateLimiter("api", limit=5, window_s=3600))
    """


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A database of a real server."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = RedisServer()
    server.start()
    yield server.new_url()
    server.stop()


def whole_answer(fleet: Fleet) -> bytes:
    """Head and body of an answer, whatever it says."""
    with fleet.connect() as connection:
        connection.settimeout(WAIT_S)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def numbers_of_both(fleet: Fleet) -> list[int]:
    """Ask until two workers have answered; what they said is counted once and computed once."""
    pids, numbers = set(), []
    while len(pids) < 2:
        found = re.fullmatch(r"pid (\d+) number (\d+) computed 1 by (\d+)", ask(fleet))
        assert found
        pids.add(found[1])
        numbers.append(int(found[2]))
        assert len(numbers) < 500, "one worker answers all"
    return numbers


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_fleet_shares_what_is_on_a_server(
    fleet_of: Callable[..., Fleet], tmp_path: Path, redis_url: str, method: str
) -> None:
    """All workers, their successors after a kill, and those of the next generation."""
    site = Site(tmp_path)
    site.write(COUNTING)
    fleet = fleet_of(*site.serving("--shared", redis_url, "--start-method", method), env=UNCACHED)
    workers = wait_until_ready(fleet)
    numbers = numbers_of_both(fleet)
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for_workers(1, since=mark)
    numbers += numbers_of_both(fleet)
    reload(fleet)
    numbers += numbers_of_both(fleet)
    assert numbers == list(range(1, len(numbers) + 1))
    assert fleet.stop() == 0


@pytest.mark.parametrize("place", ["lmdb", "redis"])
def test_a_rate_limit_holds_for_all_workers_together(
    fleet_of: Callable[..., Fleet], tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    """Whichever worker is asked: five get through, the rest is told to come back."""
    url = request.getfixturevalue("redis_url") if place == "redis" else "lmdb://"
    site = Site(tmp_path)
    site.write(LIMITED)
    fleet = fleet_of(*site.serving("--shared", url), env=UNCACHED)
    wait_until_ready(fleet)
    answers = [whole_answer(fleet) for _ in range(20)]
    assert [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")] == answers[:5]
    for answer in answers[5:]:
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert re.search(rb"\r\nretry-after: \d+\r\n", answer)
    assert fleet.stop() == 0
