"""Clients that are slow, silent, gone, or hostile, while others are served. All of them over the loopback."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import time
from collections import Counter

from benchmarks.chaos.confined import more_descriptors
from benchmarks.chaos.fault import Fault
from benchmarks.chaos.stage import Stage, status_of
from tests.process.harness import Fleet

HEAD_S = 3
LIMITS = ("--head-timeout", str(HEAD_S), "--body-timeout", "2", "--body-bytes", "1048576")
LATE_S = 12.0
"""Far above the head's time-out: whoever is still connected then was forgotten."""
MEMORY_BYTES = 128 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close(2) sends RST


def _connected(fleet: Fleet) -> socket.socket:
    client = fleet.connect()
    client.setblocking(False)
    return client


def slow(stage: Stage) -> None:
    """A byte of a head a second, or none at all."""
    count = min(1000 if stage.is_quick else 5000, more_descriptors() - 200)
    fleet = stage.fleet(*LIMITS)
    before = fleet.workers()
    load = stage.load(fleet)
    said = Counter[str]()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(_connected(fleet)) for _ in range(count)]
        halves = crowd[::2], crowd[1::2]
        alive = {client.fileno(): client for client in crowd}
        poll = select.poll()
        for descriptor in alive:
            poll.register(descriptor, select.POLLIN)
        deadline_s = time.monotonic() + HEAD_S + LATE_S
        sent = 0
        while alive and time.monotonic() < deadline_s:
            if sent < (HEAD_S + LATE_S):
                byte = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: yes"[sent : sent + 1]
                for client in halves[0]:
                    if client.fileno() in alive:
                        with contextlib.suppress(OSError):
                            client.send(byte)
                sent += 1
            for descriptor, _ in poll.poll(1000):
                said[_last_word(alive.pop(descriptor))] += 1
                poll.unregister(descriptor)
        forgotten = len(alive)
    stage.note(f"{count} slow or silent clients: {dict(said)}; {forgotten} still connected")
    stage.hold(not forgotten, f"{forgotten} slow clients were never sent away")
    stage.hold(set(said) <= {"408", "closed"}, f"slow clients were answered with {dict(said)}")
    stage.finish(load)
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.ends(fleet)


def _last_word(client: socket.socket) -> str:
    try:
        received = client.recv(65536)
    except ConnectionError:
        return "reset"
    return status_of(received) if received else "closed"


def resets(stage: Stage) -> None:
    """Connections that are reset in every phase, by the thousand."""
    fleet = stage.fleet(*LIMITS)
    before = fleet.workers()
    load = stage.load(fleet)
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    upload = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"
    phases = (b"", whole[:9], whole, whole * 20, upload)
    rounds = stage.rounds(400, 4000)
    for number in rounds:
        client = fleet.connect()
        with contextlib.suppress(ConnectionError):
            client.sendall(phases[number % len(phases)])
        if number % 3:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif number % 2:
            client.shutdown(socket.SHUT_WR)  # half-open
        client.close()
    stage.note(f"{len(rounds)} connections reset, closed or half closed, in {len(phases)} phases")
    stage.finish(load)
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.ends(fleet)


_POST = b"POST /body HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
BOMBS = {
    "a header of 4 MiB": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (4 << 20),
    "50 000 headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a target of 1 MiB": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method without an end": b"A" * (1 << 20),
    "garbage": bytes(range(256)) * 64,
    "a chunk of 2^64 bytes": _CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n",
    "a chunk of less than nothing": _CHUNKED + b"-1\r\n",
    "a chunk extension of 4 MiB": _CHUNKED + b"1;" + b"a" * (4 << 20),
    "a million chunks of a byte": _CHUNKED + b"1\r\na\r\n" * 1_100_000 + b"0\r\n\r\n",
    "trailers without an end": _CHUNKED + b"0\r\n" + b"X: y\r\n" * 500_000,
    "a body above the bound, announced": _POST + b"Content-Length: 1099511627776\r\n\r\n",
    "a body above the bound, in chunks": _CHUNKED + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 40,
    "a length of less than nothing": _POST + b"Content-Length: -1\r\n\r\n",
    "two lengths": _POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "a length and chunks": _POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a version of the future": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
}


def bombs(stage: Stage) -> None:
    """Each request that is meant to hurt, again and again."""
    fleet = stage.fleet(*LIMITS)
    before = fleet.workers()
    load = stage.load(fleet)
    pss = fleet.pss_bytes()
    said = Counter[str]()
    for _ in stage.rounds(1, 10):
        for what, bomb in BOMBS.items():
            status = _thrown(fleet, bomb)
            said[status] += 1
            stage.hold(re.fullmatch("4..|501|505|cut off", status), f"{what}: {status}")
    grown = fleet.pss_bytes() - pss
    stage.note(
        f"{said.total()} bombs of {len(BOMBS)} kinds: {dict(said)}; {grown >> 20} MiB more in the whole fleet"
    )
    stage.hold(grown < MEMORY_BYTES, f"{grown >> 20} MiB were taken")
    stage.finish(load)
    stage.hold(fleet.workers() == before, f"workers were {before}, and are {fleet.workers()}")
    stage.ends(fleet)


def _thrown(fleet: Fleet, bomb: bytes) -> str:
    """Send it for as long as it is taken: the status, "cut off" where the connection ended without, or "no end"."""
    with fleet.connect(LATE_S) as client:
        try:
            client.sendall(bomb)
        except TimeoutError:
            return "no end"
        except ConnectionError:
            pass  # an answer may have come before
        try:
            received = client.recv(65536)
        except ConnectionError:
            return "cut off"
        except TimeoutError:
            return "no end"
    return status_of(received) if received else "cut off"


FAULTS = (
    Fault(
        "slow-clients",
        "6",
        f"a thousand clients (5000 without --quick) that send a byte a second, or nothing; head time-out {HEAD_S} s",
        "0 of the others fail; each slow one is sent away with 408 or closed",
        slow,
    ),
    Fault(
        "resets",
        "6",
        "connections reset, closed or half closed before, in and behind a request",
        "0 of the others fail; no worker dies, no traceback",
        resets,
    ),
    Fault(
        "bombs",
        "6",
        f"{len(BOMBS)} kinds of heads, lengths and chunks that are meant to hurt",
        "each is refused (4xx, 501, 505, or cut off), 0 of the others fail, less than 128 MiB are taken",
        bombs,
    ),
)
