"""`preforkctl`: what people ask of a master that runs, over its control socket.

Exit status: 0 done; 1 not done, and the reason is on standard error; 2 the words are wrong, or there is no master to ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

import click

from prefork import control
from prefork.cli.calls import Call, Place, find
from prefork.cli.kinds import SHARE
from prefork.cli.status import measured, table
from prefork.errors import EXIT_FAILURE, PreforkError
from prefork.options import LOG_LEVELS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--control",
    "path",
    metavar="PATH",
    help="The master's control socket, as it prints it at its start; or in PREFORK_CONTROL.",
)
@click.option("--pidfile", metavar="FILE", help="Find the master by its pidfile, in the run-time directory.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after so long; what was asked for goes on.",
)
@click.version_option(package_name="prefork", message="preforkctl %(version)s")
@click.pass_context
def preforkctl(
    context: click.Context, path: str | None, pidfile: str | None, timeout_s: float | None
) -> None:
    """Ask a running prefork master for something.

    Without --control or --pidfile: the one master whose socket is in the run-time directory. What takes its time is waited
    for, with what the master logs meanwhile; Ctrl-C ends the waiting only.
    """
    context.obj = Place(path, pidfile, timeout_s)


def _ask(request: control.Request) -> control.Answer:
    """Ask, show what is said meanwhile, and return the last word; a failure ends the command."""
    place: Place = click.get_current_context().obj
    with Call(find(place, os.environ), place.timeout_s) as call:
        for answer in call.ask(request):
            if isinstance(answer, control.Progress):
                click.echo(answer.text, err=True)
            elif isinstance(answer, control.Failed):
                raise click.ClickException(answer.text)
            else:
                return answer
    raise AssertionError("a call ends with a last word, or raises")


def _do(request: control.Request) -> None:
    answer = _ask(request)
    assert isinstance(answer, (control.Done, control.StacksReport))
    click.echo(answer.text)


@preforkctl.command()
@click.option("--json", "is_json", is_flag=True, help="For programs: one JSON object.")
def status(*, is_json: bool) -> None:
    """Show the fleet: its state, and each worker."""
    report = _ask(control.Status())
    assert isinstance(report, control.StatusReport)
    memory = measured(report)
    if is_json:
        data = asdict(report)
        for worker in data["workers"]:
            worker["pss_bytes"] = memory.get(worker["pid"])
        click.echo(json.dumps(data, indent=2))
    else:
        click.echo(table(report, memory))


@preforkctl.command()
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", "is_once", is_flag=True, help="Print one table, after two looks, and leave.")
@click.option("--json", "is_json", is_flag=True, help="For programs: one JSON object a line.")
@click.pass_obj
def top(place: Place, *, interval_s: float, is_once: bool, is_json: bool) -> None:
    """Show each worker's pace, latency, CPU and memory just now, and the last events, until Ctrl-C."""
    from prefork.cli.top import top as show  # the other commands need nothing of it

    path = find(place, os.environ)

    def ask() -> control.StatusReport:
        with Call(path, place.timeout_s) as call:
            *_, answer = call.ask(control.Status())
        if not isinstance(answer, control.StatusReport):
            raise click.ClickException(getattr(answer, "text", str(answer)))
        return answer

    with contextlib.suppress(KeyboardInterrupt):
        show(ask, interval_s, is_once=is_once, is_json=is_json)


@preforkctl.command()
@click.option(
    "--canary",
    type=SHARE,
    default=0.0,
    metavar="SHARE",
    help="Try the new code out with so many of the workers first, such as 10%, beside the old ones; if it answers with "
    "more errors, or slower, all stays as it was.",
)
@click.option(
    "--canary-s",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For how long.",
)
def reload(canary: float, canary_s: float) -> None:
    """Load the application anew.

    Waits until all workers run it; nothing is lost, and a failure changes nothing.
    """
    _do(control.Reload(canary, canary_s))


@preforkctl.command()
@click.argument("workers", type=click.IntRange(min=1), metavar="N")
def scale(workers: int) -> None:
    """Run N workers.

    Waits until they serve, and the others have left.
    """
    _do(control.Scale(workers))


@preforkctl.command()
@click.argument("worker")
def recycle(worker: str) -> None:
    """Replace one worker.

    WORKER is its slot or its pid (0, slot:0, pid:4711). Waits until its successor serves, and only then is it told to leave.
    """
    _do(control.Recycle(worker))


@preforkctl.command()
@click.argument("worker")
def stacks(worker: str) -> None:
    """Show where a worker stands.

    WORKER is its slot or its pid (0, slot:0, pid:4711). All its threads and tasks, blocked or not; it goes on.
    """
    _do(control.Stacks(worker))


@preforkctl.command()
def upgrade() -> None:
    """Replace the master's own program.

    As USR2. Waits until the new one serves; if it fails, the old one serves on.
    """
    _do(control.Upgrade())


@preforkctl.command()
@click.option("--fast", "is_fast", is_flag=True, help="Do not let workers finish what is open.")
def stop(*, is_fast: bool) -> None:
    """Stop the fleet.

    As TERM; --fast as QUIT. Waits until everybody has left.
    """
    _do(control.Stop(is_fast))


@preforkctl.command("log-level")
@click.argument("level", type=click.Choice(LOG_LEVELS))
def log_level(level: str) -> None:
    """Log from LEVEL on, everywhere.

    In the master, in its workers, and in those to come.
    """
    _do(control.LogLevel(level))


@preforkctl.command()
def forgive() -> None:
    """Refuse no request any more.

    All that --refuse-after-kills holds against requests is forgotten: what made them kill workers has been mended.
    """
    _do(control.Forgive())


COMMANDS: dict[type, Callable[..., Any]] = {
    control.Status: status,
    control.Reload: reload,
    control.Scale: scale,
    control.Recycle: recycle,
    control.Stacks: stacks,
    control.Upgrade: upgrade,
    control.Stop: stop,
    control.LogLevel: log_level,
    control.Forgive: forgive,
}
"""The command for each request there is. `top` asks for the status, again and again."""


def main() -> NoReturn:
    """The command. Turns what is raised on purpose into one line and an exit status."""
    try:
        preforkctl.main(prog_name="preforkctl", standalone_mode=False)
    except click.exceptions.Exit as left:
        sys.exit(left.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"preforkctl: {error.message}", err=True)
        sys.exit(EXIT_FAILURE)
    except click.Abort:
        sys.exit(130)  # as a shell says of what INT has ended
    except PreforkError as error:
        click.echo(f"preforkctl: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
