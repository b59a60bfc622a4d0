"""How the master makes processes: a zygote by fork or by running the program again, a worker by either.

Every maker gives back a `Kin`: a process that exists, and the master's end of a channel to it. The marker
(`PREFORK_CHILD=1`) is set in what is made, exactly once, whatever the master's own environment held.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from prefork import system
from prefork.channel import BeZygote, Channel, Message, Start
from prefork.contracts import CommandProducer, HasFileno
from prefork.errors import CommandProducerError, ConfigError
from prefork.identity import child_environment

_RESOURCES = frozenset({"EAGAIN", "ENOMEM", "EMFILE", "ENFILE"})


@dataclass(slots=True)
class Kin:
    """The master's hold on one process of its own making."""

    channel: Channel
    process: system.Process | None = None
    """None until the zygote has said which pid the worker has."""
    has_spoken: bool = False
    is_foreign: bool = False
    """It was made by the program's own command producer, and may not know of channels."""
    entry: int | None = None
    """A worker's record on the scoreboard."""

    def close(self) -> None:
        self.channel.close()
        if self.process is not None:
            self.process.close()


ZygoteMain = Callable[[Channel, int], NoReturn]


def fork_zygote(generation: int, let_go: Callable[[], object], zygote_main: ZygoteMain) -> Kin:
    """Fork this process, as it stands, into the zygote of `generation`. Raises OSError, ForkWithThreadsError.

    Args:
        generation: what the new zygote is called.
        let_go: called in the child; closes everything that is the master's alone.
        zygote_main: runs in the child; never returns.
    """
    system.refuse_threads("the zygote is started")
    ours, theirs = Channel.pair()
    try:
        with system.signals_held():
            pid = system.fork("the zygote is started")
            if pid == 0:
                _be_zygote(generation, ours, Channel(theirs), let_go, zygote_main)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Kin(ours, hold(pid, ours))


def _be_zygote(
    generation: int, masters: Channel, channel: Channel, let_go: Callable[[], object], zygote_main: ZygoteMain
) -> NoReturn:
    try:
        masters.close()
        let_go()
        os.environ.update(child_environment())
        zygote_main(channel, generation)
    except BaseException:
        traceback.print_exc()  # a defect of ours: it must not die in silence
        raise
    finally:
        # Nothing may unwind into the program whose stack was copied.
        os._exit(1)


def hold(pid: int, channel: Channel) -> system.Process:
    """Take hold of a child, or, with no descriptor left to hold it by, end it: it must not go on unseen."""
    try:
        return system.Process(pid)
    except OSError:
        channel.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def execute_zygote(generation: int, folder: str | None) -> Kin:
    """Run this program again, in `folder`, as the zygote of `generation`, so that its code is loaded anew. Raises OSError."""
    ours, theirs = Channel.pair()
    with theirs:
        try:
            ours.send(BeZygote(generation))
            return Kin(ours, _hold_command(_run_again([theirs], folder)))
        except BaseException:
            ours.close()
            raise


def execute_worker(
    start: Start,
    listeners: Sequence[HasFileno],
    producer: CommandProducer | None,
    others: Sequence[HasFileno] = (),
    folder: str | None = None,
) -> Kin:
    """Start a worker that is a program of its own (seed). Raises OSError, CommandProducerError.

    Args:
        start: the worker's first message, without the inherited descriptors.
        listeners: the listening sockets of its slot.
        producer: the program's own way to start a command; None runs this program again.
        others: what else comes with the first message, behind the listeners, and is not inherited.
        folder: where this program is run again; None for here.
    """
    ours, theirs = Channel.pair()
    with theirs:
        files: list[HasFileno] = [*listeners, theirs]
        inherited = tuple(x.fileno() for x in listeners)
        try:
            ours.send(replace(start, inherited=inherited), [*inherited, *(x.fileno() for x in others)])
            popen = _run_again(files, folder) if producer is None else _produce(producer, files)
            process = _hold_command(popen)
            return Kin(ours, process, is_foreign=producer is not None, entry=start.entry)
        except BaseException:
            ours.close()
            raise


def execute_helper(module: str, message: Message, files: Sequence[HasFileno]) -> Kin:
    """Run a module of ours as a process of its own, beside the workers. Raises OSError, ConfigError.

    Run, not forked: a program's threads, its memory and its descriptors are no business of a helper's. It is no child in
    the sense of `is_child`, which the user's code asks for.

    Args:
        module: what is run; it finds its channel by the number in its one argument.
        message: its first one.
        files: what comes with that, and is not inherited.
    """
    if not sys.executable:
        raise ConfigError("no interpreter to run it with: sys.executable is empty")
    ours, theirs = Channel.pair()
    with theirs:
        try:
            ours.send(message, [x.fileno() for x in files])
            prefix = launcher() if sys.platform == "linux" else []
            path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
            environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
            # -P: nothing that happens to lie in the working directory is imported.
            command = [*prefix, sys.executable, "-P", "-m", module, str(theirs.fileno())]
            with system.signals_held():
                popen = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()])
            return Kin(ours, _hold_command(popen))
        except BaseException:
            ours.close()
            raise


def _hold_command(popen: subprocess.Popen[Any]) -> system.StartedCommand:
    """As `hold`, for a command that has been started."""
    try:
        return system.StartedCommand(popen)
    except OSError:
        popen.kill()
        popen.wait()
        raise


def launcher() -> list[str]:
    """A prefix that asks the kernel to end the command with us, before anything of it is run.

    Its imports take as long as they like, and only after them does it hear of anything. The request outlives
    execve(2), and a worker makes its own when it listens to its master. Rejected: `preexec_fn`, which runs Python
    after a fork of a program that may have threads.
    """
    code = (
        "import ctypes, os, sys\n"
        f"ctypes.CDLL(None).prctl({system.PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)\n"
        "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-I", "-S", "-c", code, str(os.getpid())]


def _run_again(files: Sequence[HasFileno], folder: str | None) -> subprocess.Popen[Any]:
    prefix = launcher() if sys.platform == "linux" else []
    environ = {**os.environ, **child_environment()}
    fds = [x.fileno() for x in files]
    return subprocess.Popen([*prefix, *program()], env=environ, pass_fds=fds, cwd=folder)


def program() -> list[str]:
    """The command line that runs this program again. Raises ConfigError where there is none (a prompt)."""
    arguments = sys.orig_argv[1:]
    if not sys.executable or not arguments or hasattr(sys, "ps1"):
        raise ConfigError(
            "this program cannot be run again, because it has no script (an interactive prompt?): "
            "put it into a file, or give a command_producer"
        )
    return [sys.executable, *arguments]


def _produce(producer: CommandProducer, files: Sequence[HasFileno]) -> subprocess.Popen[Any]:
    """Call the program's own producer, and hold it to its contract."""
    try:
        popen = producer(files)
    except OSError as error:
        if is_out_of_resources(error):
            raise
        raise CommandProducerError(f"command_producer raised {type(error).__name__}: {error}") from error
    except Exception as error:
        raise CommandProducerError(f"command_producer raised {type(error).__name__}: {error}") from error
    if popen is None:
        raise CommandProducerError(
            "command_producer returned None: it must return the started subprocess.Popen"
        )
    if not isinstance(getattr(popen, "pid", None), int) or not callable(getattr(popen, "poll", None)):
        raise CommandProducerError(
            f"command_producer returned {type(popen).__name__}, which is not a started command: "
            "it must return a started subprocess.Popen"
        )
    return popen


def is_out_of_resources(error: OSError) -> bool:
    """Whether a try later may succeed: no process, memory or descriptor was left."""
    return errno.errorcode.get(error.errno or 0) in _RESOURCES
