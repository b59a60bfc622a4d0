"""Promise 8: a worker whose loop is blocked is found, shown and replaced; and nobody else is taken for one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import GOOD, UNCACHED, Request, Site, answering_pid, ask, serving, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.load import Load

TIMEOUT_S = 2.0
MACHINE_S = 10.0
"""The share of a machine with much else to do."""
TIMEOUT = ("--hang-timeout", str(TIMEOUT_S))
HUNG = r"worker (\d+) \(pid (\d+), generation 1\) is hung"
GONE = r"worker \d+ \(pid {pid}, generation 1\) was hung, and is gone: killed by signal 9"
SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])

IN_C = """
    import hashlib

    async def app(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/hang":
            print("hanging", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # no byte code runs, and no signal's handler
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    """

INLINE = """
    import os, time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/hang":
            print("hanging pid", os.getpid(), flush=True)
            time.sleep(1000)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    """

LATER = """
    import asyncio, time

    async def app(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/later":
            await asyncio.sleep(4)  # longer than a worker's clock ticks for what does not wake it
            print("hanging", flush=True)
            time.sleep(1000)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    """

SLOW_IMPORT = "import time\ntime.sleep(5)\n"


BESIDE = """
    import asyncio, time

    async def app(scope, receive, send):
        if scope["path"] == "/waits":
            print("waiting", flush=True)
            await asyncio.sleep(1000)
        elif scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.sleep(0)  # until it is written
        if scope["path"] != "/":
            print("hanging", flush=True)
            time.sleep(1000)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    """

CALLS = """
    import re, socket, threading

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path != "/":
            print("hanging", flush=True)
        if path == "/loop":
            while True:
                pass
        elif path == "/regex":
            re.match(r"(a+)+$", "a" * 100 + "b")
        elif path == "/lock":
            threading.Lock().acquire() and threading.Semaphore(0).acquire()
        elif path == "/socket":
            pair = socket.socketpair()
            pair[0].recv(1)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    """


def raw(connection: socket.socket, path: str, method: str = "GET") -> bytes:
    """Send one request that would keep its connection, and read all that ever comes back."""
    connection.settimeout(WAIT_S)
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    received = b""
    with connection, contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    return received


def hang(fleet: Fleet, path: str = "/hang") -> Request:
    """A request that blocks its worker; it has begun to when this returns."""
    request = Request(fleet.connect(), path).send()
    fleet.wait_for("hanging")
    return request


@SHARING
def test_it_is_shown_and_replaced_within_its_time_out_and_a_second(
    fleet_of: Callable[..., Fleet], sharing: tuple[str, ...]
) -> None:
    """With its stack and its request in the log; the others serve on, and so does its successor."""
    fleet = fleet_of(*serving("web", *TIMEOUT, *sharing))
    workers = wait_until_ready(fleet)
    began_s = time.monotonic()
    hang(fleet)
    found = fleet.wait_for(HUNG)
    pid = int(found[2])
    assert pid in workers
    fleet.wait_for(rf"worker {found[1]} \(pid (?!{pid}\b)\d+, generation 1\) ready", since=0)
    assert time.monotonic() - began_s < TIMEOUT_S + 1 + MACHINE_S
    fleet.wait_for(GONE.format(pid=pid), since=0)
    fleet.wait_for(r"request: GET '/hang', for \d+ s: the loop is at it", since=0)
    fleet.wait_for(r"time\.sleep\(1000\)", since=0)
    assert pid not in fleet.workers()
    assert ask(fleet)
    assert fleet.stop() == 0


def test_one_that_is_stuck_in_c_is_shown_by_the_c_library(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    """No handler of Python's ever runs there."""
    site = Site(tmp_path)
    site.write(IN_C)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--lifespan", "off"), env=UNCACHED)
    wait_until_ready(fleet)
    hang(fleet)
    fleet.wait_for(HUNG)
    fleet.wait_for("does not answer, its interpreter is stuck", since=0)
    fleet.wait_for("was hung, and is gone: killed by signal 9", since=0)
    assert fleet.find_all(r'File ".*site_app\.py", line 7 in app'), fleet.output
    assert fleet.stop() == 0


def test_a_wsgi_handler_on_the_loop_is_such_a_case(tmp_path: Path, fleet_of: Callable[..., Fleet]) -> None:
    """`--threads 1`: nothing else can end it."""
    site = Site(tmp_path)
    site.write(INLINE)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--threads", "1"), env=UNCACHED)
    wait_until_ready(fleet)
    hang(fleet)
    fleet.wait_for(HUNG)
    fleet.wait_for("request: GET '/hang', for", since=0)
    fleet.wait_for("was hung, and is gone: killed by signal 9", since=0)
    assert fleet.stop() == 0


def test_one_that_blocks_after_a_long_wait_is_found_too(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    """A worker is not at rest while a request waits in it."""
    site = Site(tmp_path)
    site.write(LATER)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--lifespan", "off"), env=UNCACHED)
    wait_until_ready(fleet)
    hang(fleet, "/later")
    fleet.wait_for(HUNG)
    fleet.wait_for(r"request: GET '/later', for \d+ s: the loop is at it", since=0)
    assert fleet.stop() == 0


@pytest.mark.parametrize("path", ["/loop", "/regex", "/lock", "/socket"])
def test_the_client_whose_request_hung_gets_504(
    tmp_path: Path, fleet_of: Callable[..., Fleet], path: str
) -> None:
    """From whatever looks for signals: the loop turns no more, and its worker is killed behind it."""
    site = Site(tmp_path)
    site.write(CALLS)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--threads", "1"), env=UNCACHED)
    wait_until_ready(fleet)
    head, _, body = raw(fleet.connect(), path).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504 Gateway Timeout\r\ndate: "), head
    assert b"\r\nconnection: close" in head
    assert body == b"504 Gateway Timeout\n"
    fleet.wait_for("was hung, and is gone: killed by signal 9", since=0)
    assert fleet.stop() == 0


def test_its_neighbours_get_nothing_which_is_repeated_elsewhere(
    tmp_path: Path, fleet_of: Callable[..., Fleet]
) -> None:
    """A proxy takes an answer for the last word; of a closed connection it asks another worker."""
    site = Site(tmp_path)
    site.write(BESIDE)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--lifespan", "off", workers=1), env=UNCACHED)
    wait_until_ready(fleet, 1)
    neighbour = Request(fleet.connect(), "/waits").send()
    fleet.wait_for("waiting")
    assert raw(fleet.connect(), "/hang", "HEAD").endswith(b"connection: close\r\n\r\n")
    assert not neighbour.answer()
    assert fleet.stop() == 0


def test_an_answer_that_has_begun_is_only_cut_off(tmp_path: Path, fleet_of: Callable[..., Fleet]) -> None:
    """A second head in the midst of a body would be read as part of it."""
    site = Site(tmp_path)
    site.write(BESIDE)
    fleet = fleet_of(*site.serving(*TIMEOUT, "--lifespan", "off"), env=UNCACHED)
    wait_until_ready(fleet)
    received = raw(fleet.connect(), "/begun")
    assert received.endswith(b"\r\n\r\n4\r\nhalf\r\n"), received
    assert fleet.stop() == 0


def test_a_slow_import_is_no_hang(tmp_path: Path, fleet_of: Callable[..., Fleet]) -> None:
    """Its bound is the boot time-out; and the old code serves meanwhile, busily."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving("--hang-timeout", "2"), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(SLOW_IMPORT + textwrap.dedent(GOOD))
    assert ask(fleet)
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload done", timeout_s=30)
    assert not fleet.find_all("hung")
    assert fleet.stop() == 0


@pytest.mark.slow
def test_a_fleet_that_was_stopped_blames_nobody(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]
) -> None:
    """All of it, for longer than the time-out, in the midst of work: a container that was frozen."""
    fleet = fleet_of(*serving("web", "--hang-timeout", "2"))
    workers = wait_until_ready(fleet)
    load_on(fleet.url, clients=4)
    everybody = [fleet.pid, *workers]
    for pid in everybody:
        fleet.kill(pid, signal.SIGSTOP)
    for pid in everybody:
        wait_until(lambda pid=pid: procfs.state(pid) == "T", "it is stopped")
    # Time is the matter of this test: the time-out has to pass while nobody runs.
    threading.Event().wait(5)
    for pid in everybody:
        fleet.kill(pid, signal.SIGCONT)
    for _ in range(20):
        assert answering_pid(fleet) in workers
    threading.Event().wait(3)  # and once more while everybody does
    assert not fleet.find_all("hung")
    assert set(fleet.workers()) == set(workers)
    assert fleet.stop() == 0


def test_switched_off_nobody_is_found(fleet_of: Callable[..., Fleet]) -> None:
    """Of two that block, the one is found that is watched."""
    unwatched = fleet_of(*serving("web", "--hang-timeout", "inf"))
    watched = fleet_of(*serving("web", "--hang-timeout", "1"))
    for fleet in (unwatched, watched):
        wait_until_ready(fleet)
        hang(fleet)
    watched.wait_for("was hung, and is gone")
    assert not unwatched.find_all("hung")
    assert unwatched.stop(signal.SIGQUIT) == 0


def test_a_request_that_takes_too_long_gets_504(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """By the command's option; the worker stays."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    fleet = fleet_of(*serving("web", "--request-timeout", "1"))
    workers = wait_until_ready(fleet)
    with fleet.connect() as connection:
        connection.settimeout(30)
        connection.sendall(f"GET /hold?{pipe} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        fleet.wait_for("holding")
        answer = bytearray()
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    fleet.wait_for(r"timed out after \d+ s: GET '/hold'", since=0)
    assert set(fleet.workers()) == set(workers)
    pipe.write_bytes(b"go on")  # its thread cannot be ended
    assert fleet.stop() == 0
