"""Stores to test, each with a way to let time pass; and crowds of processes that use one at the same time."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prefork.shared.store import Store
from prefork.shared.stores import connect

WAIT_S = 45.0


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class World:
    """A store that is empty, and its time."""

    url: str
    store: Store
    clock: Clock | None = None
    """None: the store has the time of its server, which cannot be turned."""

    @property
    def moment_s(self) -> float:
        """A short time to live: over at once where the clock is ours, and not before the test's next call where it is not."""
        return 0.05 if self.clock is not None else 1.0

    def after(self, seconds: float, condition: Callable[[], object]) -> None:
        """Assert that the condition holds when so much time has passed."""
        if self.clock is not None:
            self.clock.now_s += seconds
            assert condition()
            return
        ends_s = time.monotonic() + seconds + WAIT_S
        while not condition():
            assert time.monotonic() < ends_s, "the time is over, and the condition does not hold"
            time.sleep(0.002)


def local_world(url: str, *, has_own_time: bool = True) -> World:
    """A world on LMDB or in memory; with a clock of ours, unless other processes are to use it too."""
    store = connect(url)
    if not has_own_time:
        return World(url, store)
    clock = Clock()
    vars(store)["clock"] = clock
    return World(url, store, clock)


class RedisServer:
    """A real redis-server on a Unix socket, in a directory of its own (a path below 108 bytes)."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prefork-redis-"))
        self.socket = self.folder / "redis.sock"
        self._popen: subprocess.Popen[bytes] | None = None
        self._database = 0

    def start(self, *more: str) -> None:
        """Start it, and wait until it listens. more: options of the command."""
        words = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        words += ["--dir", str(self.folder), "--databases", "1000", "--daemonize", "no", *more]
        self._popen = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if b"ready to accept connections" in line.lower() or b"accept connections at" in line:
                return
        raise AssertionError("redis-server did not start")

    def new_url(self) -> str:
        """An empty database."""
        self._database += 1
        return f"unix://{self.socket}?db={self._database}"

    def stop(self) -> None:
        """End it, and remove what it left."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            assert self._popen.stdout is not None
            self._popen.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Crowd:
    """Forked processes of this one that do something at the same time. A context manager; kills what is left."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self._pipes: dict[int, int] = {}
        self._gate, self._opener = os.pipe()

    def add(self, work: Callable[[], Any]) -> int:
        """A process that does `work()` once `go` is called."""
        sys.stdout.flush()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()  # whoever is killed on purpose prints nothing
            try:
                os.close(read)
                os.close(self._opener)
                os.read(self._gate, 1)  # end of file: go
                try:
                    answer = (True, work())
                except BaseException:
                    answer = (False, traceback.format_exc())
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(answer, pipe)
            finally:
                os._exit(0)
        os.close(write)
        self.pids.append(pid)
        self._pipes[pid] = read
        return pid

    def go(self) -> None:
        """Let all of them begin."""
        os.close(self._opener)
        self._opener = -1

    def answers(self) -> list[Any]:
        """What each worked out, in order. Fails if one failed; None for one that was killed."""
        if self._opener >= 0:
            self.go()
        found = []
        for pid in self.pids:
            data = _read_all(self._pipes[pid])
            # Its pipe may be closed before its other files are: only its end says that all of them are.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            is_good, value = pickle.loads(data) if data else (True, None)  # noqa: S301  (our own child's)
            assert is_good, value
            found.append(value)
        return found

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(self._pipes.pop(pid))
        self.pids.remove(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._gate, self._opener):
            if fd >= 0:
                os.close(fd)
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for fd in self._pipes.values():
            os.close(fd)


def _read_all(fd: int) -> bytes:
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(WAIT_S * 1000):
        piece = os.read(fd, 65536)
        if not piece:
            return data
        data += piece
    raise AssertionError(f"a process said nothing for {WAIT_S:g} s")


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """In memory where there is such a place: quick, and its path is short."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (a name of its own below it)
    path = Path(tempfile.mkdtemp(prefix="prefork-test-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
