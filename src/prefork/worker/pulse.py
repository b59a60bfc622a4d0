"""How a worker says that something happens here again: the server's side of the watch for hung workers.

A server finds it on each of its listeners. It tells the master once when it wakes up from rest, and writes on its record of
the scoreboard (`listener.entry`) that its loop turns, for as long as anything happens:

    pulse = getattr(listener, "pulse", None)
    ...
    pulse.say_awake()          # behind `entry.wake()`
    entry.tell(..., is_awake=True)     # once a second from then on
    entry.tell(..., is_awake=False)    # at rest again

The master then looks, and only then. A server that says nothing is not watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType


def _nothing(_frame: FrameType | None) -> Iterable[str]:
    return ()


class Pulse:
    """One for each process."""

    __slots__ = ("_say", "describe", "is_watched", "part")

    def __init__(self, say: Callable[[], object], *, is_watched: bool) -> None:
        self.is_watched = is_watched
        """Whether anybody wants to know."""
        self.describe: Callable[[FrameType | None], Iterable[str]] = _nothing
        """The server's: the requests in flight, a line each, given where the main thread stands. For the log."""
        self.part: Callable[[FrameType | None], object] = _nothing
        """The server's: a last word to clients, given where the main thread stands, since this process is about to be killed."""
        self._say = say

    def say_awake(self) -> None:
        """Tell the master. Never blocks; main thread."""
        if self.is_watched:
            self._say()
