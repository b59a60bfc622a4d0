"""WebSocket echo: many clients in a process of their own, and what each message costs the server.

    python -m benchmarks.http.websocket PORT CONNECTIONS SECONDS

Each client sends a frame of 64 bytes and waits for it to come back. The clients know just enough of RFC 6455 for that: the
frame is made once, and the answer is compared as bytes. No extension is offered, so nothing is compressed.

Not here: wrk (load.py).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles
from typing import Final, cast

import uvloop

from benchmarks.http.load import LoadError, Sample, cpu_ns, spent_since_us
from benchmarks.http.running import Running
from benchmarks.run.places import ROOT

PAYLOAD: Final = b"x" * 64
_MASK: Final = b"mask"
_MASKED: Final = bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(PAYLOAD))
FRAME: Final = bytes((0x82, 0x80 | len(PAYLOAD))) + _MASK + _MASKED
ECHO: Final = bytes((0x82, len(PAYLOAD))) + PAYLOAD
"""Final binary frames (RFC 6455 §5.2), masked to the server, plain from it."""
_CONNECT_LIMIT_S: Final = 5.0
_GIVE_UP_S: Final = 60.0
_HELLO: Final = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_BUSIEST: Final = 100_000
"""Latencies that are kept; more say nothing more."""


class Client(asyncio.Protocol):
    """One connection: hello, then frame after frame until it is stopped."""

    def __init__(self, opened: asyncio.Future[None], latencies_s: list[float]) -> None:
        self.count = 0
        self.is_open = False
        self.failure = ""
        self._opened = opened
        self._latencies_s = latencies_s
        self._buffer = b""
        self._sent_s = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._transport.write(_HELLO)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.is_open:
            self._take_answer()
        elif self._buffer == ECHO:
            now_s = time.perf_counter()
            if len(self._latencies_s) < _BUSIEST:
                self._latencies_s.append(now_s - self._sent_s)
            self.count += 1
            self._buffer = b""
            self.send()
        elif not ECHO.startswith(self._buffer):
            self._fail(f"not the echo: {self._buffer[:80]!r}")

    def _take_answer(self) -> None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101"):
            self._fail(head.split(b"\r\n")[0].decode("latin-1"))
            return
        self.is_open = True
        self._buffer = rest
        self._opened.set_result(None)

    def send(self) -> None:
        """The next message."""
        assert self._transport is not None
        self._sent_s = time.perf_counter()
        self._transport.write(FRAME)

    def stop(self) -> None:
        """Go away without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        self.failure = why
        if not self._opened.done():
            self._opened.set_exception(LoadError(why))
        self.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(LoadError(f"closed before the handshake: {exc}"))


async def drive(port: int, connections: int, seconds: int) -> dict[str, float | str]:
    """Open all connections, say "go" and wait for the answer, run, and say what came of it."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    latencies_s: list[float] = []
    for _ in range(connections):
        opened: asyncio.Future[None] = loop.create_future()
        client = Client(opened, latencies_s)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.wait_for(opened, _CONNECT_LIMIT_S)
        clients.append(client)
    # The handshakes are no messages: the other side reads its clocks now.
    print("open", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    begun_s = time.perf_counter()
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - begun_s
    failures = [client.failure for client in clients if client.failure]
    served = sum(client.count for client in clients)
    for client in clients:
        client.stop()
    cuts = quantiles(latencies_s, n=1000) if len(latencies_s) > 1 else [0.0] * 999
    return {
        "served": served,
        "errors": len(failures),
        "per_second": served / took_s,
        "p50_ms": cuts[499] * 1000,
        "p99_ms": cuts[989] * 1000,
        "p999_ms": cuts[998] * 1000,
        "failure": failures[0] if failures else "",
    }


class WebSocketLoad:
    """The load of a scenario: `drive` in a process of its own, beside the server's CPU clocks."""

    def __call__(self, target: Running, connections: int, seconds: int, directory: Path) -> Sample:  # noqa: ARG002
        """Raises LoadError if no message came back, or the server will not speak WebSocket."""
        words = ["-m", "benchmarks.http.websocket", str(target.port), str(connections), str(seconds)]
        with subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            client.stdout.readline()
            before_ns = cpu_ns(target.processes())
            try:
                out, err = client.communicate("go\n", timeout=_GIVE_UP_S)
            except subprocess.TimeoutExpired as error:
                client.kill()
                raise LoadError("the WebSocket clients never came to an end") from error
            spent_us = spent_since_us(before_ns, target.processes())
        if client.returncode:
            last = (err.strip() or "no word").splitlines()[-1]
            raise LoadError(last.removeprefix(f"{LoadError.__module__}.{LoadError.__qualname__}: "))
        said = json.loads(out)
        if not said["served"]:
            raise LoadError(f"no message came back: {said['failure']}")
        fields = ("per_second", "p50_ms", "p99_ms", "p999_ms")
        return Sample(said["served"], said["errors"], spent_us, *(said[name] for name in fields))


WEBSOCKET: Final = WebSocketLoad()


def main() -> None:
    """The clients' process."""
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(drive(port, connections, seconds))), flush=True)


if __name__ == "__main__":
    main()
