"""ASGI lifespan: start an application before its worker is ready, stop it after the last request.

Servers of other projects each bring a lifespan of their own. They print a failed start in every worker,
and two of them (uvicorn in its "auto" mode, hypercorn) take an application that raises while it starts
for one that knows no lifespan, and serve it half started. So this room has one of its own.

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
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Literal

from prefork.errors import ApplicationError, ConfigError
from prefork.servers.base import start_failure
from prefork.worker.listener import DrainedError

Mode = Literal["auto", "on", "off"]
Message = MutableMapping[str, Any]
ASGIApplication = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

_MODES: Final = ("auto", "on", "off")

logger: Final = logging.getLogger("prefork.servers")


class Lifespan:
    """One application's lifespan, in one worker. `state` is what it shares with its requests."""

    def __init__(self, app: ASGIApplication, mode: str = "auto") -> None:
        if mode not in _MODES:
            raise ConfigError(f"lifespan must be one of auto, on, off, not {mode!r}")
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._has_taken_startup = False
        self._error: BaseException | None = None

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
        if isinstance(self._error, DrainedError):
            raise self._error  # this process was told to leave, while the application's code ran
        is_exit = isinstance(self._error, SystemExit)
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
