"""How a master makes processes, and what it says of itself: chosen by the composition root, the same for its life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefork import control
from prefork.contracts import CommandProducer
from prefork.master.desk import describe_nothing
from prefork.master.spawn import ZygoteMain


@dataclass(frozen=True, slots=True)
class Means:
    """What differs between the command and a program, and between start methods."""

    zygote_main: ZygoteMain
    uses_zygote: bool
    is_fork_fresh: Callable[[int], bool]
    """Whether a fork of the master gives the generation fresh code; else the program is run again."""
    command_producer: CommandProducer | None
    reopen_logs: Callable[[], object]
    is_whole_program: bool
    """Nobody but us has children in this process, so every stranger that ends is ours to reap at once."""
    set_log_level: Callable[[str], object] = str
    is_watching: bool = False
    """Workers are to say when they wake up: somebody looks at them from then on."""
    describe: Callable[[], control.StatusReport] = describe_nothing
    """Who we are, for who asks on the control socket: version, addresses, what is served."""
    started_in: str | None = None
    """Where the program is run again; None for here."""
