"""The log as JSON, and a standard error whose reader has stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from prefork.errors import ApplicationError
from prefork.observe import log, patience
from prefork.observe.formats import Identity, JsonFormat, TextFormat


def record(text: str, *args: object, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("prefork", logging.WARNING, __file__, 1, text, args, more.get("exc_info"))


def as_json(line: logging.LogRecord, identity: Identity | None = None) -> dict[str, Any]:
    form = JsonFormat()
    form.identity = identity or form.identity
    text = form.format(line)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


class TestJson:
    def test_of_the_master(self) -> None:
        """It has no slot and no generation, so the fields are not there."""
        found = as_json(record("%d workers", 3))
        assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
        assert found == {
            "level": "warning",
            "process": "master",
            "pid": os.getpid(),
            "logger": "prefork",
            "message": "3 workers",
        }

    def test_of_a_worker(self) -> None:
        """Its slot is 0 as well as any other: nothing that is 0 is left out."""
        found = as_json(record("slow"), Identity("worker", 0, 2))
        assert (found["process"], found["slot"], found["generation"]) == ("worker", 0, 2)

    def test_of_a_zygote(self) -> None:
        """It has a generation only."""
        found = as_json(record("slow"), Identity("zygote", None, 2))
        assert (found["process"], found["generation"]) == ("zygote", 2)
        assert "slot" not in found

    def test_an_exception(self) -> None:
        """With its traceback, in a field of its own."""
        error = ApplicationError('a "quoted"\nmessage')
        with contextlib.suppress(ApplicationError):
            raise error
        found = as_json(record("it broke", exc_info=(type(error), error, error.__traceback__)))
        assert found["message"] == "it broke"
        assert found["exception"].startswith("Traceback (most recent call last)")
        assert 'a "quoted"\nmessage' in found["exception"]

    def test_a_traceback_that_came_as_text(self) -> None:
        """As the master tells that of a zygote."""
        text = "start failed: raises X\nTraceback (most recent call last):\n  File ...\nX: why"
        found = as_json(record("%s", text))
        assert found["message"] == "start failed: raises X"
        assert found["exception"] == "Traceback (most recent call last):\n  File ...\nX: why"

    def test_whatever_is_in_a_message_the_line_is_one(self) -> None:
        """Line breaks, other alphabets, halves of characters."""
        assert as_json(record("a\r\nb\u2028\x00\udc80é"))["message"] == "a\r\nb\u2028\x00\udc80é"


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (Identity(), "master"),
        (Identity("worker", 3, 1), "worker 3"),
        (Identity("zygote", None, 2), "zygote 2"),
    ],
)
def test_text_names_a_worker_by_its_slot_and_a_zygote_by_its_generation(
    identity: Identity, text: str
) -> None:
    """As it always has."""
    form = TextFormat()
    form.identity = identity
    assert f"[{text} {os.getpid()}] slow" in form.format(record("slow"))


class Reader:
    """The other end of a pipe that is our standard error, and that it may let fill up."""

    def __init__(self) -> None:
        self.end, writer = os.pipe()
        self.stream = os.fdopen(writer, "w", buffering=1, encoding="utf-8")

    def fill(self) -> None:
        fd = self.stream.fileno()
        os.set_blocking(fd, False)
        try:
            while True:
                os.write(fd, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(fd, True)

    def read(self) -> str:
        os.set_blocking(self.end, False)
        said = b""
        try:
            while data := os.read(self.end, 65536):
                said += data
        except BlockingIOError:
            return said.decode().lstrip("x")
        raise AssertionError("the writer has closed it")

    def close(self) -> None:
        self.stream.close()
        os.close(self.end)


@pytest.fixture
def reader() -> Iterator[Reader]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers[:] = []
    found = Reader()
    yield found
    root.handlers[:] = before
    root.setLevel(level)
    found.close()


def read_by(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A log on a standard error of that reader's. Call inside of the test: pytest has its own before."""
    monkeypatch.setattr(sys, "stderr", reader.stream)
    return log.set_up("info", None)


class TestAReaderThatHasStopped:
    def test_halts_nobody(self, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is said meanwhile is lost; when it reads again it is told how much."""
        monkeypatch.setattr(patience, "PATIENCE_MS", 1)
        logger = read_by(reader, monkeypatch)
        logger.info("before")
        reader.fill()
        for _ in range(3):
            logger.info("lost")
        assert "before" in reader.read()
        logger.info("after")
        said = reader.read()
        assert "lost" not in said
        assert "after" in said
        assert "3 messages could not be written" in said

    def test_is_waited_for_once(self, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then no more, until there is room: a thousand messages must not take a hundred seconds."""
        waits: list[int] = []

        def look(fd: int, within_ms: int) -> bool:
            waits.append(within_ms)
            return False

        monkeypatch.setattr(patience, "_has_room", look)
        logger = read_by(reader, monkeypatch)
        for _ in range(4):
            logger.info("lost")
        assert waits == [patience.PATIENCE_MS, 0, 0, 0]

    def test_a_long_message_is_written_in_pieces(
        self, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each as long as a pipe takes without waiting; nothing of it is lost."""
        logger = read_by(reader, monkeypatch)
        logger.info("y" * 20_000)
        assert "y" * 20_000 in reader.read()
