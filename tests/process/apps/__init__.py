"""The applications under test, and the test's side of them: serve one, edit one, ask one.

Not here: load (tests/process/load.py), the fleet itself (tests/process/harness.py).
"""

from __future__ import annotations

import os
import re
import socket
import textwrap
from dataclasses import dataclass
from pathlib import Path
from signal import SIGHUP

from tests.process import procfs
from tests.process.harness import WAIT_S, Fleet, wait_until

APPS = Path(__file__).parent

UNCACHED = {"PYTHONDONTWRITEBYTECODE": "1"}
"""For modules that a test edits: Python tells two versions apart by second and size only, and would run the
cached one. For code that changes twice within a second, as it does here, that is not enough."""

GOOD = """
    import os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    return
        body = b"VERSION pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
"""
"""An application for a `Site`; VERSION stands for what tells two of them apart."""


def serving(
    app: str, *extra: str, folder: Path = APPS, workers: int = 2, bind: str = "127.0.0.1:0"
) -> list[str]:
    """The arguments that serve `app`: "web" is web:app of this folder."""
    target = app if ":" in app else f"{app}:app"
    return [target, "--app-dir", str(folder), "--bind", bind, "--workers", str(workers), *extra]


def wait_until_ready(fleet: Fleet, workers: int = 2) -> list[int]:
    """Wait until the fleet serves with all its workers: their pids, in the order in which they became ready."""
    fleet.wait_for(rf"ready: {workers} workers?")
    return fleet.wait_for_workers(workers)


def reload(fleet: Fleet) -> None:
    """Have the code loaded anew, and wait until nobody serves the old one any more.

    "reload done" is not enough for a test: a worker that was told to drain accepts until it has heard of it.
    """
    old = fleet.workers()
    fleet.signal(SIGHUP)
    fleet.wait_for("reload done")
    wait_until(
        lambda: not set(old) & set(fleet.workers()), "the old workers have left", show=lambda: fleet.output
    )


class Site:
    """A folder with one module, `site_app`, that a test edits while it is served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write_good()

    def write(self, source: str) -> None:
        """Replace the module, as an editor does: a reload never meets half of it."""
        draft = self.folder / "draft"
        draft.write_text(textwrap.dedent(source), encoding="utf-8")
        draft.replace(self.folder / "site_app.py")

    def write_good(self, version: str = "first") -> None:
        """An application that answers `version` and its worker's pid."""
        self.write(GOOD.replace("VERSION", version))

    def serving(self, *extra: str, workers: int = 2, bind: str = "127.0.0.1:0") -> list[str]:
        """The arguments that serve this site."""
        return serving("site_app", *extra, folder=self.folder, workers=workers, bind=bind)


@dataclass
class Request:
    """One request on a connection of its own. `answer` reads to the end, so it waits for the worker."""

    connection: socket.socket
    path: str = "/"

    def send(self) -> Request:
        """Send it; the worker may not have accepted yet."""
        self.connection.settimeout(WAIT_S)
        head = f"GET {self.path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        self.connection.sendall(head.encode())
        return self

    def __del__(self) -> None:
        # Of a test that failed, or that wants no answer.
        self.connection.close()

    def answer(self) -> str:
        """The body; "" where the connection ended without an answer, in whichever way."""
        received = bytearray()
        try:
            while data := self.connection.recv(65536):
                received += data
        except ConnectionError:
            return ""
        finally:
            self.connection.close()
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert not head or head.startswith(b"HTTP/1.1 200"), head
        return body.decode()


def ask(fleet: Fleet, path: str = "/") -> str:
    """The body of one answer, on a fresh connection; "" where there was none."""
    return Request(fleet.connect(), path).send().answer()


def pid_of(body: str) -> int:
    """The worker that gave this answer."""
    found = re.search(r"pid (\d+)", body)
    assert found, f"no pid in {body!r}"
    return int(found[1])


def answering_pid(fleet: Fleet) -> int:
    """The worker that answers a fresh connection."""
    return pid_of(ask(fleet))


class Litter:
    """Five orphans that workers have left: children of `master` by now, that end when all of them are."""

    def __init__(self, fleet: Fleet, folder: Path, master: int) -> None:
        pipe = folder / "litter"
        os.mkfifo(pipe)
        # For both directions: then neither this open nor theirs waits for the other.
        end = os.open(pipe, os.O_RDWR)
        try:
            for _ in range(5):
                assert ask(fleet, f"/litter?{pipe}")
            wait_until(lambda: len(_programs(master, "cat")) == 5, "the orphans", show=lambda: fleet.output)
            self.pids = _programs(master, "cat")
        finally:
            os.close(end)  # the end of file for all of them

    def wait_until_reaped(self) -> None:
        """They have ended; nothing of them stays, no zombie either."""
        wait_until(lambda: not any(map(procfs.state, self.pids)), "every orphan is reaped, not only dead")


def _programs(parent: int, name: str) -> list[int]:
    return [pid for pid in procfs.children(parent) if procfs.command_line(pid)[:1] == [name]]


class Held:
    """A request in flight, in the application's own code, until it is let go."""

    def __init__(self, fleet: Fleet, folder: Path, name: str = "held") -> None:
        pipe = folder / name
        os.mkfifo(pipe)
        # For both directions: then neither this open nor the application's waits for the other.
        self._end = os.open(pipe, os.O_RDWR)
        since = fleet.mark()
        self._request = Request(fleet.connect(), f"/hold?{pipe}").send()
        self.pid = int(fleet.wait_for(r"holding pid (\d+)", since=since)[1])

    def answer(self) -> str:
        """Let it go: the body; "" where the worker is gone and took it along."""
        os.write(self._end, b"now")
        return self._request.answer()

    def __del__(self) -> None:
        os.close(self._end)
