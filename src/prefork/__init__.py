"""prefork puts a Python server on every core, and keeps it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefork.errors import (
    AddressError,
    ApplicationError,
    CommandProducerError,
    ConfigError,
    DrainedError,
    ForkWithThreadsError,
    OnlyReuseportOnWindowsError,
    OverRecoveryError,
    PreforkError,
    TLSConfigError,
)
from prefork.identity import is_child
from prefork.prefork import Prefork
from prefork.worker.orphans import drain_orphan

if TYPE_CHECKING:
    from prefork.servers.server import Server

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "ApplicationError",
    "CommandProducerError",
    "ConfigError",
    "DrainedError",
    "ForkWithThreadsError",
    "OnlyReuseportOnWindowsError",
    "OverRecoveryError",
    "Prefork",
    "PreforkError",
    "Server",
    "TLSConfigError",
    "drain_orphan",
    "is_child",
]


def __getattr__(name: str) -> object:
    """`Server` is loaded when it is asked for: the command's master has no use for a server."""
    if name == "Server":
        from prefork.servers.server import Server

        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
