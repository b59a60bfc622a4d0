"""`prefork MODULE:ATTR`: serve an application on preforked workers.

    command line > environment > file > default      settings.resolve
        -> a Prefork, its addresses                   building.build
        -> serve; or --check; or --print-config

Exit status: 0 stopped as asked; 2 the words are wrong; 3 the application could not be started; 4 too many crashes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from prefork.cli.building import build, check, go_to
from prefork.cli.files import ConfigFile, find, read
from prefork.cli.flags import flags_of
from prefork.cli.settings import CONFIG, Settings, given, resolve
from prefork.errors import ApplicationError, PreforkError, SupervisionError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.options import CommandOptions, FleetOptions


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("application", metavar="MODULE:ATTR", required=False)
@click.option(
    "--config",
    metavar="FILE",
    help="Read options from this file; default: prefork.toml, or [tool.prefork] of pyproject.toml, in the working "
    'directory; "": none.',
)
@click.option("--check", is_flag=True, help="Validate the options, import the application, and leave.")
@click.option("--print-config", is_flag=True, help="Show every option, and where its value came from; leave.")
@flags_of(CommandOptions)
@flags_of(FleetOptions)
@flags_of(HttpOptions)
@flags_of(HttpLimits)
@click.version_option(package_name="prefork", message="prefork %(version)s")
@click.pass_context
def serve(context: click.Context, /, **flags: Any) -> None:
    """Serve the ASGI or WSGI application MODULE:ATTR on preforked workers.

    Every option may also stand in the environment (PREFORK_WORKERS) and in a file (prefork.toml, [tool.prefork] of
    pyproject.toml: workers = 4). The command line comes before the environment, that before the file.
    """
    settings = resolve(context, os.environ, _file(context))
    if flags["print_config"]:
        click.echo(settings.printed())
        return
    home = go_to(settings)
    if flags["check"]:
        click.echo(check(settings))
        return
    _serve(settings, home)


def _file(context: click.Context) -> ConfigFile:
    """The file that is asked for, or found where the application is to run. Raises ConfigError."""
    name = given(context, "config")
    if name is None:
        name = os.environ.get(CONFIG) or None
    if name is not None:
        return read(Path(name)) if name else ConfigFile()
    return find(Path(given(context, "chdir") or os.environ.get("PREFORK_CHDIR") or "."))


def _serve(settings: Settings, home: str) -> None:
    start = build(settings)
    start.prefork.started_in = home
    for warning in settings.warnings:
        start.logger.warning("%s", warning)
    if start.certfile is not None and start.keyfile is not None:
        start.prefork.listen_and_serve_tls(start.addresses, cert_key=start.keyfile, cert_file=start.certfile)
    else:
        start.prefork.listen_and_serve(start.addresses)


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
        sys.exit(error.exit_code)  # the log has said why
    except PreforkError as error:
        click.echo(f"prefork: error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
