from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from tests.ecosystem.apps.rig import worker
from tests.process.harness import wait_until

CASES = [("streams", "asyncio"), ("streams", "uvloop"), ("socketserver", "none")]
LINGER_S = 2.0
each_server = pytest.mark.parametrize(("case", "loop"), CASES)


def echo(stream: socket.socket, said: bytes) -> bytes:
    """What comes back for what was said."""
    stream.sendall(said)
    return stream.recv(1000)


@each_server
def test_connections_are_served_side_by_side(case: str, loop: str) -> None:
    """Two clients talk in turns, and end when they like."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        one, two = served.stream(), served.stream()
        assert [echo(one, b"1"), echo(two, b"2"), echo(one, b"3")] == [b"1", b"2", b"3"]
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1000) == b"bye"
        assert one.recv(1000) == b""


@each_server
def test_a_late_message_is_answered_while_draining(case: str, loop: str) -> None:
    """An open connection goes on in the linger; the drain waits for its handler, and for no longer."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        client = served.stream()
        assert echo(client, b"early") == b"early"
        began_s = time.monotonic()
        served.drain()
        assert echo(client, b"late") == b"late"
        client.close()
        served.wait_until("returned")
        assert time.monotonic() - began_s < LINGER_S


@each_server
def test_handlers_see_end_of_file_after_the_linger(case: str, loop: str) -> None:
    """A silent client ends as if it had closed: the handler says goodbye, nothing is reset."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        client = served.stream()
        echo(client, b"early")
        served.drain()
        assert client.recv(1000) == b"bye"
        assert client.recv(1000) == b""
        served.wait_until("returned")
        assert served.process.wait() == 0


@each_server
def test_a_protocol_over_tls(case: str, loop: str, tmp_path: Path) -> None:
    """TLS is the server's part; the handler is the same."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with worker(case, str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), loop=loop) as served:
        served.wait_until("ready")
        with context.wrap_socket(served.stream(), server_hostname="localhost") as client:
            assert echo(client, b"secret") == b"secret"
            served.drain()
            assert client.recv(1000) == b"bye"
        served.wait_until("returned")


@each_server
def test_an_idle_worker_is_not_woken(case: str, loop: str) -> None:
    """Nothing happens in an idle second, with a client connected; serve_forever would wake up twice."""
    with worker(case, loop=loop) as served:
        served.wait_until("ready")
        echo(served.stream(), b"1")
        wait_until(served.sleeps_for_a_second, "nothing wakes it up")


def test_one_at_a_time_gives_the_open_connection_its_end_at_once() -> None:
    """Without threads the main thread is in the handler, and only an end-of-file gets it out."""
    with worker("socketserver-single") as served:
        served.wait_until("ready")
        client = served.stream()
        assert echo(client, b"1") == b"1"
        served.drain()
        assert client.recv(1000) == b"bye"
        served.wait_until("returned")
