"""How a line of the log looks: text for people, JSON for programs. Both begin with who says it.

    2026-11-23 16:39:01.123 info    [worker 3 4711] slow
    {"time":"2026-11-23T16:39:01.123+00:00","level":"warning","process":"worker","slot":3,"pid":4711,"generation":2,
     "logger":"prefork","message":"slow"}                                                             (in one line)

In JSON a line is one object whatever is in the message, and a traceback is the field `exception`, also where it came to
the master as the text of another process.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

_TRACEBACK: Final = "\nTraceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is among those of a fleet."""

    role: str = "master"
    """"master", "zygote" or "worker"."""
    slot: int | None = None
    """A worker's place."""
    generation: int | None = None
    """Of the application's code; the master has none."""

    def __str__(self) -> str:
        number = self.generation if self.slot is None else self.slot
        return self.role if number is None else f"{self.role} {number}"


class Format(logging.Formatter):
    """What both have in common: `identity`, the one thing that differs between processes, is set after a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = Identity()


class TextFormat(Format):
    """Text for people; a traceback follows its line."""

    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return (
            f"{self.formatTime(record)} {record.levelname.lower():<7} [{self.identity} {os.getpid()}] {text}"
        )


class JsonFormat(Format):
    """One object a line. What does not apply to a process (the slot of a master) is left out."""

    def format(self, record: logging.LogRecord) -> str:
        message, exception = record.getMessage(), self._exception(record)
        if exception is None and _TRACEBACK in message:
            message, begin, rest = message.partition(_TRACEBACK)
            exception = begin.lstrip("\n") + rest
        identity = self.identity
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": identity.role,
            "slot": identity.slot,
            "pid": os.getpid(),
            "generation": identity.generation,
            "logger": record.name,
            "message": message,
            "exception": exception,
        }
        return json.dumps({k: v for k, v in fields.items() if v is not None}, separators=(",", ":"))

    def _exception(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return self.formatException(record.exc_info)
        return record.exc_text or None


def format_of(name: str) -> Format:
    """The format called `name`: "text" or "json"."""
    return JsonFormat() if name == "json" else TextFormat()
