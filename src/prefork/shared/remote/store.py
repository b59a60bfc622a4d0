"""The store behind `redis://`, `rediss://` and `unix://`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prefork.errors import NotANumberError
from prefork.shared.remote import scripts
from prefork.shared.remote.client import Client, milliseconds
from prefork.shared.remote.locks import RedisHold, RedisWaiter, Renewer, key_of
from prefork.shared.remote.space import RedisSpace
from prefork.shared.remote.topics import RedisSubscription, publish
from prefork.shared.store import Bucket, Hold, Space, Subscription, Verdict, Waiter, Window


class RedisStore:
    """See `store.Store`. Raises ConfigError for a URL that cannot work."""

    is_local = False

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        prefix = self._client.prefix
        self._numbers = [prefix + b"i", prefix + b"f"]
        self._texts = prefix + b"d"
        self._made_renewer: Renewer | None = None
        self._spaces: dict[bytes, RedisSpace] = {}

    # -- entries ----------------------------------------------------------------------------------

    def space(self, name: bytes) -> Space:
        """One object for each name, because it counts hits: Django makes a backend for each thread and each async request."""
        return self._spaces.setdefault(name, RedisSpace(self._client, name))

    # -- numbers and texts ------------------------------------------------------------------------

    def add(self, name: bytes, amount: float) -> None:
        self.add_many([(name, amount)])

    def add_many(self, items: Sequence[tuple[bytes, float]]) -> None:
        words: list[Any] = []
        for name, amount in items:
            if isinstance(amount, int) and not -(2**63) <= amount < 2**63:
                raise NotANumberError(f"a counter has 64 bits: {amount} more do not fit")
            words += [name, "i" if isinstance(amount, int) else "f", repr(amount)]
        try:
            self._client.run(scripts.ADD, self._numbers, words)
        except NotANumberError as error:
            what = "counts in integers" if "integers" in str(error) else "has 64 bits"
            amounts = ", ".join(f"{amount} to {name!r}" for name, amount in items)
            raise NotANumberError(f"it {what}: {amounts} cannot be added") from error

    def numbers(self, prefix: bytes) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        for key, kind in zip(self._numbers, (int, float), strict=True):
            found |= {name: kind(text) for name, text in self._fields(key, prefix).items()}
        return found

    def number(self, name: bytes) -> float:
        def ask(r: Any) -> list[bytes | None]:
            with r.pipeline(transaction=False) as pipeline:
                for key in self._numbers:
                    pipeline.hget(key, name)
                answers: list[bytes | None] = pipeline.execute()
                return answers

        whole, real = self._client.call(ask)
        return int(whole) if whole is not None else float(real) if real is not None else 0

    def reset(self, name: bytes) -> float:
        kind, text = self._client.run(scripts.RESET, self._numbers, [name])
        return int(text) if kind == 1 else float(text)

    def describe(self, name: bytes, text: bytes) -> None:
        self._client.command("HSET", self._texts, name, text)

    def descriptions(self, prefix: bytes) -> dict[bytes, bytes]:
        return self._fields(self._texts, prefix)

    def _fields(self, key: bytes, prefix: bytes) -> dict[bytes, bytes]:
        """The fields of a hash whose names begin so, a thousand at a time, so that nobody else waits long."""
        found: dict[bytes, bytes] = {}
        cursor: Any = 0
        while True:
            cursor, page = self._client.command("HSCAN", key, cursor, "COUNT", 1000)
            found |= {name: text for name, text in page.items() if name.startswith(prefix)}
            if not int(cursor):
                return found

    # -- rate limits ------------------------------------------------------------------------------

    def take(self, key: bytes, limit: Bucket | Window, amount: float) -> Verdict:
        if isinstance(limit, Bucket):
            script, mark, words = scripts.TAKE_TOKENS, b"b:", [limit.per_s, limit.burst, amount]
        else:
            script, mark, words = scripts.TAKE_WINDOW, b"w:", [limit.limit, limit.window_s, amount]
        where = [self._client.prefix + mark + key]
        is_allowed, remaining, retry_s = self._client.run(script, where, [repr(word) for word in words])
        return Verdict(is_allowed=bool(is_allowed), remaining=float(remaining), retry_after_s=float(retry_s))

    def forget(self, key: bytes) -> None:
        self._client.command("UNLINK", *(self._client.prefix + mark + key for mark in (b"b:", b"w:")))

    # -- locks ------------------------------------------------------------------------------------

    def try_lock(self, name: bytes, lease_s: float | None) -> Hold | None:
        client = self._client
        lease = client.lease_s if lease_s is None else lease_s
        token = os.urandom(16)
        where = [key_of(client, name), client.prefix + b"fencing"]
        fencing = client.run(scripts.LOCK, where, [token, milliseconds(lease)])
        if fencing is None:
            return None
        renewer = self._renewer if lease_s is None else None
        return RedisHold(client, name, token, fencing=int(fencing), lease_s=lease, renewer=renewer)

    @property
    def _renewer(self) -> Renewer:
        """That of this process: a thread does not cross a fork."""
        if self._made_renewer is None or self._made_renewer.pid != os.getpid():
            self._made_renewer = Renewer(self._client.lease_s / 3)
        return self._made_renewer

    def lock_waiter(self, name: bytes) -> Waiter:
        return RedisWaiter(self._client, name)

    # -- topics -----------------------------------------------------------------------------------

    def publish(self, topic: bytes, message: bytes) -> None:
        publish(self._client, topic, message)

    def subscribe(self, topic: bytes) -> Subscription:
        return RedisSubscription(self._client, topic)

    # -- all of it --------------------------------------------------------------------------------

    def clear(self) -> None:
        client = self._client
        for mark in (b"e:", b"s:", b"b:", b"w:"):
            for page in client.scan(client.prefix + mark):
                client.command("UNLINK", *page)
        client.command("UNLINK", *self._numbers)

    def close(self) -> None:
        self._client.close()
