"""Where an application stands, for the log of one that takes too long."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

_DEEPEST: Final = 100
"""Coroutines that wait for one another, as deep as they are shown: a cycle must not hold us up."""


def stack_of(task: asyncio.Task[None] | None, frame: FrameType | None) -> str:
    """Where an application stands, as text: in a thread, or in what its task waits for."""
    if frame is not None:
        return "".join(traceback.format_stack(frame)).rstrip()
    if task is None:
        return "nowhere: it waits for a thread"
    summary = traceback.StackSummary.extract((each, each.f_lineno) for each in _awaited(task.get_coro()))
    return "".join(summary.format()).rstrip() or repr(task)


def _awaited(awaited: Any) -> Iterator[FrameType]:
    """From a coroutine down to what it waits for in the end; `Task.print_stack` shows the first one only."""
    for _ in range(_DEEPEST):
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
