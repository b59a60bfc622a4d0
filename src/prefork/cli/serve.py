"""`prefork MODULE:ATTR`: serve an application on preforked workers.

Exit status: 0 stopped as asked; 2 the words are wrong; 3 the application could not be started; 4 too many crashes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from typing import Any, NoReturn

import click

from prefork.cli.application import NamedApplication
from prefork.cli.flags import flags_of
from prefork.errors import ApplicationError, ConfigError, PreforkError, SupervisionError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions, split
from prefork.identity import is_child
from prefork.master.upgrade import inherited_addresses
from prefork.net.systemd import inherited_listeners
from prefork.observe import log
from prefork.options import CommandOptions, FleetOptions
from prefork.prefork import Prefork
from prefork.worker.loading import split_target

CRASHES_A_WORKER = 10
"""The command's recover threshold for each worker: a fleet in production rides crashes out, with back-off."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("application", metavar="MODULE:ATTR")
@flags_of(CommandOptions)
@flags_of(FleetOptions)
@flags_of(HttpOptions)
@flags_of(HttpLimits)
@click.version_option(package_name="prefork", message="prefork %(version)s")
def serve(application: str, **values: Any) -> None:
    """Serve the ASGI or WSGI application MODULE:ATTR on preforked workers."""
    command = CommandOptions(**{f.name: values.pop(f.name) for f in fields(CommandOptions)})
    logger = log.set_up(command.log_level, command.log_file)
    split_target(application)
    if (command.certfile is None) != (command.keyfile is None):
        raise ConfigError("TLS needs both --certfile and --keyfile")
    http = _http(command.server, values)
    prefork = Prefork(
        NamedApplication(
            application, command.app_dir, command.interface, command.server, command.factory, http
        ),
        logger=logger,
        network=None,
        **values,
    )
    if prefork.recover_threshold is None:
        prefork.check()
        prefork.recover_threshold = CRASHES_A_WORKER * prefork.worker_count()
    addresses = _addresses(command.bind)
    if command.certfile is not None and command.keyfile is not None:
        prefork.listen_and_serve_tls(addresses, cert_key=command.keyfile, cert_file=command.certfile)
    else:
        prefork.listen_and_serve(addresses)


def _http(server: str, values: dict[str, Any]) -> dict[str, Any]:
    """The options of our own HTTP server, taken out of `values`; only those that were given. Raises ConfigError."""
    context = click.get_current_context()
    given = {}
    for each in (*fields(HttpOptions), *fields(HttpLimits)):
        value = values.pop(each.name)
        if context.get_parameter_source(each.name) is not click.core.ParameterSource.DEFAULT:
            if server != "prefork":
                raise ConfigError(
                    f"{each.metadata['flag']} is an option of prefork's own server, not of {server}"
                )
            given[each.name] = value
    _check(split(given)[0], given)
    return given


def _check(options: HttpOptions, given: dict[str, Any]) -> None:
    """Tell what is wrong with a value now, in one line, and not in the zygote. Raises ConfigError."""
    if "trusted_proxies" in given:
        from prefork.http.forwarded import TrustedProxies

        TrustedProxies(options.trusted_proxies)
    if options.access_log is not None:
        from prefork.http.access import AccessLog

        AccessLog(options.access_log_format, options.access_log).close()


def _addresses(bind: tuple[str, ...]) -> list[str]:
    """What to listen on: as asked; else what an old master or systemd opened for us; else the default."""
    given: list[str] = []
    if not is_child():
        given = [f"fd://{fd}" for fd in inherited_listeners(os.environ, os.getpid())]
        given = given or inherited_addresses(os.environ)
    source = click.get_current_context().get_parameter_source("bind")
    return given if given and source is click.core.ParameterSource.DEFAULT else list(bind)


def main() -> NoReturn:
    """The command. Turns what is raised on purpose into one line and an exit status."""
    try:
        serve.main(standalone_mode=False)
    except click.exceptions.Exit as left:
        sys.exit(left.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except (ApplicationError, SupervisionError) as error:
        sys.exit(error.exit_code)  # the master's log has said why
    except PreforkError as error:
        click.echo(f"prefork: error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
