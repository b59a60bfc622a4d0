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
from prefork.observe.formats import Format, Identity, TextFormat, format_of
from prefork.observe.patience import Patience, may_halt
from prefork.options import LOG_LEVELS

NAME: Final = "prefork"


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error, whatever it is at the moment; a full disk or a closed pipe never stops serving, nor a reader that halts."""

    def __init__(self, form: Format) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(form)
        self._patience = Patience()

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if not may_halt(self.stream):
            super().emit(record)
            return
        try:
            self._write(record)
        except Exception:  # as in StreamHandler.emit: an argument that does not fit, a pipe that is closed
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> None:
        lost = self._patience.lost
        if not self._patience.write(self.stream, self.format(record) + "\n") or not lost:
            return
        self._patience.lost = 0
        text = "%d messages could not be written: the reader of standard error had stopped"
        told = logging.LogRecord(NAME, logging.WARNING, __file__, 0, text, (lost,), None)
        self._patience.write(self.stream, self.format(told) + "\n")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop what cannot be written: telling so would go the same way."""


class _FileHandler(logging.FileHandler):
    """A log file that USR1 opens again; a full disk never stops serving."""

    def __init__(self, path: str, form: Format) -> None:
        super().__init__(path)
        self.setFormatter(form)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop what cannot be written: telling so would go the same way."""


def default_logger() -> logging.Logger:
    """The logger "prefork", heard on standard error unless the program listens to it itself. Any process."""
    logger = logging.getLogger(NAME)
    if not logger.hasHandlers():
        logger.addHandler(_Handler(TextFormat()))
        logger.setLevel(logging.INFO)
    return logger


def set_up(level: str, path: str | None, form: str = "text") -> logging.Logger:
    """The command's logging: everything of that level, as "text" or "json", to standard error or a file. Raises ConfigError."""
    if level not in LOG_LEVELS:
        raise ConfigError(f"log level must be one of {', '.join(LOG_LEVELS)}, not {level!r}")
    try:
        handler: logging.Handler = _FileHandler(path, format_of(form)) if path else _Handler(format_of(form))
    except OSError as error:
        raise ConfigError(f"log file {path} cannot be opened: {error.strerror}") from error
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    return logging.getLogger(NAME)


def set_level(level: str) -> None:
    """Log from this level on: all of the command's log; in a program, which has its own, prefork's part. Any process."""
    root = logging.getLogger()
    is_ours = any(isinstance(handler.formatter, Format) for handler in root.handlers)
    (root if is_ours else logging.getLogger(NAME)).setLevel(level.upper())


def level() -> str:
    """From which level on prefork logs."""
    return logging.getLevelName(logging.getLogger(NAME).getEffectiveLevel()).lower()


def introduce(role: str, slot: int | None = None, generation: int | None = None) -> None:
    """Tell this process's log who it is: ("worker", 3, 1). Call after a fork."""
    for handler in _handlers():
        if isinstance(handler.formatter, Format):
            handler.formatter.identity = Identity(role, slot, generation)


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
