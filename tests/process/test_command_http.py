"""Every option of our HTTP server from the command line: it has its effect, and a wrong value is refused in one line."""

from __future__ import annotations

import base64
import json
import re
import socket
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1, Signals

import pytest

from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from tests.process.apps import Site, serving, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, free_port, wait_until

Start = Callable[..., Fleet]

APP = """
    import asyncio, json, os, sys

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            sys.stderr.write("lifespan begins\\n")
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/endless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            except OSError:
                sys.stderr.write("the endless one was left\\n")
                return
        if scope["path"].endswith("/hold"):
            sys.stderr.write("holding\\n")
            while not os.path.exists(scope["query_string"].decode()):
                await asyncio.sleep(0.01)
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        told = {name: scope[name] for name in ("client", "scheme", "root_path", "path")}
        hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
        body = json.dumps(told | {"size": size, "hosts": hosts, "pid": os.getpid()}).encode()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
    """
UNWILLING = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})
    """
WSGI = """
    import json, threading

    together = threading.Barrier(2)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/together":
            together.wait(45)
        name = "main" if threading.current_thread() is threading.main_thread() else "another"
        body = json.dumps({"thread": name}).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """


@pytest.fixture
def started(fleet_of: Start, tmp_path: Path) -> Start:
    """`started("--head-bytes", "100")`: a fleet of one worker that serves `APP`, ready."""

    def start(*words: str, source: str = APP, workers: int = 1) -> Fleet:
        site = Site(tmp_path)
        site.write(source)
        fleet = fleet_of(*site.serving(*words, workers=workers))
        wait_until_ready(fleet, workers)
        return fleet

    return start


def request(extra: str = "", path: str = "/", method: str = "GET", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{extra}\r\n"
    return head.encode() + body


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes, in whichever way."""
    received = bytearray()
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def is_reset(connection: socket.socket) -> bool:
    """Whether the server cuts the connection, rather than ends it."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def answer(fleet: Fleet, raw: bytes) -> bytes:
    """All that comes back on a fresh connection."""
    with fleet.connect() as connection:
        connection.sendall(raw)
        return read_all(connection)


def status(fleet: Fleet, raw: bytes) -> int:
    return int(answer(fleet, raw).partition(b" ")[2][:3])


def told(fleet: Fleet, extra: str = "", path: str = "/", preface: bytes = b"") -> dict[str, object]:
    """What the application was told of a request."""
    found: dict[str, object] = json.loads(
        answer(fleet, preface + request(extra, path)).partition(b"\r\n\r\n")[2]
    )
    return found


# -- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_wsgi", [True, False])
def test_limits_of_size(started: Start, *, is_wsgi: bool) -> None:
    """Each has its status; what just fits is served."""
    words = ("--head-bytes", "2000", "--header-count", "10", "--target-bytes", "300", "--body-bytes", "1000")
    fleet = started(*words, source=WSGI if is_wsgi else APP)
    length = "Content-Length: {}\r\n"
    assert status(fleet, request("A: b\r\n" * 8)) == 200
    assert status(fleet, request("A: b\r\n" * 9)) == 431
    assert status(fleet, request("A: " + "b" * 1500 + "\r\n")) == 200
    assert status(fleet, request("A: " + "b" * 2000 + "\r\n")) == 431
    assert status(fleet, request(path="/" + "a" * 299)) == 200
    assert status(fleet, request(path="/" + "a" * 300)) == 414
    assert status(fleet, request(length.format(1000), method="POST", body=b"x" * 1000)) == 200
    assert status(fleet, request(length.format(1001), method="POST", body=b"x" * 1001)) == 413


def test_limits_of_patience(started: Start) -> None:
    """Half a head and half a body are answered with 408, an idle connection is closed without a word."""
    fleet = started("--head-timeout", "3", "--body-timeout", "4", "--keep-alive", "2")
    kept = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    with fleet.connect() as head, fleet.connect() as body, fleet.connect() as idle, fleet.connect() as silent:
        head.sendall(b"GET / HT")
        body.sendall(request("Content-Length: 10\r\n", method="POST", body=b"half"))
        idle.sendall(kept)
        assert read_all(head).startswith(b"HTTP/1.1 408 ")
        assert read_all(body).startswith(b"HTTP/1.1 408 ")
        assert read_all(idle).count(b"HTTP/1.1 200 ") == 1
        assert read_all(silent) == b""


def test_a_limit_of_patience_with_who_does_not_read(started: Start) -> None:
    fleet = started("--send-timeout", "1")
    with fleet.connect() as connection:
        connection.sendall(request(path="/endless"))
        fleet.wait_for("the endless one was left")
        assert is_reset(connection)


def test_a_limit_of_connections(started: Start) -> None:
    """Those above it wait, and are served when one has left; nobody is reset."""
    fleet = started("--connections", "2")
    kept = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    first, second = fleet.connect(), fleet.connect()
    with second:
        for each in (first, second):
            each.sendall(kept)
            assert each.recv(65536)
        with fleet.connect() as third:
            third.sendall(kept)
            third.settimeout(0.5)
            with pytest.raises(TimeoutError):
                third.recv(1)
            third.settimeout(WAIT_S)
            first.close()
            assert third.recv(65536).startswith(b"HTTP/1.1 200 ")


def handshake(fleet: Fleet) -> socket.socket:
    """A WebSocket."""
    connection = fleet.connect()
    key = base64.b64encode(b"0123456789abcdef").decode()
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection


def text_frame(size: int) -> bytes:
    """Masked, with a mask that changes nothing."""
    assert 126 <= size < 2**16
    return b"\x81\xfe" + size.to_bytes(2) + bytes(4) + b"x" * size


def test_a_limit_of_messages(started: Start) -> None:
    """Closed with 1009."""
    fleet = started("--message-bytes", "200")
    with handshake(fleet) as connection:
        connection.sendall(text_frame(200) + text_frame(201))
        frame = connection.recv(4)
    assert frame[0] == 0x88
    assert int.from_bytes(frame[2:4]) == 1009


def test_pings(started: Start) -> None:
    """After a second of silence; who does not answer is closed with 1011."""
    fleet = started("--ping-interval", "1")
    with handshake(fleet) as connection:
        first = connection.recv(2)
        assert first[0] == 0x89
        connection.recv(first[1])
        close = connection.recv(4)
    assert close[0] == 0x88
    assert int.from_bytes(close[2:4]) == 1011


# -- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--lifespan", "auto"), ("--lifespan", "on"), ("--lifespan", "off")])
def test_lifespan(started: Start, words: tuple[str, ...]) -> None:
    """Run, unless it is off."""
    fleet = started(*words)
    assert told(fleet)["path"] == "/"
    assert fleet.stop() == 0
    assert bool(fleet.find_all("lifespan begins")) == ("off" not in words)


def test_an_application_without_lifespan(fleet_of: Start, started: Start, tmp_path: Path) -> None:
    """Served, unless lifespan is asked for: then it cannot be started."""
    assert b"served" in answer(started(source=UNWILLING), request())
    fleet = fleet_of(*WrittenSite(tmp_path).serving("--lifespan", "on", workers=1))
    assert fleet.wait() == 3
    assert "AssertionError" in fleet.output


class WrittenSite(Site):
    """A site whose module is there already."""

    def write_good(self, version: str = "first") -> None:
        """Leave it as it is."""


def test_a_root_path(started: Start) -> None:
    found = told(started("--root-path", "/api"), path="/items")
    assert (found["root_path"], found["path"]) == ("/api", "/api/items")


@pytest.mark.parametrize(("threads", "expected"), [("1", "main"), ("2", "another")])
def test_threads(started: Start, threads: str, expected: str) -> None:
    """1: the worker's own. 2: two requests at once."""
    fleet = started("--threads", threads, source=WSGI)
    assert told(fleet)["thread"] == expected
    if threads == "2":
        with fleet.connect() as one, fleet.connect() as two:
            for each in (one, two):
                each.sendall(request(path="/together"))
            assert b"another" in read_all(one)
            assert b"another" in read_all(two)


@pytest.mark.parametrize(
    ("words", "client", "scheme", "host"),
    [
        ((), "1.1.1.1", "https", "test"),
        (("--trusted-proxies", "127.0.0.0/8"), "1.1.1.1", "https", "test"),
        (("--trusted-proxies", ""), "127.0.0.1", "http", "test"),
        (("--trusted-proxies", "10.0.0.1,unix", "--forwarded-host"), "127.0.0.1", "http", "test"),
        (("--forwarded-by", "forwarded"), "2.2.2.2", "http", "test"),
        (("--forwarded-by", "x-forwarded"), "1.1.1.1", "https", "test"),
        (("--forwarded-host",), "1.1.1.1", "https", "b"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_proxies(started: Start, words: tuple[str, ...], client: str, scheme: str, host: str) -> None:
    """Whose word is taken, by which headers, and on what."""
    said = (
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n"
        "Forwarded: for=2.2.2.2;proto=http;host=c\r\n"
    )
    found = told(started(*words), said)
    assert isinstance(found["client"], list)
    assert (found["client"][0], found["scheme"], found["hosts"]) == (client, scheme, [host])


def test_the_proxy_protocol(started: Start) -> None:
    """Every connection begins with it; one that does not is not served."""
    fleet = started("--proxy-protocol")
    preface = b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n"
    assert told(fleet, preface=preface)["client"] == ["1.2.3.4", 1111]
    assert b"200 OK" not in answer(fleet, request())


def test_the_proxy_protocol_from_anybody(started: Start) -> None:
    fleet = started("--proxy-protocol", "--trusted-proxies", "10.0.0.1")
    assert b"200 OK" not in answer(fleet, b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n" + request())


# -- the access log -----------------------------------------------------------------------------------

LINES = {
    "common": r'^127\.0\.0\.1 - - \[[^]]+\] "GET /(\w+) HTTP/1\.1" 200 \d+$',
    "combined": r'^127\.0\.0\.1 - - \[[^]]+\] "GET /(\w+) HTTP/1\.1" 200 \d+ "-" "-"$',
    "json": r'^\{"time":.*"target":"/(\w+)".*"status":200.*\}$',
}


def logged(text: str, form: str = "combined") -> list[str]:
    """The paths of the lines of an access log."""
    return re.findall(LINES[form], text, re.MULTILINE)


@pytest.mark.parametrize("form", [None, *LINES])
def test_an_access_log_in_a_file(started: Start, tmp_path: Path, form: str | None) -> None:
    """One line for each request of each worker, all of them there when the fleet has stopped."""
    log = tmp_path / "access"
    words = () if form is None else ("--access-log-format", form)
    fleet = started("--access-log", str(log), *words, workers=2)
    for number in range(20):
        told(fleet, path=f"/n{number}")
    assert fleet.stop() == 0
    assert sorted(logged(log.read_text(), form or "combined")) == sorted(f"n{number}" for number in range(20))
    assert not fleet.find_all("GET /n")


def test_an_access_log_on_standard_output(started: Start) -> None:
    fleet = started("--access-log", "-", "--access-log-format", "common")
    told(fleet, path="/here")
    fleet.wait_for(LINES["common"])


def test_no_access_log(started: Start) -> None:
    fleet = started()
    told(fleet, path="/here")
    assert fleet.stop() == 0
    assert "/here" not in fleet.output


def test_an_access_log_that_is_moved_away(started: Start, tmp_path: Path) -> None:
    """USR1: every worker goes on in a new file, and no line is lost."""
    log, old = tmp_path / "access", tmp_path / "access.1"
    fleet = started("--access-log", str(log), workers=2)
    asked = []

    def ask_until(file: Path, found: int) -> None:
        """Ask until so many different workers have written to the file."""

        def has() -> bool:
            asked.append(f"n{len(asked)}")
            pids[asked[-1]] = told(fleet, path=f"/{asked[-1]}")["pid"]
            names = logged(file.read_text()) if file.exists() else []
            return len({pids[name] for name in names}) >= found

        wait_until(has, f"lines of {found} workers in {file}", show=lambda: fleet.output)

    pids: dict[str, object] = {}
    ask_until(log, 2)
    log.rename(old)
    fleet.signal(SIGUSR1)
    wait_until(log.exists, "the new file")
    ask_until(log, 2)
    assert fleet.stop() == 0
    assert sorted(logged(old.read_text()) + logged(log.read_text())) == sorted(asked)


# -- what is refused ----------------------------------------------------------------------------------


def refused(*words: str, why: str, app: str = "web") -> None:
    """It ends with status 2 and one line that says why; no traceback."""
    with Fleet.command(*serving(app, *words)) as fleet:
        assert fleet.wait() == 2, fleet.output
    assert "Traceback" not in fleet.output
    assert "serving" not in fleet.output
    errors = [line for line in fleet.lines if "rror" in line]
    assert len(errors) == 1, fleet.output
    assert why in errors[0], fleet.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--head-bytes", "0"), "above zero"),
        (("--head-bytes", "many"), "not a valid integer"),
        (("--body-bytes", "-1"), "above zero"),
        (("--head-timeout", "0"), "above zero"),
        (("--keep-alive", "-5"), "above zero"),
        (("--send-timeout", "nan"), "above zero"),
        (("--body-timeout", "soon"), "not a valid float"),
        (("--connections", "0"), "above zero"),
        (("--threads", "0"), "threads must be"),
        (("--threads", "2000"), "threads must be"),
        (("--lifespan", "maybe"), "maybe"),
        (("--root-path", "api"), "slash"),
        (("--root-path", "/api/"), "slash"),
        (("--access-log-format", "xml"), "xml"),
        (("--access-log", "/no/such/folder/log"), "/no/such/folder/log"),
        (("--access-log", "/"), "access log"),
        (("--trusted-proxies", "somebody"), "somebody"),
        (("--trusted-proxies", "10.0.0.1/8"), "10.0.0.0/8"),
        (("--forwarded-by", "pigeon"), "pigeon"),
        (("--no-such-option", "1"), "--no-such-option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_value_that_cannot_be(words: tuple[str, ...], why: str) -> None:
    refused(*words, why=why)


VALUES = {"--lifespan": "off", "--access-log-format": "json", "--forwarded-by": "any", "--root-path": "/a"}
FLAGS = [
    (each.metadata["flag"], each.type in ("bool", bool))
    for each in (*fields(HttpOptions), *fields(HttpLimits))
    if each.metadata.get("flag")
]


@pytest.mark.parametrize(
    ("flag", "is_switch"), FLAGS, ids=lambda value: value if isinstance(value, str) else None
)
def test_an_option_of_ours_with_another_server(flag: str, *, is_switch: bool) -> None:
    """It would do nothing there, and nobody would notice."""
    words = (flag,) if is_switch else (flag, VALUES.get(flag, "7"))
    refused("--server", "uvicorn", *words, why=flag)


# -- without a master ---------------------------------------------------------------------------------

ALONE = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from site_app import app
    from prefork import Server
    Server(app, root_path="/alone").listen_and_serve(sys.argv[1])
    print("returned", flush=True)
    """


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_alone_without_a_master(fleet_of_script: Start, tmp_path: Path, number: Signals) -> None:
    """`listen_and_serve` serves in the process that calls it; TERM or INT drains it, and it returns."""
    Site(tmp_path).write(APP)
    script, gate = tmp_path / "alone.py", tmp_path / "gate"
    script.write_text(textwrap.dedent(ALONE))
    port = free_port()
    fleet = fleet_of_script(script, f"127.0.0.1:{port}", str(tmp_path))

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), WAIT_S)

    def listens() -> bool:
        try:
            connect().close()
        except ConnectionError:  # a reset: it had come in the moment of the close
            return False
        return True

    wait_until(listens, "it listens", show=lambda: fleet.output)
    with connect() as held, connect() as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        early = b""
        while not early.endswith(b"}"):  # what is still in the queue of a listener would be reset with it
            early += kept.recv(65536)
        held.sendall(f"GET /hold?{gate} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        fleet.wait_for("holding")
        assert len(fleet.members()) == 1
        fleet.signal(number)
        wait_until(lambda: not listens(), "it accepts no more", show=lambda: fleet.output)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        late = read_all(kept)
        assert b"200 OK" in late
        assert b"connection: close" in late
        assert fleet.is_running
        gate.touch()
        last = read_all(held)
        assert b"connection: close" in last
        assert b'"root_path": "/alone"' in last
    assert fleet.wait() == 0
    assert fleet.lines[-1] == "returned"
    assert "Traceback" not in fleet.output


def test_alone_told_twice(fleet_of_script: Start, tmp_path: Path) -> None:
    """A second signal waits for nobody any more: the request that is held is cut off, and the program goes on."""
    Site(tmp_path).write(APP)
    script = tmp_path / "alone.py"
    script.write_text(textwrap.dedent(ALONE))
    port = free_port()
    fleet = fleet_of_script(script, f"127.0.0.1:{port}", str(tmp_path))

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), WAIT_S).close()
        except ConnectionError:  # a reset: it had come in the moment of the close
            return False
        return True

    wait_until(listens, "it listens", show=lambda: fleet.output)
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as held:
        held.sendall(f"GET /hold?{tmp_path / 'never'} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        fleet.wait_for("holding")
        fleet.signal(SIGTERM)
        wait_until(lambda: not listens(), "it accepts no more", show=lambda: fleet.output)
        fleet.signal(SIGTERM)
        assert fleet.wait() == 0
    assert fleet.lines[-1] == "returned"


def test_alone_over_a_unix_socket(fleet_of_script: Start, tmp_path: Path) -> None:
    """Which is gone afterwards."""
    Site(tmp_path).write(APP)
    script, path = tmp_path / "alone.py", tmp_path / "socket"
    script.write_text(textwrap.dedent(ALONE))
    fleet = fleet_of_script(script, f"unix:{path}", str(tmp_path))
    wait_until(path.exists, "the socket", show=lambda: fleet.output)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_S)
        wait_until(lambda: connection.connect_ex(str(path)) == 0, "it listens", show=lambda: fleet.output)
        connection.sendall(request())
        assert b"200 OK" in read_all(connection)
    assert fleet.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(("address", "why"), [("8080", "write ':8080'"), ("127.0.0.1:99999", "too high")])
def test_alone_at_an_address_that_cannot_be(
    fleet_of_script: Start, tmp_path: Path, address: str, why: str
) -> None:
    """An error that says what to write, before the application is started."""
    Site(tmp_path).write(APP)
    script = tmp_path / "alone.py"
    script.write_text(textwrap.dedent(ALONE))
    fleet = fleet_of_script(script, address, str(tmp_path))
    assert fleet.wait() == 1
    assert "AddressError" in fleet.lines[-1]
    assert why in fleet.lines[-1]
    assert "lifespan" not in fleet.output
