"""The logs of a fleet at work: as JSON, and where nobody takes them."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGTERM, SIGUSR1
from typing import Any

import pytest

from tests.process.apps import UNCACHED, Request, Site, ask, pid_of, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until

FULL = Path("/dev/full")


def objects(fleet: Fleet) -> list[dict[str, Any]]:
    """Every line that it has said is one."""
    return [json.loads(line) for line in fleet.lines]


def test_json_tells_who_says_it(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Master, zygote and workers; a traceback of another process is the field `exception`."""
    site = Site(tmp_path)
    site.write(
        """
        import logging, os
        logging.warning("loaded")
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            logging.warning("asked")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"pid %d" % os.getpid()})
        """
    )
    fleet = fleet_of(*site.serving("--log-format", "json", "--lifespan", "off"), env=UNCACHED)
    wait_until_ready(fleet)
    pid = pid_of(ask(fleet))
    fleet.wait_for("asked")
    site.write("raise RuntimeError('broken on purpose')")
    fleet.signal(SIGHUP)
    fleet.wait_for("reload failed")
    assert fleet.stop() == 0
    said = objects(fleet)
    (loaded,) = [x for x in said if x["message"] == "loaded"]
    assert (loaded["process"], loaded["generation"], loaded["logger"]) == ("zygote", 1, "root")
    (asked,) = [x for x in said if x["message"] == "asked"]
    assert (asked["process"], asked["pid"], asked["generation"]) == ("worker", pid, 1)
    assert asked["slot"] in (0, 1)
    assert {x["pid"] for x in said if x["process"] == "master"} == {fleet.pid}
    (broken,) = [x for x in said if "exception" in x]
    assert broken["exception"].startswith("Traceback (most recent call last)")
    assert broken["exception"].endswith("RuntimeError: broken on purpose")
    assert "\n" not in broken["message"]


def connect(path: Path) -> socket.socket:
    """A fresh connection to a fleet that does not say where it serves."""
    client = socket.socket(socket.AF_UNIX)

    def is_there() -> bool:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True

    wait_until(is_there, "it listens")
    return client


def serves(path: Path) -> int:
    """The worker that answers."""
    return pid_of(Request(connect(path)).send().answer())


def tried_in_every_way(fleet: Fleet, path: Path) -> None:
    """It serves, replaces a worker, opens its logs again, loads its code anew, serves, and stops with status 0."""
    first = serves(path)
    fleet.kill(first)
    wait_until(lambda: serves(path) != first, "another worker answers")
    fleet.signal(SIGUSR1)
    before = serves(path)
    fleet.signal(SIGHUP)
    wait_until(lambda: serves(path) != before, "a new worker answers")
    assert fleet.stop(SIGTERM) == 0
    fleet.assert_nothing_left()


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_stops_nothing(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Neither that of the log nor that of the access log."""
    path = tmp_path / "sock"
    words = ("--log-file", str(FULL), "--access-log", str(FULL))
    fleet = fleet_of(*serving("web", *words, workers=1, bind=f"unix:{path}"))
    tried_in_every_way(fleet, path)


LEFT = """
import os, sys
reader, writer = os.pipe()
for fd in (1, 2):
    os.dup2(writer, fd)
os.close(writer)
if sys.argv[1] == "left":
    os.close(reader)
else:  # it stays, and reads nothing, and the pipe is full
    os.set_inheritable(reader, True)
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(1, True)
os.execv(sys.executable, [sys.executable, "-m", "prefork", *sys.argv[2:]])
"""


@pytest.mark.parametrize("reader", ["left", "stopped"])
def test_a_reader_that_has_left_or_stopped_stops_nothing(tmp_path: Path, reader: str) -> None:
    """Standard output and error are a pipe: closed at its other end, or full."""
    path = tmp_path / "sock"
    words = serving("web", "--access-log", "-", workers=1, bind=f"unix:{path}")
    environ = {"PYTHONUNBUFFERED": None}
    with Fleet([sys.executable, "-c", LEFT, reader, *words], env=environ) as fleet:
        tried_in_every_way(fleet, path)
