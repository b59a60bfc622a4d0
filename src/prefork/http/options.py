"""What our HTTP server can be told, each option declared once, with its name on the command line.

`HttpOptions` says what it does; what one client may take is in `limits`. Both are given to `Server(app, ...)` by name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Final, Literal

from prefork.errors import ConfigError
from prefork.http.limits import HttpLimits
from prefork.http.pages import Page
from prefork.options import about
from prefork.options.rules import TEXTS

LIFESPANS: Final = ("auto", "on", "off")
LOG_FORMATS: Final = ("common", "combined", "timed", "json")
FORWARDED_BY: Final = ("any", "x-forwarded", "forwarded")
MOST_THREADS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How the server serves. Raises ConfigError for what cannot be."""

    threads: int = field(
        default=8,
        metadata=about(
            "Threads of a worker for a WSGI application. 1: on the loop's own thread, which is the fastest for "
            "applications that wait for nothing.",
            "--threads",
        ),
    )
    request_timeout_s: float = field(
        default=math.inf,
        metadata=about(
            "Seconds that the application has for a request; then its task is cancelled, and the client gets 504, or a "
            "reset where the answer has begun. Not for WebSockets. A WSGI application's thread goes on; with --threads 1 "
            "only --hang-timeout ends it.",
            "--request-timeout",
        ),
    )
    lifespan: str = field(
        default="auto",
        metadata=about("ASGI lifespan; auto: if the application knows it.", "--lifespan", choices=LIFESPANS),
    )
    root_path: str = field(
        default="", metadata=about("The path under which a proxy has put the application.", "--root-path")
    )
    access_log: str | None = field(
        default=None,
        metadata=about(
            "Log each request to this file; - is standard output.", "--access-log", metavar="FILE"
        ),
    )
    access_log_format: str = field(
        default="combined",
        metadata=about(
            "Format of the access log; timed is combined with the microseconds that the request took behind it.",
            "--access-log-format",
            choices=LOG_FORMATS,
        ),
    )
    warmup: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Path that is requested (GET) from the application before workers are forked, so that they share what it "
            "loads; or http://HOST/PATH. The lifespan is not run for it. May be repeated.",
            "--warmup",
            metavar="PATH",
        ),
    )
    warmup_strict: bool = field(
        default=False,
        metadata=about(
            "A warm-up that raises, answers 500 or more, or takes too long is a failed start.",
            "--warmup-strict",
        ),
    )
    warmup_timeout_s: float = field(
        default=10.0,
        metadata=about("Time that each request of the warm-up has, in seconds.", "--warmup-timeout"),
    )
    trusted_proxies: str = field(
        default="127.0.0.1,::1,unix",
        metadata=about(
            "Proxies whose word on client and scheme is taken: addresses, networks, unix (Unix sockets), * (everybody); "
            "empty for none.",
            "--trusted-proxies",
        ),
    )
    forwarded_by: Literal["any", "x-forwarded", "forwarded"] = field(
        default="any",
        metadata=about(
            "The headers in which trusted proxies say it; any: X-Forwarded-* before Forwarded.",
            "--forwarded-by",
            choices=FORWARDED_BY,
        ),
    )
    forwarded_host: bool = field(
        default=False,
        metadata=about("Take the host, too, from what trusted proxies say.", "--forwarded-host"),
    )
    proxy_protocol: bool = field(
        default=False,
        metadata=about(
            "Every connection begins with the PROXY protocol, version 1 or 2; refused from untrusted proxies.",
            "--proxy-protocol",
        ),
    )

    def __post_init__(self) -> None:
        for name, choices in (
            ("lifespan", LIFESPANS),
            ("access_log_format", LOG_FORMATS),
            ("forwarded_by", FORWARDED_BY),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if type(self.threads) is not int or not 1 <= self.threads <= MOST_THREADS:
            raise ConfigError(
                f"threads must be a whole number from 1 to {MOST_THREADS}, not {self.threads!r}"
            )
        TEXTS("warmup", self.warmup)
        for text in self.warmup:
            Page.of(text)
        if type(self.warmup_timeout_s) not in (int, float) or not 0 < self.warmup_timeout_s < inf:
            raise ConfigError(
                f"warmup_timeout_s must be more than 0 seconds, and finite, not {self.warmup_timeout_s!r}"
            )
        timeout_s: Any = self.request_timeout_s
        if type(timeout_s) not in (int, float) or not timeout_s > 0:
            raise ConfigError(f"request_timeout_s must be more than 0 seconds, not {timeout_s!r}")
        path = self.root_path
        if path and (not path.startswith("/") or path.endswith("/")):
            raise ConfigError(f"root_path must begin with a slash and not end with one: {path!r}")


def split(given: Mapping[str, Any]) -> tuple[HttpOptions, HttpLimits]:
    """Options and limits from keywords. Raises ConfigError for a name that is neither, and names the nearest."""
    of_limits = {each.name for each in fields(HttpLimits)}
    of_options = {each.name for each in fields(HttpOptions)}
    for name in given:
        if name not in of_limits | of_options:
            near = difflib.get_close_matches(name, of_limits | of_options, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ConfigError(f"the HTTP server has no option {name!r}{hint}")
    return (
        HttpOptions(**{name: value for name, value in given.items() if name in of_options}),
        HttpLimits(**{name: value for name, value in given.items() if name in of_limits}),
    )
