"""Topics, for asyncio."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

from prefork.shared.aio.away import away, is_readable
from prefork.shared.face import Deadline
from prefork.shared.store import Store
from prefork.shared.topic import Listener, Topic
from prefork.shared.values import Serialiser


class AsyncTopic:
    """A `Topic` that is spoken to and heard in a loop.

    news = AsyncTopic("config")
    await news.publish({"debug": True})
    async with await news.listen() as listener:
        async for message in listener: ...
    """

    def __init__(self, name: str, *, serialise: str | Serialiser = "pickle", url: str | None = None) -> None:
        self.topic = Topic(name, serialise=serialise, url=url)

    async def publish(self, message: Any) -> None:
        """As `Topic.publish`."""
        await away(self.topic.store, self.topic.publish, message)

    async def listen(self) -> AsyncListener:
        """Listen from now on."""
        store = self.topic.store
        return AsyncListener(store, await away(store, self.topic.listen))


class AsyncListener:
    """What one listener hears. For one task."""

    def __init__(self, store: Store, listener: Listener) -> None:
        self._store = store
        self._listener = listener
        self._waiting: deque[Any] = deque()

    async def get(self, timeout_s: float | None = None) -> Any:
        """The next message. None: for ever. Raises TimeoutError, MessagesLostError, StoreUnavailableError."""
        deadline = Deadline(timeout_s)
        while not self._waiting:
            self._waiting.extend(await away(self._store, self._listener.take))
            if not self._waiting:
                left_s = deadline.left_s()
                if left_s == 0.0:
                    raise TimeoutError("nothing was said in all the time that was given")
                await is_readable(self._listener.fileno(), left_s)
        return self._waiting.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self.get()

    async def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()
