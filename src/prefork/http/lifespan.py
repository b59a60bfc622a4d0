"""ASGI lifespan: start an application before its worker is ready, stop it after the last request.

Rules (https://asgi.readthedocs.io/en/stable/specs/lifespan.html):

* `lifespan.startup.failed` is a failed start.
* An exception after the application has taken `lifespan.startup` is a failed start too.
* An exception before that, or a plain return, means that the application knows no lifespan: it is served
  without, as the specification asks; with mode "on" it is a failed start.
* A failed shutdown is logged and ends nothing else.

Not here: what a worker does with a failed start.
"""

from __future__ import annotations

import asyncio
import traceback
from types import TracebackType
from typing import Any, Final, Literal

from prefork.errors import ApplicationError, ConfigError, DrainedError
from prefork.http.asgi import ASGIApplication, Message
from prefork.http.exchange import logger
from prefork.http.options import LIFESPANS

Mode = Literal["auto", "on", "off"]

_OURS: Final = ("prefork", "uvicorn", "hypercorn", "aiohttp", "waitress", "asyncio")
"""Packages whose frames stand above the application's in a traceback, and tell nobody anything."""


class Lifespan:
    """One application's lifespan, in one worker. `state` is what it shares with its requests."""

    def __init__(self, app: ASGIApplication, mode: str = "auto") -> None:
        self.check(mode)
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._has_taken_startup = False
        self._error: BaseException | None = None

    @staticmethod
    def check(mode: str) -> None:
        """Raise ConfigError if there is no such mode."""
        if mode not in LIFESPANS:
            raise ConfigError(f"lifespan must be one of auto, on, off, not {mode!r}")

    async def startup(self) -> None:
        """Start the application. Raises `ApplicationError` if it refuses, with its traceback in `details`."""
        if self._mode == "off":
            return
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.complete":
            return
        task, self._task = self._task, None
        if answer is not None:
            await self._end(task)
            raise self._refused(str(answer.get("message", "")))
        is_exit = isinstance(self._error, SystemExit)
        if isinstance(self._error, DrainedError):
            raise self._error  # this process was told to leave, while the application's code ran
        if self._error is not None and (is_exit or self._has_taken_startup or self._mode == "on"):
            raise start_failure(self._error)
        if self._mode == "on":
            raise ApplicationError("the application knows no lifespan, and lifespan='on' asks for one")
        logger.debug("the application knows no lifespan: served without")

    async def shutdown(self) -> None:
        """Stop the application, if it was started. A failure is logged."""
        if self._task is None:
            return
        task, self._task = self._task, None
        answer = await self._ask("lifespan.shutdown")
        await self._end(task)
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("the application failed to shut down: %s", answer.get("message", ""))
        elif self._error is not None:
            logger.error("the application failed to shut down", exc_info=self._error)

    async def _ask(self, event: str) -> Message | None:
        """Send `event`; the application's answer, or None if it has ended without one."""
        self._to_app.put_nowait({"type": event})
        return await self._from_app.get()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit let through would stop the whole loop
            self._error = error
        finally:
            self._from_app.put_nowait(None)

    async def _receive(self) -> Message:
        message = await self._to_app.get()
        self._has_taken_startup = True
        return message

    async def _send(self, message: Message) -> None:
        if not str(message["type"]).startswith("lifespan."):
            # An application that takes every scope for a request: it knows no lifespan.
            self._has_taken_startup = False
            raise RuntimeError(f"not a message of lifespan: {message['type']!r}")
        self._from_app.put_nowait(message)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Let the task end by itself for a moment, since frameworks raise after they have answered."""
        _, pending = await asyncio.wait({task}, timeout=1.0)
        for straggler in pending:
            straggler.cancel()

    def _refused(self, message: str) -> ApplicationError:
        if self._error is not None:
            return start_failure(self._error)
        summary = message.strip().splitlines()[-1] if message.strip() else "lifespan.startup.failed"
        return ApplicationError(f"the application failed to start: {summary}", message)


def start_failure(error: BaseException) -> ApplicationError:
    """The `ApplicationError` for an `error` that the application raised while it started."""
    summary = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = error.__traceback__
    while frames is not None and not _is_of_application(frames):
        frames = frames.tb_next
    details = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    return ApplicationError(f"the application failed to start: {summary}", details)


def _is_of_application(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] not in _OURS
