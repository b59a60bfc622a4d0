"""prefork puts a Python server on every core, and keeps it there."""

from __future__ import annotations

from prefork.errors import (
    AddressError,
    ApplicationError,
    CommandProducerError,
    ConfigError,
    ForkWithThreadsError,
    OnlyReuseportOnWindowsError,
    OverRecoveryError,
    PreforkError,
    TLSConfigError,
)
from prefork.identity import is_child
from prefork.prefork import Prefork
from prefork.servers.server import Server
from prefork.worker.listener import DrainedError
from prefork.worker.runtime import drain_orphan

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
