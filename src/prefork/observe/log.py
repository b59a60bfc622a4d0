"""The log of prefork's own: one line a message, each with the identity of the process that says it.

    2026-11-23 16:39:01.123 info    [master 4711] ready: 4 workers

A program that has set up `logging` keeps its own ways: the logger is the ordinary "prefork", and only where nobody
listens to it is a handler for standard error added.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TextIO

from prefork.errors import ConfigError
from prefork.options import LOG_LEVELS

NAME: Final = "prefork"


class _Format(logging.Formatter):
    """Text for people. `identity` is the one thing that differs between processes, and is set after a fork."""

    default_msec_format = "%s.%03d"

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity = identity

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return (
            f"{self.formatTime(record)} {record.levelname.lower():<7} [{self.identity} {os.getpid()}] {text}"
        )


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error, whatever it is at the moment; a full disk or a closed pipe never stops serving."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_Format("master"))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop what cannot be written: telling so would go the same way."""


class _FileHandler(logging.FileHandler):
    """A log file that USR1 opens again; a full disk never stops serving."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.setFormatter(_Format("master"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop what cannot be written: telling so would go the same way."""


def default_logger() -> logging.Logger:
    """The logger "prefork", heard on standard error unless the program listens to it itself. Any process."""
    logger = logging.getLogger(NAME)
    if not logger.hasHandlers():
        logger.addHandler(_Handler())
        logger.setLevel(logging.INFO)
    return logger


def set_up(level: str, path: str | None) -> logging.Logger:
    """The command's logging: everything of that level to standard error, or to a file. Raises ConfigError."""
    if level not in LOG_LEVELS:
        raise ConfigError(f"log level must be one of {', '.join(LOG_LEVELS)}, not {level!r}")
    try:
        handler: logging.Handler = _FileHandler(path) if path else _Handler()
    except OSError as error:
        raise ConfigError(f"log file {path} cannot be opened: {error.strerror}") from error
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    return logging.getLogger(NAME)


def set_level(level: str) -> None:
    """Log from this level on: all of the command's log; in a program, which has its own, prefork's part. Any process."""
    root = logging.getLogger()
    is_ours = any(isinstance(handler.formatter, _Format) for handler in root.handlers)
    (root if is_ours else logging.getLogger(NAME)).setLevel(level.upper())


def level() -> str:
    """From which level on prefork logs."""
    return logging.getLevelName(logging.getLogger(NAME).getEffectiveLevel()).lower()


def introduce(identity: str) -> None:
    """Tell this process's log who it is ("worker 3"). Call after a fork."""
    for handler in _handlers():
        if isinstance(handler.formatter, _Format):
            handler.formatter.identity = identity


def reopen(*, only_moved: bool = False) -> None:
    """Close every log file of this process and open it again under its name (logrotate(8)). Any process.

    Args:
        only_moved: leave those alone that are still what their name stands for. For a fork, whose parent was forked
            off, or loaded, before the files were moved away.
    """
    for handler in _handlers():
        if isinstance(handler, logging.FileHandler) and not (only_moved and _is_in_place(handler)):
            handler.acquire()
            try:
                # What FileHandler does itself at its first message.
                stream, handler.stream = handler.stream, handler._open()  # noqa: SLF001
                if stream is not None:
                    stream.close()
            except OSError as error:
                logging.getLogger(NAME).warning(
                    "log file %s cannot be opened: %s", handler.baseFilename, error
                )
            finally:
                handler.release()


def _is_in_place(handler: logging.FileHandler) -> bool:
    stream: TextIO | None = handler.stream
    if stream is None:  # `delay`: it is opened with its first message
        return True
    try:
        return os.path.samestat(os.fstat(stream.fileno()), Path(handler.baseFilename).stat())
    except (OSError, ValueError):  # moved away, and nobody has opened a new one; or closed
        return False


def _handlers() -> Iterable[logging.Handler]:
    loggers = [logging.getLogger()]
    loggers += [x for x in logging.Logger.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    return {handler for logger in loggers for handler in logger.handlers}
