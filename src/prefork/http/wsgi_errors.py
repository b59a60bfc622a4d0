"""`wsgi.errors`: what an application says of its troubles goes to the log, a line at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

_LOGGER: Final = logging.getLogger("prefork.http.wsgi")
"""A name of its own, so that it can be sent elsewhere or silenced by itself."""

_MOST_CHARACTERS: Final = 64 * 1024
"""A line that is longer is cut in pieces."""


class ErrorStream:
    """A text stream to write to (PEP 3333, "Input and Error Streams").

    One for each connection, whose requests follow one another, so that lines of several never mix. What does not end with a line break waits for the rest of the line, for `flush`, or for the connection's end.
    """

    __slots__ = ("_line",)

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        """Take text; whole lines are logged as one record. Raises TypeError for what is no string. Any thread."""
        line = self._line + text
        whole, separator, rest = line.rpartition("\n")
        if len(rest) > _MOST_CHARACTERS:
            whole, separator, rest = line, "\n", ""
        self._line = rest
        if separator and whole.strip():
            _LOGGER.error("%s", whole)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """`write` each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what waits for the rest of its line."""
        line, self._line = self._line, ""
        if line.strip():
            _LOGGER.error("%s", line)

    def __del__(self) -> None:
        self.flush()
