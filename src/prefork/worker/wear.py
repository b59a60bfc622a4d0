"""How a worker says that it has served enough: the server's side of recycling (`max_requests`).

A server finds it on each of its listeners, and needs no more than this:

    wear = getattr(listener, "wear", None)
    ...
    served += 1
    if wear is not None and served == wear.requests:
        wear.say_worn()

The worker then goes on as before: the master spawns its successor, and drains it when that one is ready.
"""

from __future__ import annotations

from collections.abc import Callable


class Wear:
    """What is asked of this worker. One for each process."""

    __slots__ = ("_say", "requests")

    def __init__(self, requests: int, say: Callable[[str], object]) -> None:
        self.requests = requests
        """Requests that it is to serve, jitter included; 0: no bound."""
        self._say: Callable[[str], object] | None = say

    def say_worn(self) -> None:
        """Tell the master that enough has been served. Once is enough; never blocks; any thread."""
        say, self._say = self._say, None
        if say is not None:
            say(f"it has served {self.requests} requests")
