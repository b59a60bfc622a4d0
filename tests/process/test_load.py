"""The load counts what it should: a harness that overlooks a failure would prove anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.process.harness import free_port
from tests.process.load import ROOT, Load, Report, run_load
from tests.process.load_client import Target

Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npid 123"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def always(answer: bytes, *, closing: bool = False) -> Answerer:
    """A server that answers each request with these bytes, and closes after each where told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            if closing:
                return

    return serve


async def counted(answerer: Answerer, *, clients: int = 2, enough: int = 20, **options: object) -> Report:
    """Run load on a server of our own until `enough` requests have reached it; the report."""
    stop = asyncio.Event()
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        original = reader.readuntil

        async def readuntil(separator: bytes = b"\n") -> bytes:
            nonlocal asked
            head = await original(separator)
            asked += 1
            if asked >= enough:
                stop.set()
            return head

        reader.readuntil = readuntil  # type: ignore[method-assign,assignment]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has hung up
            await answerer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await run_load(f"http://127.0.0.1:{port}/", stop, clients=clients, **options)  # type: ignore[arg-type]


def is_balanced(report: Report) -> bool:
    return report.tried == report.answered + report.failed_count


def test_all_is_well_and_the_workers_are_known_by_their_pid() -> None:
    """A server that answers everything: no failure, one connection for the client that keeps it."""
    report = asyncio.run(counted(always(OK), clients=2, enough=50))
    assert report.failed == {}
    assert report.answered == report.tried >= 50
    assert report.workers == {"123": report.answered}
    fresh = report.connections - 1
    assert 0 < fresh < report.answered


def test_a_polite_close_is_no_failure() -> None:
    """`Connection: close` makes the keep-alive client open another connection, and nothing is lost."""
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    report = asyncio.run(counted(always(answer, closing=True)))
    assert report.failed == {}
    assert report.idle_closes == 0
    assert report.connections == report.answered


def test_a_silent_close_is_never_hidden() -> None:
    """A server that closes a kept connection unannounced is caught: by a failure, or by `idle_closes`."""
    report = asyncio.run(counted(always(OK, closing=True), enough=100))
    assert is_balanced(report)
    assert report.idle_closes + report.failed_count > 0
    assert all(failure["client"] == "keep-alive" for failure in report.failures)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status: 503"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status: 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot that much", "body: short"),
        (b"HTTP/1.1 200 OK\r\nContent-", "head: short"),
        (b"", "head: closed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "head: garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "head: garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore than two", "body: garbled"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "body: garbled"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "body: short"),
    ],
)
def test_each_bad_answer_is_counted_under_its_name(answer: bytes, kind: str) -> None:
    """Nothing that is not a whole, good answer passes for one."""
    report = asyncio.run(counted(always(answer, closing=True)))
    assert report.failed == {kind: report.tried}
    assert report.answered == 0
    assert report.failures[0]["kind"] == kind


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npid\r\n3;x=y\r\n=12\r\n1\r\n3\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\npid 123",
        b"HTTP/1.1 204 No Content\r\nX-Worker-Pid: 123\r\nConnection: close\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 12\r\n\r\n{"pid": 123}',
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n123\n",
    ],
)
def test_each_good_framing_is_read_to_its_end(answer: bytes) -> None:
    """Chunks with extensions and trailers, a body that ends with the connection, no body at all."""
    closing = b"chunked" not in answer
    report = asyncio.run(counted(always(answer, closing=closing)))
    assert report.failed == {}
    assert report.workers == {"123": report.answered}


def test_a_reset_in_the_middle_of_the_answer_is_counted() -> None:
    """The server resets half of the connections after half of the head: each reset is one failure."""
    resets = 0

    async def resets_every_other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal resets
        requests = 0
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            if requests > 2 or (resets % 2 == 0 and requests == 1):
                writer.write(b"HTTP/1.1 200 OK\r\n")
                await writer.drain()
                resets += 1
                reset(writer)
                return
            writer.write(OK)
            resets += 0 if requests == 1 else 1

    report = asyncio.run(counted(resets_every_other, clients=4, enough=40))
    assert is_balanced(report)
    assert report.failed["head: reset"] > 0
    assert set(report.failed) == {"head: reset"}


def test_a_refused_connection_is_counted() -> None:
    """Nobody listens: every try is a failure, and the clients do not spin on it."""

    async def story() -> Report:
        stop, started = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            url = f"http://127.0.0.1:{free_port()}/"
            load = group.create_task(run_load(url, stop, clients=4, started=started))
            await started.wait()
            stop.set()
        return load.result()

    report = asyncio.run(story())
    assert report.failed == {"connect: refused": report.tried}
    assert report.tried >= 4


def test_a_server_that_never_answers_is_a_timeout() -> None:
    """A hung worker is a failure after the request's time, not a hung test."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            pass

    report = asyncio.run(counted(silent, enough=2, timeout_s=1.0))
    assert report.failed == {"head: timeout": report.tried}


def test_an_answer_that_says_something_else_is_garbled() -> None:
    """With `expected`, a good frame around the wrong text is a failure."""
    report = asyncio.run(counted(always(OK), expected=b"another text"))
    assert report.failed == {"body: garbled": report.tried}


def test_only_the_first_failures_are_kept_in_detail() -> None:
    """All are counted; twenty are described, with the time since the start."""
    report = asyncio.run(counted(always(b""), enough=60, clients=8, timeout_s=0.02))
    assert report.failed_count > 20
    assert len(report.failures) == 20
    assert all(failure["at_s"] >= 0 for failure in report.failures)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "ftp://x", "127.0.0.1:80"])
def test_a_target_that_cannot_be_loaded_is_refused(url: str) -> None:
    """TLS and other schemes are an error, not a load of nothing."""
    with pytest.raises(ValueError, match="not a URL for load"):
        Target.parse(url)


# ------------------------------------------------------------------------------- in a process of its own


@pytest.fixture(params=["tcp", "unix"])
def served_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A good server in a thread of this process, over TCP and over a Unix socket."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    url = ""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client has hung up
            await always(OK)(reader, writer)
        writer.close()

    async def serve() -> None:
        nonlocal url
        if request.param == "unix":
            server = await asyncio.start_unix_server(handle, tmp_path / "sock")
            url = f"unix:{tmp_path / 'sock'}"
        else:
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server:
            ready.set()
            stop = asyncio.Event()
            ended.append(stop)
            await stop.wait()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    ended: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(45)
    yield url
    loop.call_soon_threadsafe(ended[0].set)
    thread.join(45)
    loop.close()


def test_load_from_its_own_process_runs_until_it_is_finished(served_url: str) -> None:
    """`start` returns under load, `finish` returns a report in which every client has its part."""
    with Load(served_url, clients=8).start() as load:
        report = load.finish()
    assert report.failed == {}
    assert report.answered == report.tried >= 8
    assert report.connections >= 8
    assert load.finish() is report


def test_an_abandoned_load_ends_by_itself(served_url: str) -> None:
    """When the test that started it is gone, and its end of the pipe with it, the load ends."""
    load = Load(served_url, clients=2).start()
    popen = load._popen
    assert popen is not None
    assert popen.stdin is not None
    popen.stdin.close()
    assert popen.wait(45) == 0
    load.close()


def test_the_command_prints_one_report(served_url: str) -> None:
    """As a benchmark runs it: a duration, one line of JSON."""
    command = [sys.executable, "-m", "tests.process.load", served_url, "--clients", "4", "--seconds", "0.2"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=True
    )
    report = Report.from_json(ended.stdout)
    assert report.failed == {}
    assert report.seconds >= 0.2
