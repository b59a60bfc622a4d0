"""How a zygote or a worker puts an exception of the application into one message for the master."""

from __future__ import annotations

import json
import traceback

from prefork.channel import DETAILS_BYTES, BootFailed
from prefork.errors import ApplicationError, PreforkError

SUMMARY_CHARACTERS = 500
"""An exception's own text may be as long as it likes; a line of a log may not."""


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception."""
    return "".join(traceback.format_exception(error))


def _failed(summary: str, details: str, *, is_final: bool) -> BootFailed:
    """As a message that fits the socket's buffer, whatever was raised: the end of the details is kept."""
    while len(json.dumps(details)) > DETAILS_BYTES:  # escapes counted: up to six bytes a character
        details = details[len(details) // 8 + 1 :]
    return BootFailed(summary.partition("\n")[0][:SUMMARY_CHARACTERS], details, is_final=is_final)


def failed_load(error: BaseException) -> BootFailed:
    """The application could not be loaded: final, because another try would end the same way."""
    if isinstance(error, ApplicationError):
        return _failed(str(error), error.details, is_final=True)
    if isinstance(error, PreforkError):
        return _failed(str(error), "", is_final=True)
    summary = f"the application cannot be loaded: {type(error).__name__}: {error}"
    return _failed(summary, traceback_of(error), is_final=True)


def failed_serve(error: Exception) -> BootFailed:
    """The server raised before it accepted: a crash, unless it says that its application failed to start."""
    if isinstance(error, PreforkError):
        return failed_load(error)
    summary = f"the server raised {type(error).__name__}: {error}"
    return _failed(summary, traceback_of(error), is_final=False)
