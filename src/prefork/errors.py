"""The exceptions of prefork: whose fault it is, and what to do.

Four families, because the reader of an error wants to know first whose turn it is:

* `ConfigError`: the user's configuration is wrong (an option, an address, a certificate). The command
  prints one line and exits with status 2.
* `ApplicationError`: the application did not start. The command prints the application's traceback
  once and exits with status 3.
* `SupervisionError`: the fleet could not be kept alive. The command exits with status 4.
* `SharedError`: a call of the application to `prefork.shared` failed. The process goes on; what to do is said.

`DrainedError` is none of these: it is no failure, it ends a worker. Whatever else is raised is a defect of prefork.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_APPLICATION = 3
EXIT_OVER_RECOVERY = 4


class PreforkError(Exception):
    """Root of all exceptions that prefork raises on purpose. `exit_code` is the command's status."""

    exit_code = EXIT_FAILURE


class ConfigError(PreforkError, ValueError):
    """The configuration cannot work. The message says what is wrong and what to do about it."""

    exit_code = EXIT_USAGE


class AddressError(ConfigError):
    """An address does not parse, cannot be resolved, or cannot be bound."""


class TLSConfigError(ConfigError):
    """A certificate or key is missing, unreadable, encrypted, or does not match its partner."""


class OnlyReuseportOnWindowsError(ConfigError):
    """Windows can only be served with `reuseport=True` (seed: `ErrOnlyReuseportOnWindows`)."""

    def __init__(self) -> None:
        super().__init__("windows only supports reuseport=True: construct Prefork(..., reuseport=True)")


class ForkWithThreadsError(ConfigError):
    """A fork was asked for while other threads were alive: their locks would be copied locked."""


class ApplicationError(PreforkError):
    """The application could not be started: its import raised, its lifespan failed, its boot hung.

    `details` is the application's own traceback, or empty where there is none.
    """

    exit_code = EXIT_APPLICATION

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class SupervisionError(PreforkError):
    """The master could not keep the fleet alive."""

    exit_code = EXIT_OVER_RECOVERY


class OverRecoveryError(SupervisionError):
    """More workers crashed within the window than `recover_threshold` allows (seed: `ErrOverRecovery`)."""


class CommandProducerError(SupervisionError):
    """A `command_producer` raised, returned nothing, or returned a command that it had not started."""


class SharedError(PreforkError):
    """A call to `prefork.shared` could not do what was asked.

    Nothing was changed; unless the store was lost in the midst (`StoreUnavailableError`): then nobody knows.
    """


class StoreError(SharedError):
    """The store itself cannot be used now. A cache with `on_error="miss"` takes it for a miss."""


class StoreFullError(StoreError):
    """There is no room: in the store, after all that may be evicted was, or on the file system below it."""


class StoreDamagedError(StoreError):
    """The files of the store are not what they must be."""


class StoreUnavailableError(StoreError):
    """The store is not there: its server does not answer, its directory is gone or not ours."""


class KeyTooLongError(SharedError, ValueError):
    """A key or name is empty or too long."""


class ValueTooLargeError(SharedError, ValueError):
    """A value is larger than the store can take."""


class NotSerialisableError(SharedError, TypeError):
    """A value cannot be made into bytes by the serialiser, or cannot be read back by it."""


class NotANumberError(SharedError, TypeError):
    """A value that is to be added to is no integer."""


class LockTimeoutError(SharedError, TimeoutError):
    """Somebody else held the lock for all the time that we were ready to wait."""


class LockLostError(SharedError):
    """The lease of a lock ended before its holder let go, and another took it: what was done may have been done twice."""


class MessagesLostError(SharedError):
    """A listener was too slow, or was cut off, and messages of its topic are gone: take it that anything was said."""


class DrainedError(SystemExit):
    """Raised in a worker that drains, by `Listener.accept` above all: leave your loop, all is well.

    A `SystemExit`, so that it passes `except Exception` on its way out, ends a thread in silence, and ends a
    worker with status 0.
    """

    def __init__(self) -> None:
        super().__init__(0)
