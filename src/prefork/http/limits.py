"""What one client may take: sizes, counts and patience. On by default, each with its answer and its source.

Not here: the bound of a drain (the master's grace period), and bounds of what an application does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from prefork.errors import ConfigError

SLICE_BYTES: Final = 32 * 1024
"""How much of what was read is parsed at once. A chunk of 256 KiB (libuv's read) may hold ten thousand pipelined
requests; what is not parsed yet costs its own bytes only."""

BODY_HIGH_WATER_BYTES: Final = 64 * 1024
"""Request body that is held for an application that does not take it; above it nothing more is read. asyncio's and
uvicorn's own figure."""

DISCARD_BYTES: Final = 256 * 1024
"""Body that is read and thrown away, after an answer that came early, to keep the connection. Go's net/http: 256 KiB."""

LINGER_S: Final = 2.0
"""How long a connection that we close is still read: a close with unread input resets it, and the answer with it
(RFC 9112 §9.6). And how long an idle connection may bring a request while draining (gunicorn: 2 s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The limits of each connection. Sizes in bytes, times in seconds. Raises ConfigError for what is not positive."""

    head_bytes: int = 64 * 1024
    """Request line and headers; 431. uvicorn and gunicorn allow 64 KiB, nginx 32 KiB, Go 1 MiB."""

    header_count: int = 100
    """Header lines; 431. gunicorn and Apache: 100."""

    target_bytes: int = 8 * 1024
    """The request target; 414. RFC 9112 §3 recommends at least 8,000 octets; nginx: 8 KiB."""

    body_bytes: int = 1024**3
    """The request body; 413. A bound of last resort, since bodies are streamed: what the application does not bound."""

    head_s: float = 10.0
    """From the first byte of a request (or the accept) to the end of its head; 408. Apache's mod_reqtimeout: 20 s."""

    keep_alive_s: float = 75.0
    """How long an idle connection is kept; closed in silence. nginx: 75 s, above a load balancer's usual 60 s."""

    body_s: float = 30.0
    """Longest pause within a body that the application waits for; 408. gunicorn: 30 s."""

    send_s: float = 60.0
    """Longest time that a client may take nothing of an answer; the connection is reset. nginx: 60 s."""

    message_bytes: int = 1024**2
    """A WebSocket message, after decompression; close 1009. websockets: 1 MiB, uvicorn: 16 MiB."""

    ping_s: float = 20.0
    """How long a WebSocket may say nothing before it is pinged; and how long it may leave a ping unanswered before it
    is given up: close 1011. websockets, uvicorn: 20 s."""

    connections: int = 16 * 1024
    """Open connections a worker, or as many as its descriptors allow (RLIMIT_NOFILE), if that is less. Above it nothing is
    accepted until one closes: what waits stays in the queue. nginx: 512, gunicorn: 1,000."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigError(
                    f"the limit {field.name} must be above zero, not {getattr(self, field.name)!r}"
                )
