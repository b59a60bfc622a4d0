"""Clients as they are, against our own server by ASGI, by WSGI in threads, and by WSGI on the loop's thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from tests.ecosystem.apps.http_rig import client_of, serving
from tests.process.harness import Fleet

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
    """requests over urllib3: JSON, a form, a generator, a session."""
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(3):
            answer = session.post(f"{fleet.url}/x", json={"a": "é"}, timeout=20).json()
            assert (answer["method"], answer["size"]) == ("POST", 15)
            assert session.put(f"{fleet.url}/echo", data=MEGABYTE, timeout=20).content == MEGABYTE
            assert session.post(f"{fleet.url}/echo", data=iter([b"a", b"b"]), timeout=20).content == b"ab"
            assert session.delete(f"{fleet.url}/x", timeout=20).json()["method"] == "DELETE"


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
        timeout = aiohttp.ClientTimeout(total=30)
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


def test_http_client_and_a_pipeline(fleet: Fleet) -> None:
    """The standard library's client; then sixteen requests written at once, answered in their order."""
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=20)
    for _ in range(3):
        connection.request("POST", "/echo", body=iter([b"a", b"b"]), encode_chunked=True)
        assert connection.getresponse().read() == b"ab"
    connection.close()
    with fleet.connect() as client:
        bodies = [b"%d" % number * number for number in range(16)]
        client.sendall(
            b"".join(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                for body in bodies
            )
        )
        for body in bodies:
            response = http.client.HTTPResponse(client, method="POST")
            fresh = client.makefile("rb") if not hasattr(client, "_shared") else None
            response.fp = fresh or response.fp
            response.close()
            break
    assert pipelined(fleet, bodies) == bodies


def pipelined(fleet: Fleet, bodies: list[bytes]) -> list[bytes]:
    """What comes back for all of them, written at once."""
    with fleet.connect() as client, client.makefile("rb") as stream:
        client.sendall(
            b"".join(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                for body in bodies
            )
        )
        found = []
        for _ in bodies:
            assert stream.readline() .split()[1] == b"200"
            length = 0
            while (line := stream.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split()[1])
            found.append(stream.read(length))
        return found
