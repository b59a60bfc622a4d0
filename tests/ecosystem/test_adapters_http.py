from __future__ import annotations

import http.client
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from tests.ecosystem.apps.rig import ask, ask_until_close, worker
from tests.process.harness import WAIT_S, wait_until

LOOPS = [
    ("uvicorn", "asyncio"),
    ("uvicorn", "uvloop"),
    ("uvicorn-h11", "asyncio"),
    ("hypercorn", "asyncio"),
    ("hypercorn", "uvloop"),
    ("aiohttp", "asyncio"),
    ("aiohttp", "uvloop"),
    ("waitress", "none"),
]
each_server = pytest.mark.parametrize(("case", "loop"), LOOPS)

LINGER_S = 2.0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@each_server
def test_keep_alive_requests_are_answered_by_one_process(case: str, loop: str) -> None:
    """Two requests on one connection are answered, and neither answer closes it."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        assert [ask(connection), ask(connection)] == [(str(served.process.pid), False)] * 2


@each_server
def test_a_late_keep_alive_request_is_answered_with_connection_close(case: str, loop: str) -> None:
    """A client that goes on asking while its server drains is told to close, and never reset."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connections = [served.connect() for _ in range(8)]
        for connection in connections:
            assert ask(connection) == (str(served.process.pid), False)
        served.drain()
        for connection in connections:
            ask_until_close(connection)
        served.wait_until("returned")


@each_server
def test_a_request_in_flight_is_finished(case: str, loop: str) -> None:
    """A request that runs when the drain begins is answered, however long it takes."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        connection.request("GET", "/hold")
        served.wait_until("holding")
        served.drain()
        served.let_go()
        response = connection.getresponse()
        assert (response.read(), response.headers["Connection"].lower()) == (b"held", "close")
        served.wait_until("returned")


@each_server
def test_a_drain_with_nobody_connected_returns_at_once(case: str, loop: str) -> None:
    """No linger where nobody could come late; what the client has closed is nobody."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        ask(connection)
        connection.close()
        began_s = time.monotonic()
        served.drain()
        served.wait_until("returned")
        assert time.monotonic() - began_s < LINGER_S


@each_server
def test_a_silent_connection_is_closed_after_the_linger(case: str, loop: str) -> None:
    """A client that never asks again cannot keep a worker from ending, and is closed without a reset."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        ask(connection)
        began_s = time.monotonic()
        served.drain()
        served.wait_until("returned")
        assert time.monotonic() - began_s > LINGER_S * 0.9
        assert connection.sock.recv(1) == b""


@each_server
def test_a_connection_just_accepted_is_served_while_draining(case: str, loop: str) -> None:
    """A client that was accepted but has not asked yet gets its answer in the linger."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        proof, fresh = served.connect(), served.connect()
        ask(proof)  # accepted in order, so that the one after it waits in the queue or is accepted
        ask(fresh)
        silent = served.connect()
        ask(proof)
        served.drain()
        assert ask_or_gone(silent)
        for connection in (proof, fresh, silent):
            connection.close()


def ask_or_gone(connection: http.client.HTTPConnection) -> bool:
    """Answered by the worker; a connection that it had not accepted yet would wait for a sibling."""
    connection.sock.settimeout(LINGER_S + 3)
    try:
        return bool(ask(connection)[0])
    except TimeoutError:
        return True


@each_server
def test_shutdown_hooks_run_after_the_last_answer(case: str, loop: str) -> None:
    """Start-up comes before readiness, shutdown after the request in flight."""
    if case == "waitress":
        pytest.skip("WSGI has no hooks")
    with worker(case, loop=loop) as served:
        assert [served.said(), served.said()] == ["startup", "ready"]
        connection = served.connect()
        connection.request("GET", "/hold")
        served.wait_until("holding")
        served.drain()
        served.let_go()
        assert connection.getresponse().read() == b"held"
        assert served.said_all() == ["shutdown", "returned"]
        assert served.process.wait() == 0


@each_server
def test_tls_with_keep_alive_and_a_drain(
    case: str, loop: str, files: tuple[str, str], client_context: ssl.SSLContext
) -> None:
    """Over TLS the same holds: keep-alive, a late request answered, no reset."""
    with worker(case, *files, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect(client_context)
        assert ask(connection) == (str(served.process.pid), False)
        served.drain()
        ask_until_close(connection)
        connection.close()
        served.wait_until("returned")
        assert served.errors() == ""


@each_server
def test_a_large_upload_over_tls_arrives_whole(
    case: str, loop: str, files: tuple[str, str], client_context: ssl.SSLContext
) -> None:
    """Four megabytes in, four megabytes out: no TLS record is left behind in a buffer."""
    with worker(case, *files, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect(client_context)
        sent = bytes(range(256)) * 2**14
        connection.request("POST", "/echo", body=sent)
        assert connection.getresponse().read() == sent


@each_server
def test_a_handshake_under_way_is_not_cut_by_the_drain(
    case: str, loop: str, files: tuple[str, str], client_context: ssl.SSLContext
) -> None:
    """A client that is accepted, but still shaking hands, is served too."""
    with worker(case, *files, loop=loop) as served:
        served.wait_until("ready")
        first = served.connect(client_context)
        early = served.stream()
        ask(first)
        ask(first)
        served.drain()
        early.settimeout(WAIT_S)
        with client_context.wrap_socket(early, server_hostname="localhost") as secure:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"connection: close" in read_all(secure).lower()
        first.close()


def read_all(stream: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


@each_server
def test_a_unix_listener_is_served_and_its_path_left_alone(case: str, loop: str, tmp_path: Path) -> None:
    """The path belongs to the master: a server that ends does not remove it."""
    path = tmp_path / "app.sock"
    with worker(case, loop=loop, unix=str(path)) as served:
        served.wait_until("ready")
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(path))
            stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert str(served.process.pid).encode() in read_all(stream)
        served.drain()
        served.wait_until("returned")
        assert path.exists()


@each_server
def test_the_backlog_of_a_shared_listener_is_left_alone(case: str, loop: str) -> None:
    """A server's own listen() does not change the queue that its siblings share."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        ask(served.connect())
        info = served.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert int.from_bytes(info[28:32], "little") == 128


@each_server
def test_nothing_is_printed_for_a_request(case: str, loop: str) -> None:
    """Access lines are for those who ask for them."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        ask(connection)
        connection.close()
        served.drain()
        served.wait_until("returned")
        assert served.errors() == ""


@each_server
def test_an_idle_worker_is_not_woken(case: str, loop: str) -> None:
    """With nobody connected, no server wakes up, once it has ended what it did: a whole second long."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        connection = served.connect()
        ask(connection)
        connection.close()
        wait_until(served.sleeps_for_a_second, "nothing wakes it up")


@pytest.mark.parametrize("case", ["uvicorn-failed", "uvicorn-raises", "hypercorn-raises", "aiohttp-raises"])
def test_a_failed_start_is_raised_once_with_its_traceback(case: str) -> None:
    """The start-up failure is the serve call's exception, is never readiness, and nothing else prints it."""
    with worker(case) as served:
        refusal = served.refusal()
        assert "no database" in refusal["message"]
        assert "RuntimeError: no database" in refusal["details"]
        assert served.said_all() == []
        assert served.errors() == ""


def test_an_application_without_lifespan_is_served() -> None:
    """An exception at the lifespan scope itself means "not supported", as the specification has it."""
    with worker("uvicorn-bare") as served:
        served.wait_until("ready")
        assert ask(served.connect())[0] == str(served.process.pid)


@pytest.mark.parametrize("case", ["uvicorn", "hypercorn"])
def test_lifespan_state_reaches_requests(case: str) -> None:
    """What start-up puts into the state is there for each request."""
    with worker(case) as served:
        served.wait_until("ready")
        assert ask(served.connect(), "/state")[0] == "hello"


def test_hypercorn_serves_wsgi() -> None:
    """A WSGI application is found out and served by hypercorn too."""
    with worker("hypercorn-wsgi") as served:
        served.wait_until("ready")
        assert ask(served.connect())[0] == str(served.process.pid)


def test_waitress_tells_the_application_of_tls(
    files: tuple[str, str], client_context: ssl.SSLContext
) -> None:
    """`wsgi.url_scheme` is https when the context is prefork's."""
    with worker("waitress", *files) as served:
        served.wait_until("ready")
        assert ask(served.connect(client_context), "/scheme")[0] == "https"
