"""How a zygote or a worker puts an exception of the application into one message for the master."""

from __future__ import annotations

import traceback

from prefork.channel import DETAILS_BYTES, BootFailed
from prefork.errors import ApplicationError, PreforkError


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception, its end kept where it is too long for a message."""
    return "".join(traceback.format_exception(error))[-DETAILS_BYTES:]


def failed_load(error: BaseException) -> BootFailed:
    """The application could not be loaded: final, because another try would end the same way."""
    if isinstance(error, ApplicationError):
        return BootFailed(str(error), error.details[-DETAILS_BYTES:], is_final=True)
    if isinstance(error, PreforkError):
        return BootFailed(str(error), "", is_final=True)
    summary = f"the application cannot be loaded: {type(error).__name__}: {error}"
    return BootFailed(summary, traceback_of(error), is_final=True)


def failed_serve(error: Exception) -> BootFailed:
    """The server raised before it accepted: a crash, unless it says that its application failed to start."""
    if isinstance(error, ApplicationError):
        return failed_load(error)
    summary = f"the server raised {type(error).__name__}: {error}"
    return BootFailed(summary, traceback_of(error), is_final=False)
