"""The composition root: a master and its workers put together, from the options and the program around them.

`master` and `worker` know nothing of each other, nor of the log, the shared state and the servers above them; here each is
given what it needs of the others.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from prefork import control, system
from prefork.channel import Channel
from prefork.contracts import CommandProducer, Logger
from prefork.errors import ConfigError, SharedError
from prefork.master.assembly import assemble
from prefork.master.desk import describe_nothing
from prefork.master.fleet import Fleet
from prefork.master.gauge import Gauge
from prefork.master.hooks import Hooks
from prefork.master.lookout import Sights
from prefork.master.loop import supervise
from prefork.master.means import Means
from prefork.master.premises import Premises, open_premises
from prefork.master.rules import Rules
from prefork.master.scaling import Bounds
from prefork.master.signals import Inbox
from prefork.master.upgrade import inherit
from prefork.memory import memory_limit_bytes
from prefork.net.address import Address
from prefork.observe import log
from prefork.observe.binding import admin_address
from prefork.options import FleetOptions, share_or_bytes
from prefork.scoreboard import Scoreboard
from prefork.worker.job import Job

if TYPE_CHECKING:
    from prefork.shared.place import MasterPlace

_MOST_PROCESSES: Final = 1024
"""Workers that the scoreboard has room for, those of a reload counted twice: 1 MiB, of which only
records that were used take memory. More than that do without."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the program around a master gives it, besides options."""

    job: Job
    logger: Logger
    hooks: Hooks
    command_producer: CommandProducer | None
    started_in: str | None
    version: str
    """Prefork's own, for who asks."""
    target: str
    """What the command serves, MODULE:ATTR; "" in a program of the user's own."""
    is_command: bool
    """The process is the command's: it has not imported the application, and nobody else has children in it."""


def be_master(
    options: FleetOptions,
    program: Program,
    addresses: Sequence[Address],
    *,
    is_tls: bool,
    hearing: Callable[[], AbstractContextManager[Inbox]],
) -> None:
    """Open what is needed, run the fleet until it has been stopped, and undo all of it in order. Blocks.

    hearing: begins to hear signals, and whatever else the program asks.

    Raises what `Prefork.listen_and_serve` does.
    """
    logger = program.logger
    _warn(options, logger)
    sights, fleet_bytes = _sights(options), _fleet_bytes(options)
    inheritance = inherit(os.environ)
    with contextlib.ExitStack() as held:
        place = _take_place(options.shared, logger, is_upgrade=inheritance.ready_fd >= 0)
        if place is not None:
            held.callback(place.close)
        admin = admin_address(options.admin) if options.admin else None
        premises = held.enter_context(
            open_premises(options, addresses, admin, inheritance, lambda text: logger.warning("%s", text))
        )
        places = [address.url(is_tls) for address in premises.listeners.addresses]
        means = _means(options, program, places)
        if means.uses_zygote:
            held.enter_context(system.subreaper())
        shell = assemble(
            premises,
            held.enter_context(hearing()),
            logger,
            program.hooks,
            means,
            scoreboard=_scoreboard(logger, records=options.refuse_after_kills > 0),
            gauge=Gauge(system.Meter(), options.max_memory_bytes, fleet_bytes),
            sights=sights,
        )
        held.callback(shell.close)
        fleet = _fleet(options, premises, means, fleet_bytes)
        _greet(program, premises, places, fleet.configured)
        supervise(fleet, shell)


def _warn(options: FleetOptions, logger: Logger) -> None:
    if options.refuse_after_kills > options.threshold():
        logger.warning(
            "more than %g crashes within %g s end the fleet, so %d in a row are hardly ever seen: raise the recover "
            "threshold, or lower refuse_after_kills",
            options.threshold(),
            options.recover_window_s,
            options.refuse_after_kills,
        )


def _greet(program: Program, premises: Premises, places: Sequence[str], count: int) -> None:
    info = program.logger.info
    what = f"{program.target}: serving" if program.target else "serving"
    info("%s %s with %d worker%s", what, ", ".join(places), count, "s" if count > 1 else "")
    if premises.controls is not None and premises.controls.path:
        info("control socket: %s", premises.controls.path)
    if premises.attendance is not None:
        info("admin: %s", premises.attendance.listeners.addresses[0].url(False))


# -- what is opened -------------------------------------------------------------------------------


def _sights(options: FleetOptions) -> Sights | None:
    """What is watched, if the code is to be. Raises ConfigError."""
    if not options.reload:
        return None
    sights = Sights.of(options.reload_dirs, options.reload_include, options.reload_exclude)
    # Python tells two versions of a module apart by second and size only, and would run the cached one of an edit
    # that follows another at once. For forks; and for what is run again.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return sights


def _take_place(asked: str | None, logger: Logger, *, is_upgrade: bool) -> MasterPlace | None:
    """Where the workers' shared state will be. That there is no such place matters only to who asked for one."""
    # Here, because it needs fcntl, and this module has to be imported on Windows, where it explains itself.
    from prefork.shared.place import MasterPlace

    try:
        return MasterPlace.take(asked, is_upgrade=is_upgrade)
    except SharedError as error:
        if asked is not None:
            raise
        logger.warning("workers will have no shared state (prefork.shared): %s", error)
        return None


def _scoreboard(logger: Logger, *, records: bool) -> Scoreboard | None:
    try:
        return Scoreboard.create(_MOST_PROCESSES, records=records)
    except OSError as error:
        logger.warning("workers share connections out by chance, for want of a shared page: %s", error)
        return None


# -- what is decided by the options ---------------------------------------------------------------


def _means(options: FleetOptions, program: Program, places: Sequence[str]) -> Means:
    method = options.start_method or ("fork" if sys.platform == "linux" else "exec")

    def zygote_main(channel: Channel, generation: int) -> NoReturn:
        # Loaded here, not in the master, which would carry an event loop about for nothing.
        from prefork.shared.place import use_generation
        from prefork.worker import leaving, runtime, zygote

        leaving.start_afresh()
        use_generation(generation)
        zygote.run(channel, generation, program.job, runtime.run_forked)

    def describe() -> control.StatusReport:
        return replace(
            describe_nothing(),
            pid=os.getpid(),
            version=program.version,
            name=program.target,
            addresses=tuple(places),
            log_level=log.level(),
        )

    return Means(
        zygote_main=zygote_main,
        uses_zygote=method == "fork" and program.command_producer is None,
        is_fork_fresh=lambda generation: program.is_command or generation == 1,
        command_producer=program.command_producer,
        reopen_logs=log.reopen,
        set_log_level=log.set_level,
        describe=describe,
        is_whole_program=program.is_command,
        is_watching=_bounds(options) is not None or options.hang_timeout_s < math.inf,
        started_in=program.started_in,
    )


def _fleet(options: FleetOptions, premises: Premises, means: Means, fleet_bytes: int | None) -> Fleet:
    rules = Rules(
        recover_threshold=options.threshold(),
        recover_window_s=options.recover_window_s,
        recover_interval_s=options.recover_interval_s,
        grace_s=options.shutdown_grace_period_s,
        boot_timeout_s=options.boot_timeout_s,
        uses_zygote=means.uses_zygote,
        repeats_drain=means.command_producer is None,
        reuseport=options.reuseport,
        max_requests=options.max_requests,
        max_age_s=options.max_age_s,
        recycle_jitter=options.recycle_jitter,
        max_memory_bytes=options.max_memory_bytes,
        max_fleet_bytes=fleet_bytes,
        watches_code=options.reload,
        has_admin=bool(options.admin),
        hang_timeout_s=options.hang_timeout_s,
        bounds=_bounds(options),
        refuse_after_kills=options.refuse_after_kills,
    )
    count, slots = options.worker_count(), premises.listeners.slots_open
    return Fleet(
        rules,
        configured=count,
        wanted=count,
        steered=slots,
        slots_open=slots,
        chance=random.getrandbits(32),
    )


def _bounds(options: FleetOptions) -> Bounds | None:
    """How few and how many workers there may be, if the load is to say."""
    least, most = options.worker_span()
    return Bounds(least, most) if least < most else None


def _fleet_bytes(options: FleetOptions) -> int | None:
    """The budget of all processes together, in bytes. Raises ConfigError."""
    asked = options.max_fleet_memory
    if asked is None:
        return None
    share, size = share_or_bytes(asked)
    if share is None:
        return size
    limit = memory_limit_bytes()
    if limit is None:
        raise ConfigError(f"max_fleet_memory {asked} of what? No limit is known here: give a size")
    return int(limit * share)
