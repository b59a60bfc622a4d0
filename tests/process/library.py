"""The test's side of a program that uses prefork as a library: run it, and talk to what it serves.

Not here: the program's side (programs/story.py), the fleet itself (harness.py).
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import trustme

from tests.process.harness import SERVING, WAIT_S, Fleet

PROGRAMS = Path(__file__).parent / "programs"
METHODS = ("fork", "exec")
"""Start methods; what a test says of one holds for the other, unless it names one."""
READY = r"worker (?P<slot>\d+) \(?pid (?P<pid>\d+)\b.* ready"
_PLACE = re.compile(r"(https?://[^\s,]+|unix:[^\s,]+)")


def run(
    path: Path, *arguments: str, env: Mapping[str, str | None] | None = None, cwd: Path | None = None
) -> Fleet:
    """A program as a fleet, not yet started, with `story` on its path. Use it in `with`."""
    search = os.pathsep.join(filter(None, (str(PROGRAMS), os.environ.get("PYTHONPATH"))))
    return Fleet.script(path, *arguments, env={"PYTHONPATH": search, **(env or {})}, cwd=cwd)


def places(fleet: Fleet) -> list[str]:
    """All the places that the master says it serves, in the order they were given."""
    return _PLACE.findall(fleet.wait_for(SERVING, since=0).string)


def ready_workers(fleet: Fleet, count: int, *, since: int = 0) -> list[int]:
    """Wait until so many workers have said that they are ready: their pids, in that order."""
    return [int(match["pid"]) for match in fleet.wait_for_all(READY, count, since=since)]


class Client:
    """A client of `story.talk`: a word goes out, a line comes back."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_S)
        self._connection = connection
        self._lines = connection.makefile("rw")

    @classmethod
    def at(cls, place: str) -> Self:
        """A client of one of `places`."""
        host, _, port = place.rpartition("://")[2].rpartition(":")
        return cls(socket.create_connection((host.strip("[]"), int(port)), WAIT_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._connection.close()

    def send(self, *words: str) -> None:
        self._lines.write(" ".join(words) + "\n")
        self._lines.flush()

    def hear(self) -> str:
        """The next line; "" where the other side has closed, in whichever way."""
        try:
            return self._lines.readline().rstrip("\n")
        except ConnectionResetError:
            return ""

    def ask(self, *words: str) -> str:
        self.send(*words)
        return self.hear()


def client(fleet: Fleet) -> Client:
    """A fresh client of the fleet's first place."""
    place = places(fleet)[0]
    return Client(fleet.connect()) if place.startswith("unix:") else Client.at(place)


def ask(fleet: Fleet, *words: str) -> str:
    """One word, one answer, on a connection of its own; "" where the worker left instead."""
    with client(fleet) as fresh:
        return fresh.ask(*words)


def descriptors(fleet: Fleet) -> dict[int, str]:
    """The open descriptors of the worker that answers, as it sees them."""
    return {int(fd): target for fd, target in json.loads(ask(fleet, "descriptors")).items()}


class Held:
    """A request that stays in flight until it is let go, by a named pipe."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.pipe = folder / "held"
        os.mkfifo(self.pipe)
        self.client = client(fleet)
        self.client.send("hold", str(self.pipe))
        self.pid = int(fleet.wait_for(r"holding (\d+)", since=0)[1])

    def let_go(self) -> str:
        """Let it finish: what the client got for its patience."""
        with self.pipe.open("w") as end:
            end.write("now\n")
        with self.client:
            return self.client.hear()


def make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Files with a certificate for localhost and 127.0.0.1, its key, and the authority that vouches for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(ca))
    return cert, key, ca
