"""Topics: one worker tells all the others, and nobody polls."""

from __future__ import annotations

import math
import select
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from prefork.shared.face import Deadline, Face, name_bytes
from prefork.shared.store import Subscription
from prefork.shared.values import Serialiser, decode, encode, serialiser


class Topic(Face):
    """A place where one worker tells something to all that listen, itself included.

        news = Topic("config")
        news.publish({"debug": True})
        with news.listen() as listener:
            for message in listener: ...

    Made for news (a cache to clear, a setting that has changed), not for work: everybody hears everything said from `listen`
    on, in order, and who was not listening never does. A message has 16 KB at most.
    """

    def __init__(self, name: str, *, serialise: str | Serialiser = "pickle", url: str | None = None) -> None:
        super().__init__(url)
        self.name = name
        self._name = name_bytes(name, "topic")
        self._serialiser = serialiser(serialise)

    def publish(self, message: Any) -> None:
        """Tell it. Raises SharedError (too large, not serialisable, no store). Does not wait for who listens."""
        self.store.publish(self._name, encode(message, self._serialiser))

    def listen(self) -> Listener:
        """Listen from now on. Make it in the worker: a listener does not cross a fork."""
        return Listener(self.store.subscribe(self._name), self._serialiser)


class Listener:
    """What one listener hears. For one thread, or one event loop (`fileno` for its `add_reader`, then `take`)."""

    def __init__(self, subscription: Subscription, using: Serialiser) -> None:
        self._subscription = subscription
        self._using = using
        self._waiting: deque[Any] = deque()

    def fileno(self) -> int:
        """Readable when there may be something to take."""
        return self._subscription.fileno()

    def take(self) -> list[Any]:
        """All messages that are there, oldest first; does not wait. Raises MessagesLostError if this one was too slow."""
        found = [*self._waiting, *(decode(x, self._using) for x in self._subscription.take())]
        self._waiting.clear()
        return found

    def get(self, timeout_s: float | None = None) -> Any:
        """The next message. Blocks this thread; None: for ever. Raises TimeoutError, MessagesLostError."""
        deadline = Deadline(timeout_s)
        while not self._waiting:
            self._waiting.extend(self.take())
            if not self._waiting:
                left_s = deadline.left_s()
                if left_s == 0.0:
                    raise TimeoutError("nothing was said in all the time that was given")
                poll = select.poll()
                poll.register(self.fileno(), select.POLLIN)
                poll.poll(None if left_s == math.inf else math.ceil(left_s * 1000))
        return self._waiting.popleft()

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.get()

    def close(self) -> None:
        """Listen no more."""
        self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
