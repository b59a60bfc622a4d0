"""Rate limits that hold for all workers together."""

from __future__ import annotations

from prefork.errors import ConfigError
from prefork.shared.face import Face, key_bytes, name_bytes
from prefork.shared.store import Bucket, Verdict, Window


class RateLimiter(Face):
    """So many in so many seconds for each key (a client, say), whichever worker sees them.

        limiter = RateLimiter("login", limit=5, window_s=60)
        verdict = limiter.take("192.0.2.7")
        if not verdict.is_allowed: ...   # come back in verdict.retry_after_s

    limit: how many within `window_s` seconds.
    algorithm: "bucket", tokens that come back evenly, `burst` of them at most (default: `limit`); or "window", a sliding one: at most
        `limit` in any `window_s` seconds, as far as those of the window before came evenly.

    A key that nobody asks for takes no place after a while; a store that is full of what is used more may forget one earlier, which errs on the
    side of letting through.
    """

    def __init__(
        self,
        name: str,
        *,
        limit: float,
        window_s: float = 1.0,
        burst: float | None = None,
        algorithm: str = "bucket",
        url: str | None = None,
    ) -> None:
        super().__init__(url)
        given: dict[str, object] = {
            "limit": limit,
            "window_s": window_s,
            "burst": 1 if burst is None else burst,
        }
        for what, value in given.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
                raise ConfigError(f"rate limiter {name!r}: {what} must be more than 0, not {value!r}")
        if algorithm not in {"bucket", "window"}:
            raise ConfigError(
                f'rate limiter {name!r}: algorithm must be "bucket" or "window", not {algorithm!r}'
            )
        if algorithm == "window" and burst is not None:
            raise ConfigError(f"rate limiter {name!r}: a sliding window has no burst")
        self.name = name
        self._prefix = name_bytes(name, "rate limiter") + b"\0"
        self.limit: Bucket | Window = (
            Window(float(limit), float(window_s))
            if algorithm == "window"
            else Bucket(limit / window_s, float(limit if burst is None else burst))
        )

    def take(self, key: str | bytes, amount: float = 1.0) -> Verdict:
        """Take from the limit of this key, if there is enough. Does not wait. Raises SharedError, ConfigError."""
        if not amount > 0:
            raise ConfigError(f"rate limiter {self.name!r}: take more than 0, not {amount!r}")
        return self.store.take(self._prefix + key_bytes(key), self.limit, float(amount))

    def forget(self, key: str | bytes) -> None:
        """Give this key its full limit back."""
        self.store.forget(self._prefix + key_bytes(key))
