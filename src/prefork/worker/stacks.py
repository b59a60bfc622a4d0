"""Where a worker stands: the stacks of all its threads, and of the tasks of the loop that runs in the main one."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

from prefork.channel import DETAILS_BYTES

_DEEPEST = 100
"""Coroutines that wait for one another, at most: a cycle must not hold us up."""


def stacks(main: FrameType | None, floor: CodeType, before: Iterable[str] = ()) -> str:
    """The text, cut to what a message may hold: threads first, because there may be many tasks.

    Args:
        main: where the main thread stood when the signal came in whose handler asks.
        floor: the function below which that thread's stack is not the worker's, but of what was forked.
        before: lines to begin with: the requests in flight.
    """
    text = "\n".join([*before, *_threads(main, floor), *_tasks()])
    while len(json.dumps(text)) > DETAILS_BYTES:  # escapes counted: up to six bytes a character
        text = text[: -(len(text) // 8 + 1)]
    return text


def _threads(main: FrameType | None, floor: CodeType) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    here = threading.get_ident()
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  (the only way there is, and documented)
        top = main if ident == here and main is not None else frame
        yield f"thread {names.get(ident, ident)}:"
        yield from _format(reversed(list(_down(top, floor))))


def _down(frame: FrameType | None, floor: CodeType) -> Iterator[FrameType]:
    while frame is not None and frame.f_code is not floor:
        yield frame
        frame = frame.f_back


def _format(frames: Iterable[FrameType]) -> Iterator[str]:
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    text = "".join(summary.format()).rstrip()
    if text:
        yield text


def _tasks() -> Iterator[str]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no loop runs in this thread
        return
    for task in asyncio.all_tasks(loop):
        yield f"task {task.get_name()}:"
        yield from list(_format(_frames(task.get_coro()))) or [f"  {task!r}"]


def _frames(awaited: Any) -> Iterator[FrameType]:
    """From the task's coroutine down to what it waits for in the end. `Task.get_stack` shows the first one only."""
    for _ in range(_DEEPEST):
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
