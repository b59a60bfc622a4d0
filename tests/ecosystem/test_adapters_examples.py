from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.harness import WAIT_S, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

HTTP = ["asgi_hello", "seed", "fastapi_app", "flask_app", "uvicorn_app", "hypercorn_h2", "aiohttp_app"]
ECHO = ["tcp_echo", "streams_echo", "socketserver_echo"]


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Path]:
    """The example, as a user runs it, on a Unix socket of its own, ended by TERM."""
    path = folder / "example.sock"
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, EXAMPLES / f"{name}.py", f"unix:{path}"], stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_for(path, process)
            yield path
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=WAIT_S) == 0, (folder / "log").read_text()
        finally:
            process.kill()


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the master listens; a connection then waits in the queue for the first worker."""

    def listens() -> bool:
        assert process.poll() is None, "the example ended before it listened"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    wait_until(listens, "it listens")


@pytest.mark.parametrize("name", [*HTTP, "waitress_app"])
def test_an_http_example_answers_and_ends_with_zero(name: str, tmp_path: Path) -> None:
    """`python examples/x.py ADDRESS` serves a greeting, and TERM ends it."""
    with running(name, tmp_path) as path:
        transport = httpx.HTTPTransport(uds=str(path), http1=name != "hypercorn_h2", http2=True)
        with httpx.Client(transport=transport, timeout=WAIT_S) as client:
            response = client.get("http://example/")
    assert response.status_code == 200
    assert "hello from worker" in response.text
    assert response.http_version == ("HTTP/2" if name == "hypercorn_h2" else "HTTP/1.1")


@pytest.mark.parametrize("name", ECHO)
def test_an_echo_example_echoes(name: str, tmp_path: Path) -> None:
    """The same for the examples that are not HTTP."""
    with running(name, tmp_path) as path, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(path))
        client.sendall(b"echo\n")
        assert client.recv(100) == b"echo\n"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
