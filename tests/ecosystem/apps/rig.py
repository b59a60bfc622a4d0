"""The test's end of `worker.py`: a listener, a process, and clients that notice a reset."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.process import procfs

HERE = Path(__file__).parent


class Worker:
    """One worker process on one listener."""

    def __init__(self, process: subprocess.Popen[bytes], listener: socket.socket) -> None:
        self.process = process
        self.listener = listener
        self.clients = contextlib.ExitStack()

    @property
    def port(self) -> int:
        """Where to connect to."""
        port: int = self.listener.getsockname()[1]
        return port

    def said(self) -> str:
        """The worker's next word; blocks until it comes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def said_all(self) -> list[str]:
        """Everything from here to the end of the process."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode().split()

    def wait_until(self, word: str) -> None:
        """Read on until the worker says `word`."""
        while (said := self.said()) != word:
            assert said, f"the worker ended without saying {word!r}: {self.errors()}"

    def drain(self) -> None:
        """Tell the worker to drain, and wait until it has heard."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_until("draining")

    def let_go(self) -> None:
        """Let a held request be answered."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def sleeps_for_a_second(self) -> bool:
        """Whether none of its threads goes to sleep again within a second; so nothing has woken one."""
        before = procfs.context_switches(self.process.pid)
        threading.Event().wait(1.0)  # the measurement itself
        assert self.process.poll() is None, "it has ended"
        return procfs.context_switches(self.process.pid).voluntary == before.voluntary

    def errors(self) -> str:
        """Everything on standard error; ends when the process does."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def refusal(self) -> dict[str, str]:
        """How the worker reported that its application did not start."""
        refusal: dict[str, str] = json.loads(self.said())
        return refusal

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        """A keep-alive connection that is never opened again behind the test's back."""
        if context is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=45)
        else:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=45, context=context)
        connection.connect()
        connection.auto_open = 0
        self.clients.callback(connection.close)
        return connection

    def stream(self) -> socket.socket:
        """A raw TCP connection."""
        return self.clients.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=45))


def ask(connection: http.client.HTTPConnection, path: str = "/") -> tuple[str, bool]:
    """One request: its answer's body, and whether the answer says `Connection: close`."""
    connection.request("GET", path)
    response = connection.getresponse()
    closes = response.headers.get("Connection", "").lower() == "close"
    body = response.read().decode()
    assert response.status == 200, body
    return body, closes


def ask_until_close(connection: http.client.HTTPConnection) -> int:
    """Ask in a tight loop until an answer says `Connection: close`; how often. A reset raises."""
    for count in range(1, 100_000):
        _, closes = ask(connection)
        if closes:
            return count
    raise AssertionError("the server never said Connection: close")


@contextlib.contextmanager
def worker(case: str, *files: str, loop: str = "asyncio", unix: str = "") -> Iterator[Worker]:
    """A worker that serves `case`; its listener stays open here, as it does in a master."""
    family = socket.AF_UNIX if unix else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(unix or ("127.0.0.1", 0))
        listener.listen(128)
        listener.setblocking(False)
        with worker_on(listener, case, *files, loop=loop) as served:
            yield served


@contextlib.contextmanager
def worker_on(listener: socket.socket, case: str, *files: str, loop: str = "asyncio") -> Iterator[Worker]:
    """One more worker on a listener that is open already."""
    fd = listener.fileno()
    command: list[Any] = [sys.executable, HERE / "worker.py", str(fd), case, loop, *files]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, pass_fds=[fd], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, cwd=HERE
    ) as process:
        served = Worker(process, listener)
        try:
            with served.clients:
                yield served
        finally:
            process.kill()
