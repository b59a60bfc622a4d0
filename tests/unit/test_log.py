from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.errors import ConfigError
from prefork.observe import log

LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?P<level>\w+) +\[(?P<who>[\w ]+) (?P<pid>\d+)\] (?P<text>.*)"
)


Said = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """As in a program that has not set up logging; what a test adds is taken away and closed."""
    loggers = (logging.getLogger(), logging.getLogger(log.NAME))
    before = [(list(x.handlers), x.level) for x in loggers]
    for logger in loggers:
        logger.handlers[:] = []
        logger.setLevel(logging.NOTSET)
    loggers[0].setLevel(logging.WARNING)
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            with contextlib.suppress(OSError):  # a full disk, in one of the tests
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines on standard error since it was last asked."""

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return lines


def with_nobody_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root logger has handlers while pytest runs: cut the logger off from it. Call inside of the test."""
    monkeypatch.setattr(logging.getLogger(log.NAME), "propagate", False)


def fields(line: str) -> tuple[str, str, str]:
    """Level, identity and text of a line."""
    match = LINE.fullmatch(line)
    assert match, line
    assert int(match["pid"]) == os.getpid()
    return match["level"], match["who"], match["text"]


class TestTheLine:
    def test_it_tells_when_how_bad_who_and_what(self, said: Said) -> None:
        """One line a message."""
        logger = log.set_up("info", None)
        logger.info("ready: %d workers", 4)
        logger.warning("slow")
        one, two = said()
        assert fields(one) == ("info", "master", "ready: 4 workers")
        assert fields(two) == ("warning", "master", "slow")

    def test_a_process_introduces_itself(self, said: Said) -> None:
        """After the fork the same handler speaks for somebody else."""
        logger = log.set_up("info", None)
        log.introduce("worker", 3, 1)
        logger.info("hello")
        assert fields(said()[0]) == ("info", "worker 3", "hello")

    def test_the_applications_messages_have_the_same_form(self, said: Said) -> None:
        """The command sets up the root logger."""
        log.set_up("info", None)
        logging.getLogger("shop.orders").error("no stock")
        assert fields(said()[0]) == ("error", "master", "no stock")

    def test_a_traceback_follows_its_line(self, said: Said) -> None:
        """As `logging` does it."""
        logger = log.set_up("info", None)
        logger.error("it broke", exc_info=ValueError("x"))
        first, second, *_ = said()
        assert fields(first)[2] == "it broke"
        assert second == "ValueError: x"

    def test_less_important_messages_are_left_out(self, said: Said) -> None:
        """--log-level."""
        logger = log.set_up("error", None)
        logger.warning("slow")
        logger.error("broken")
        assert fields(said()[0])[0] == "error"

    @pytest.mark.parametrize("level", ["INFO", "verbose", "", "20"])
    def test_an_unknown_level_is_refused(self, level: str) -> None:
        """With those there are."""
        with pytest.raises(ConfigError, match="debug, info, warning, error, critical"):
            log.set_up(level, None)


class TestTheDefaultLogger:
    def test_it_is_heard_on_standard_error(self, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that has set up nothing hears the master all the same."""
        with_nobody_listening(monkeypatch)
        log.default_logger().info("serving")
        assert fields(said()[0])[2] == "serving"

    def test_it_is_told_once_however_often_it_is_asked_for(
        self, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No handler is added twice."""
        with_nobody_listening(monkeypatch)
        for _ in range(3):
            log.default_logger()
        log.default_logger().info("serving")
        assert len(said()) == 1

    @pytest.mark.parametrize("name", ["", log.NAME])
    def test_a_program_that_listens_itself_is_left_alone(self, said: Said, name: str) -> None:
        """Its handler gets the message, and nobody else."""
        heard = io.StringIO()
        logging.getLogger(name).addHandler(logging.StreamHandler(heard))
        log.default_logger().warning("slow")
        assert heard.getvalue() == "slow\n"
        assert said() == []
        assert logging.getLogger(log.NAME).level == logging.NOTSET

    def test_standard_error_is_whatever_it_is_at_the_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program may put another stream there later."""
        with_nobody_listening(monkeypatch)
        logger = log.default_logger()
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        logger.info("hello")
        assert "hello" in stream.getvalue()


class TestTheLevel:
    def test_of_the_command_it_is_that_of_all(self) -> None:
        """The application's own loggers follow."""
        log.set_up("info", None)
        log.set_level("debug")
        assert log.level() == "debug"
        assert logging.getLogger("tests.anything").isEnabledFor(logging.DEBUG)
        log.set_level("error")
        assert log.level() == "error"
        assert not logging.getLogger("tests.anything").isEnabledFor(logging.WARNING)

    def test_of_a_program_it_is_prefork_s_part(self) -> None:
        """What else is logged is the program's own matter."""
        before = logging.getLogger().level
        log.default_logger()
        log.set_level("debug")
        assert log.level() == "debug"
        assert logging.getLogger().level == before


class TestFiles:
    def test_it_goes_on_in_a_new_file_after_a_rename(self, tmp_path: Path) -> None:
        """As logrotate does it: mv, then USR1."""
        path = tmp_path / "app.log"
        logger = log.set_up("info", str(path))
        logger.info("one")
        path.rename(tmp_path / "app.log.1")
        logger.info("two")
        log.reopen()
        logger.info("three")
        assert [fields(x)[2] for x in (tmp_path / "app.log.1").read_text().splitlines()] == ["one", "two"]
        assert [fields(x)[2] for x in path.read_text().splitlines()] == ["three"]

    def test_files_of_the_application_are_opened_again_too(self, tmp_path: Path) -> None:
        """On whatever logger they hang."""
        path = tmp_path / "access.log"
        handler = logging.FileHandler(path)
        logger = logging.getLogger("tests.access")
        logger.addHandler(handler)
        try:
            path.rename(tmp_path / "access.log.1")
            log.reopen()
            logger.warning("GET /")
            assert path.read_text() == "GET /\n"
        finally:
            logger.removeHandler(handler)
            handler.close()

    def test_no_descriptor_is_left_behind(self, tmp_path: Path, no_descriptor_leaks: None) -> None:
        """However often."""
        handler = logging.FileHandler(tmp_path / "app.log")
        logging.getLogger().addHandler(handler)
        for _ in range(5):
            log.reopen()
        handler.close()

    def test_a_file_that_cannot_be_opened_again_stays_as_it_was(self, tmp_path: Path) -> None:
        """The directory is gone: said in the old file, and nothing stops."""
        folder = tmp_path / "logs"
        folder.mkdir()
        logger = log.set_up("info", str(folder / "app.log"))
        folder.rename(tmp_path / "moved")
        log.reopen()
        logger.info("still here")
        said = [fields(x) for x in (tmp_path / "moved" / "app.log").read_text().splitlines()]
        assert [level for level, _, _ in said] == ["warning", "info"]
        assert "cannot be opened" in said[0][2]
        assert "No such file or directory" in said[0][2]

    def test_a_file_that_cannot_be_opened_at_first_is_refused(self, tmp_path: Path) -> None:
        """A usage error, in one line."""
        with pytest.raises(ConfigError, match=r"log file .* cannot be opened: No such file or directory"):
            log.set_up("info", str(tmp_path / "missing" / "app.log"))

    def test_other_handlers_are_not_touched(self, said: Said) -> None:
        """Standard error has no name to be opened under."""
        logger = log.set_up("info", None)
        log.reopen()
        logger.info("still here")
        assert "still here" in said()[0]


class TestNothingIsRaised:
    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")  # noqa: PTH110
    def test_on_a_full_disk(self, capfd: pytest.CaptureFixture[str]) -> None:
        """ENOSPC: the message is lost, the service is not, and nobody is told where nobody reads."""
        logger = log.set_up("info", "/dev/full")
        for _ in range(100):
            logger.info("x" * 1000)
        assert capfd.readouterr().err == ""

    def test_on_a_standard_error_that_is_closed_or_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A daemon may have none; a program may close it."""
        closed = io.StringIO()
        closed.close()
        logger = log.set_up("info", None)
        for stream in (closed, None):
            monkeypatch.setattr(sys, "stderr", stream)
            logger.info("x")

    def test_on_a_broken_pipe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reader of our standard error has left."""
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w", buffering=1, encoding="utf-8")
        logger = log.set_up("info", None)
        monkeypatch.setattr(sys, "stderr", stream)
        logger.info("x")
        with contextlib.suppress(BrokenPipeError):  # what could not be written is tried once more
            stream.close()

    def test_on_arguments_that_do_not_fit(self, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slip in a log call is no reason to stop serving."""
        with_nobody_listening(monkeypatch)
        log.default_logger().info("%d workers", "four")
        assert said() == []
