"""Clients as they are, against our own server by ASGI, by WSGI in threads, and by WSGI on the loop's thread."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.ecosystem.apps.http_rig import WORKERS, client_of, serving
from tests.process.harness import WAIT_S, Fleet, wait_until

WAYS = {
    "asgi": ("http_plain:asgi",),
    "wsgi": ("http_plain:wsgi",),
    "wsgi-inline": ("http_plain:wsgi", "--threads", "1"),
}
MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture(scope="module", params=WAYS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with serving(*WAYS[request.param]) as served:
        yield served


def program(name: str) -> str:
    """Where it is; the test is left out where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# -- httpx, requests, aiohttp, http.client -------------------------------------------------------------


def test_httpx(fleet: Fleet) -> None:
    """Both ways, with lengths and in chunks, on kept connections."""
    with client_of(fleet) as client:
        assert client.post("/echo", content=MEGABYTE).content == MEGABYTE
        assert client.post("/echo", content=iter([MEGABYTE] * 2)).content == MEGABYTE * 2
        assert client.get("/bytes/1000000").content == bytes(1_000_000)
        assert client.get("/chunks/1000000").content == bytes(1_000_000)
        assert client.get("/é%20x?a=b%20c").json()["path"] == "/é x"
        assert client.head("/bytes/1000").headers["content-length"] == "1000"
        with client.stream("GET", "/chunks/10000000") as response:
            assert next(response.iter_bytes())
        assert client.get("/pid").status_code == 200


def test_one_connection_carries_many_requests(fleet: Fleet) -> None:
    """Two thousand requests of all methods on one connection: one worker, and never another connection."""
    limits = httpx.Limits(max_connections=1)
    with client_of(fleet, limits=limits) as client:
        opened: list[str] = []

        def trace(name: str, _info: object) -> None:
            if name == "connection.connect_tcp.complete":
                opened.append(name)

        pids = set()
        for number in range(500):
            pids.add(client.get("/pid", extensions={"trace": trace}).text)
            body = b"x" * number
            assert client.post("/echo", content=body, extensions={"trace": trace}).content == body
            assert client.head("/pid", extensions={"trace": trace}).content == b""
            assert client.get(f"/chunks/{number}", extensions={"trace": trace}).content == bytes(number)
        assert (len(pids), len(opened)) == (1, 1)


def test_requests(fleet: Fleet) -> None:
    """By urllib3: JSON, a form, a generator, a session."""
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(3):
            answer = session.post(f"{fleet.url}/x", json={"a": "é"}, timeout=WAIT_S).json()
            assert (answer["method"], answer["size"]) == ("POST", 15)
            assert session.put(f"{fleet.url}/echo", data=MEGABYTE, timeout=WAIT_S).content == MEGABYTE
            assert session.post(f"{fleet.url}/echo", data=iter([b"a", b"b"]), timeout=WAIT_S).content == b"ab"
            assert session.delete(f"{fleet.url}/x", timeout=WAIT_S).json()["method"] == "DELETE"


def test_aiohttp(fleet: Fleet) -> None:
    """Fifty at once, streamed both ways; `expect100`, which waits to be asked."""

    async def pieces() -> object:
        for _ in range(16):
            yield MEGABYTE[:65536]
            await asyncio.sleep(0)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        async with session.post("/echo", data=str(number)) as response:
            assert await response.text() == str(number)

    async def story() -> None:
        timeout = aiohttp.ClientTimeout(total=90)
        async with aiohttp.ClientSession(fleet.url, timeout=timeout) as session:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(one(session, number))
            async with session.post("/echo", data=pieces()) as response:
                assert await response.read() == MEGABYTE
            async with session.post("/echo", data=MEGABYTE, expect100=True) as response:
                assert await response.read() == MEGABYTE
            async with session.get("/chunks/1000000") as response:
                assert len(await response.read()) == 1_000_000

    asyncio.run(story())


def test_the_standard_library(fleet: Fleet) -> None:
    """http.client: chunked both ways on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=WAIT_S)
    for _ in range(3):
        connection.request("POST", "/echo", body=iter([b"a", b"b"]), encode_chunked=True)
        assert connection.getresponse().read() == b"ab"
        connection.request("GET", "/chunks/100000")
        assert connection.getresponse().read() == bytes(100_000)
    connection.close()


def test_a_pipeline(fleet: Fleet) -> None:
    """Two hundred requests written at once are answered in their order."""
    bodies = [b"%d," % number * number for number in range(200)]
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with fleet.connect() as client, client.makefile("rb") as stream, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(client.sendall, b"".join(head % len(body) + body for body in bodies))
        for body in bodies:
            assert stream.readline().split()[1] == b"200"
            fields = iter(stream.readline, b"\r\n")
            lengths = [int(line[15:]) for line in fields if line.lower().startswith(b"content-length:")]
            assert stream.read(lengths[0]) == body
        writing.result()


# -- curl ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curl:
    """What curl has printed: the answer's head (the last, if there are several), and its body."""

    heads: list[str]
    body: bytes
    connects: int
    """How many connections it has opened."""


@pytest.fixture
def curl(fleet: Fleet, tmp_path: Path) -> Callable[..., Curl]:
    """`curl("/path", *flags, content=…)`: run it once, for the fleet."""

    def run(*arguments: str, content: bytes = b"") -> Curl:
        urls = [fleet.url + each if each.startswith("/") else each for each in arguments]
        command = [program("curl"), "-q", "-sS", "--noproxy", "*", "--max-time", "60", "-D", "heads"]
        told = ["-o", "body", "-w", "%{num_connects}\\n", *urls]
        (tmp_path / "body").write_bytes(b"")
        ended = subprocess.run(
            [*command, *told], input=content, capture_output=True, cwd=tmp_path, timeout=90, check=False
        )
        assert ended.returncode == 0, ended.stderr.decode()
        heads = (tmp_path / "heads").read_bytes().decode().split("\r\n\r\n")[:-1]
        return Curl(heads, (tmp_path / "body").read_bytes(), sum(map(int, ended.stdout.split())))

    return run


def test_curl_keeps_its_connection(curl: Callable[..., Curl]) -> None:
    """Three requests by one curl are one connection."""
    found = curl("/pid", "-o", "2", "/pid", "-o", "3", "/pid")
    assert (len(found.heads), found.connects) == (3, 1)


def test_curl_of_http_1_0(curl: Callable[..., Curl]) -> None:
    """No chunks, and the close tells the end; it may ask for keep-alive."""
    found = curl("--http1.0", "/chunks/100000")
    assert found.body == bytes(100_000)
    assert "transfer-encoding" not in found.heads[0].lower()
    kept = curl("--http1.0", "-H", "Connection: keep-alive", "/pid", "-o", "2", "/pid")
    assert kept.connects == 1


def test_curl_expects_100(curl: Callable[..., Curl]) -> None:
    """A large upload waits for its 100; then it comes back whole."""
    found = curl(
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "45",
        "--data-binary",
        "@-",
        "/echo",
        content=MEGABYTE * 2,
    )
    assert found.body == MEGABYTE * 2
    assert [head.split()[1] for head in found.heads] == ["100", "200"]


def test_curl_uploads_in_chunks(curl: Callable[..., Curl]) -> None:
    flags = ("-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@-")
    assert curl(*flags, "/echo", content=MEGABYTE).body == MEGABYTE
    assert curl("-T", "-", "/echo", content=MEGABYTE).body == MEGABYTE


def test_curl_head_and_range(curl: Callable[..., Curl]) -> None:
    """-I gets the head alone; a range reaches the application, whose 206 comes back."""
    found = curl("-I", "/bytes/1000")
    assert "content-length: 1000" in found.heads[0].lower()
    part = curl("-r", "10-19", "/range")
    assert (part.heads[0].split()[1], part.body) == ("206", bytes(range(10, 20)))


def test_curl_path_as_is(curl: Callable[..., Curl]) -> None:
    """Dots are the application's to understand."""
    found = json.loads(curl("--path-as-is", "/a/../b/./c//d?x=%2e").body)
    assert (found["path"], found["query"]) == ("/a/../b/./c//d", "x=%2e")


def test_curl_sends_cookies_and_many_headers(curl: Callable[..., Curl]) -> None:
    many = [flag for number in range(80) for flag in ("-H", f"X-N{number}: {number}")]
    found = json.loads(curl("-b", "a=b; c=d", *many, "/x").body)["headers"]
    assert (found["cookie"], found["x-n79"]) == ("a=b; c=d", "79")


@pytest.mark.parametrize("way", WAYS)
def test_curl_over_a_unix_socket(way: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(*WAYS[way], bind=f"unix:{path}"):
        command = [program("curl"), "-q", "-sS", "--unix-socket", str(path), "http://any/echo", "-d", "hello"]
        assert subprocess.run(command, capture_output=True, timeout=90, check=True).stdout == b"hello"


# -- load generators -----------------------------------------------------------------------------------


def test_wrk_sees_no_error(fleet: Fleet) -> None:
    """Sixty-four connections for two seconds."""
    command = [program("wrk"), "-t2", "-c64", "-d2s", "--timeout", "40s", f"{fleet.url}/pid"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 100
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


def test_h2load_sees_no_error(fleet: Fleet) -> None:
    """HTTP/1.1, sixteen deep."""
    command = [program("h2load"), "--h1", "-n3000", "-c16", "-m16", f"{fleet.url}/bytes/5000"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in said


# -- websockets ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sockets() -> Iterator[Fleet]:
    with serving("http_plain:asgi", "--message-bytes", "2000000") as served:
        yield served


def dial(sockets: Fleet, **options: object) -> connect:
    return connect(sockets.url.replace("http:", "ws:"), proxy=None, max_size=None, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets(sockets: Fleet, compression: str | None) -> None:
    """Text, bytes, fragments, pings; compressed, if the client offers it."""
    with dial(sockets, compression=compression) as socket:
        assert socket.response is not None
        agreed = "permessage-deflate" in socket.response.headers.get("sec-websocket-extensions", "")
        assert agreed is (compression == "deflate")
        for message in ("", "é" * 100_000, b"", MEGABYTE, '{"a": "b"}' * 1000):
            socket.send(message)
            assert socket.recv() == message
        socket.send(iter(["frag", "ments", " é"]))
        assert socket.recv() == "fragments é"
        assert socket.ping(b"x").wait(WAIT_S)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_websockets_close_codes(sockets: Fleet, code: int) -> None:
    """Told by the application, and by the client."""
    with dial(sockets) as socket:
        socket.send(f"close {code}")
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert (socket.close_code, socket.close_reason) == (code, "as told")
    with dial(sockets) as socket:
        socket.close(code, "mine")
        assert socket.protocol.close_rcvd is not None
        assert socket.protocol.close_rcvd.code == code


def test_a_message_beyond_the_limit_is_1009(sockets: Fleet) -> None:
    with dial(sockets, compression=None) as socket:
        socket.send(bytes(2_000_000))
        assert socket.recv() == bytes(2_000_000)
        with contextlib.suppress(ConnectionClosed):  # it may be told in the midst of it
            socket.send(bytes(2_000_001))
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert socket.close_code == 1009


def test_aiohttp_as_websocket_client(sockets: Fleet) -> None:
    async def story() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(sockets.url, compress=15, max_msg_size=0) as socket,
        ):
            for size in (0, 10, 1000, 1_000_000):
                await socket.send_str("x" * size)
                assert await socket.receive_str() == "x" * size
                await socket.send_bytes(bytes(size))
                assert await socket.receive_bytes() == bytes(size)
            await socket.close(code=4000)
            assert socket.close_code == 4000

    asyncio.run(story())


# -- reload and stop -----------------------------------------------------------------------------------


@dataclass
class Asker:
    """Asks on kept connections, as fast as it is answered, until there is nobody to connect to."""

    answered: int = 0
    pids: set[str] = field(default_factory=set)
    failed: list[Exception] = field(default_factory=list)

    def run(self, fleet: Fleet, is_stopping: threading.Event) -> None:
        opened: list[str] = []
        with client_of(fleet) as client:
            while True:
                opened.clear()
                try:
                    answer = client.post(
                        "/pid", content=b"x" * 1000, extensions={"trace": lambda name, _: opened.append(name)}
                    )
                except Exception as error:
                    # What was still in the queue of a listener that is closed is reset by the kernel: as good as refused.
                    is_fresh = "connection.connect_tcp.started" in opened
                    if not (is_stopping.is_set() and is_fresh):
                        self.failed.append(error)
                    return
                assert answer.status_code == 200
                self.answered += 1
                self.pids.add(answer.text)


@pytest.mark.parametrize("way", WAYS)
def test_no_request_fails_across_reloads_and_a_stop(way: str) -> None:
    """Eight clients that reuse their connections through two HUPs and a TERM."""
    is_stopping = threading.Event()
    with serving(*WAYS[way]) as fleet, ThreadPoolExecutor(8) as pool:
        askers = [Asker() for _ in range(8)]
        runs = [pool.submit(asker.run, fleet, is_stopping) for asker in askers]

        def seen() -> set[int]:
            return {int(pid) for asker in askers for pid in asker.pids}

        try:
            for _ in range(2):
                wait_until(lambda: seen() & set(fleet.workers()), "answers of this generation")
                mark = fleet.mark()
                fleet.signal(signal.SIGHUP)
                fleet.wait_for_workers(WORKERS, since=mark)
                fleet.wait_for_all(r"stopped: exit status 0", WORKERS, since=mark)
            wait_until(
                lambda: all(asker.answered > 10 or asker.failed for asker in askers), "all have had answers"
            )
        finally:
            is_stopping.set()
            status = fleet.stop()
        for run in runs:
            run.result()
    assert status == 0
    assert [asker.failed for asker in askers] == [[]] * 8
    assert len(seen()) >= 2
