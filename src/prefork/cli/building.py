"""From settings to what is served: the log, the application by its name, the fleet, its addresses."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork import system
from prefork.cli.application import NamedApplication
from prefork.cli.settings import Settings
from prefork.errors import ApplicationError, ConfigError, ForkWithThreadsError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions, split
from prefork.identity import is_child
from prefork.master.upgrade import inherited_addresses
from prefork.net.address import parse_address
from prefork.net.owner import group_id, user_id
from prefork.net.systemd import inherited_listeners
from prefork.observe import log
from prefork.observe.binding import admin_address
from prefork.options import CommandOptions, FleetOptions
from prefork.prefork import Prefork
from prefork.worker.loading import split_target

CRASHES_A_WORKER = 10
"""The command's recover threshold for each worker: a fleet in production rides crashes out, with back-off."""


@dataclass(frozen=True, slots=True)
class Start:
    """All that is needed to serve."""

    prefork: Prefork
    application: NamedApplication
    addresses: list[str]
    logger: logging.Logger
    certfile: str | None
    keyfile: str | None


def go_to(settings: Settings) -> str:
    """Change to the directory, and to the umask, that are asked for; returns the directory before. Raises ConfigError."""
    home = str(Path.cwd())
    folder, umask = settings["chdir"].value, settings["umask"].value
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise ConfigError(f"chdir {folder!r}: {error.strerror}") from error
    if umask is not None:
        if not 0 <= umask <= 0o777:
            raise ConfigError(f"umask must be permission bits, such as 027, not {umask:o}")
        os.umask(umask)
    return home


def build(settings: Settings) -> Start:
    """Make all that is needed to serve; opens the log, and nothing else. Raises ConfigError."""
    command = CommandOptions(**settings.of(CommandOptions))
    logger = log.set_up(command.log_level, command.log_file, command.log_format)
    if command.application is None:
        raise ConfigError(
            'say what to serve: prefork MODULE:ATTR, or application = "MODULE:ATTR" in prefork.toml'
        )
    split_target(command.application)
    if (command.certfile is None) != (command.keyfile is None):
        raise ConfigError("TLS needs both --certfile and --keyfile")
    http = _http(command.server, settings)
    if settings["max_requests"].value and command.server != "prefork":
        raise ConfigError(f"--max-requests is counted by prefork's own server, not by {command.server}")
    if settings["refuse_after_kills"].value and command.server != "prefork":
        raise ConfigError(
            f"--refuse-after-kills needs prefork's own server, which tells what it runs; {command.server} does not"
        )
    if ":" in str(settings["workers"].value) and command.server != "prefork":
        raise ConfigError(f"--workers N:M goes by what prefork's own server tells; {command.server} does not")
    application = NamedApplication(
        command.application, command.app_dir, command.interface, command.server, command.factory, http
    )
    fleet = settings.of(FleetOptions)
    if fleet["control"] is None:
        fleet["control"] = "auto"
    prefork = Prefork(application, logger=logger, **{**fleet, "network": None})
    prefork.reload_dirs = prefork.reload_dirs or (command.app_dir,)
    prefork.check()
    if prefork.recover_threshold is None:
        prefork.recover_threshold = CRASHES_A_WORKER * prefork.worker_span()[1]
    _give_logs_away(prefork, [command.log_file, http.get("access_log")])
    addresses = _addresses(command.bind, is_default=settings["bind"].is_default)
    return Start(prefork, application, addresses, logger, command.certfile, command.keyfile)


def check(settings: Settings) -> str:
    """What is wrong is raised, what is right is said. Imports the application into this process.

    Raises ConfigError; ApplicationError, of which the traceback has been logged.
    """
    start = build(settings)
    for address in start.addresses:
        parse_address(address, None)
    if start.prefork.admin:
        admin_address(start.prefork.admin)
    if start.certfile is not None and start.keyfile is not None:
        from prefork.net.material import TLSFiles
        from prefork.net.tls import server_context

        server_context(TLSFiles(start.certfile, start.keyfile))
    try:
        start.application.prepare()
        _refuse_what_cannot_be_forked(start.prefork)
    except ApplicationError as error:
        start.logger.error("%s", "\n".join(filter(None, (str(error), error.details.rstrip()))))
        raise
    return f"{start.application.target} can be served: {start.prefork.worker_count()} workers, " + ", ".join(
        start.addresses
    )


def _refuse_what_cannot_be_forked(prefork: Prefork) -> None:
    """Raise ApplicationError for threads that the application has left, where a start would fail for them."""
    if sys.platform != "linux" or prefork.start_method == "exec":
        return
    try:
        system.refuse_threads("the application is loaded")
    except ForkWithThreadsError as error:
        raise ApplicationError(str(error)) from error


def _http(server: str, settings: Settings) -> dict[str, Any]:
    """The options of our own HTTP server, by name; only those that were given. Raises ConfigError."""
    given = {}
    for setting in settings:
        if setting.option.group.kind not in (HttpOptions, HttpLimits) or setting.is_default:
            continue
        if server != "prefork":
            raise ConfigError(f"{setting.option.flag} is an option of prefork's own server, not of {server}")
        given[setting.option.field.name] = setting.value
    _try(split(given)[0], given)
    return given


def _try(options: HttpOptions, given: dict[str, Any]) -> None:
    """Tell what is wrong with a value now, in one line, and not in the zygote. Raises ConfigError."""
    if "trusted_proxies" in given:
        from prefork.http.forwarded import TrustedProxies

        TrustedProxies(options.trusted_proxies)
    if options.access_log is not None:
        from prefork.http.access import AccessLog

        AccessLog(options.access_log_format, options.access_log).close()


def _give_logs_away(prefork: Prefork, names: list[str | None]) -> None:
    """Workers that run as somebody else must be able to open the logs again (USR1)."""
    if (prefork.user is None and prefork.group is None) or os.geteuid() != 0 or is_child():
        return
    for name in names:
        if name is not None and Path(name).is_file():
            with contextlib.suppress(
                OSError
            ):  # a read-only or foreign file system: the descriptor still works
                os.chown(name, user_id(prefork.user), group_id(prefork.group))


def _addresses(bind: tuple[str, ...], *, is_default: bool) -> list[str]:
    """What to listen on: as asked; else what an old master or systemd opened for us; else the default."""
    inherited: list[str] = []
    if not is_child():
        inherited = [f"fd://{fd}" for fd in inherited_listeners(os.environ, os.getpid())]
        inherited = inherited or inherited_addresses(os.environ)
    return inherited if inherited and is_default else list(bind)
