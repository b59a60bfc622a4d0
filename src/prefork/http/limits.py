"""What one client may take: sizes, counts and patience. On by default, each with its answer and its source.

Not here: the bound of a drain (the master's grace period), and bounds of what an application does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Final

from prefork.errors import ConfigError
from prefork.options import about

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
    """The limits of each connection. Sizes in bytes, times in seconds. Raises ConfigError for what cannot be."""

    # uvicorn and gunicorn allow 64 KiB, nginx 32 KiB, Go 1 MiB.
    head_bytes: int = field(
        default=64 * 1024,
        metadata=about("Bytes of a request's line and headers; more is answered with 431.", "--head-bytes"),
    )
    # gunicorn and Apache: 100.
    header_count: int = field(
        default=100, metadata=about("Headers of a request; more is answered with 431.", "--header-count")
    )
    # RFC 9112 §3 recommends at least 8,000 octets; nginx: 8 KiB.
    target_bytes: int = field(
        default=8 * 1024,
        metadata=about("Bytes of a request's target; more is answered with 414.", "--target-bytes"),
    )
    # A bound of last resort, since bodies are streamed: what the application does not bound.
    body_bytes: int = field(
        default=1024**3,
        metadata=about("Bytes of a request's body; more is answered with 413.", "--body-bytes"),
    )
    # Apache's mod_reqtimeout: 20 s.
    head_s: float = field(
        default=10.0,
        metadata=about(
            "Seconds from the first byte of a request (or the connection) to the end of its head; then 408.",
            "--head-timeout",
        ),
    )
    # nginx: 75 s, above a load balancer's usual 60 s.
    keep_alive_s: float = field(
        default=75.0,
        metadata=about("Seconds that an idle connection is kept; then closed.", "--keep-alive"),
    )
    # gunicorn: 30 s.
    body_s: float = field(
        default=30.0,
        metadata=about(
            "Longest pause, in seconds, within a body that the application waits for; then 408.",
            "--body-timeout",
        ),
    )
    # nginx: 60 s.
    send_s: float = field(
        default=60.0,
        metadata=about(
            "Seconds that a client may take nothing of an answer; then the connection is reset.",
            "--send-timeout",
        ),
    )
    # websockets: 1 MiB, uvicorn: 16 MiB.
    message_bytes: int = field(
        default=1024**2,
        metadata=about(
            "Bytes of a WebSocket message, decompressed; more is closed with 1009.", "--message-bytes"
        ),
    )
    # websockets, uvicorn: 20 s.
    ping_s: float = field(
        default=20.0,
        metadata=about(
            "Seconds of silence after which a WebSocket is pinged, and in which it must answer; else closed with 1011.",
            "--ping-interval",
        ),
    )
    # nginx: 512, gunicorn: 1,000.
    connections: int = field(
        default=16 * 1024,
        metadata=about(
            "Open connections a worker, or as many as its descriptors allow if that is less; more wait in the queue of "
            "the listening socket.",
            "--connections",
        ),
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(f"the limit {each.name} must be a number above zero, not {value!r}")
            if not each.name.endswith("_s") and (math.isinf(value) or value != int(value)):
                raise ConfigError(f"the limit {each.name} must be a whole number, not {value!r}")
