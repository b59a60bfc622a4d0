"""The life of a worker: learn who you are, serve, say that you are ready, drain, leave.

    Start (slot, listeners) -> serve(listeners) -> Ready -> ... -> TERM -> drain -> serve returns -> exit 0

What a signal means here:

* TERM drains. The server's own `drain()` if it has one; else a coroutine is cancelled, a blocking `accept()` ends
  between two connections, the tasks of a loop that it runs itself are cancelled, and anything else gets
  `SystemExit` where it stands.
* QUIT leaves at once, through `finally` blocks.
* IO comes from the channel (fcntl(2), F_SETSIG's default): the master has something to say, or is gone. The kernel
  sends it, so a worker waits for its master without a thread, a poll or a wake-up.

One `Worker` object per process holds all its state.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from prefork import system
from prefork.channel import (
    NOBODY,
    Awake,
    BootFailed,
    Channel,
    LogLevel,
    Message,
    Ready,
    Renumber,
    Reopen,
    ShowStacks,
    Stacks,
    Start,
    Worn,
)
from prefork.errors import EXIT_APPLICATION, EXIT_FAILURE, EXIT_OK, DrainedError
from prefork.scoreboard import Entry
from prefork.worker import leaving, signals
from prefork.worker.job import Job, Service
from prefork.worker.listener import Gate, Listener
from prefork.worker.loops import loop_factory
from prefork.worker.pulse import Pulse
from prefork.worker.reporting import failed_serve, traceback_of
from prefork.worker.stacks import stacks
from prefork.worker.waking import woken_loop
from prefork.worker.wear import Wear


class Worker:
    """This process, as a worker. Made once; `run` never returns."""

    def __init__(self, channel: Channel, job: Job) -> None:
        self.channel = channel
        self.job = job
        self.gate = Gate(self._say_ready)
        self.service: Service | None = None
        self._pulse: Pulse | None = None
        self._cancel: Callable[[], object] | None = None
        """Cancels the coroutine that serves, if one does."""
        self._is_orphan = False
        self._generation = 0
        self._is_reading = self._has_more = False
        """What the master says is being read; and there may be more of it."""

    # -- the life ---------------------------------------------------------------------------------

    def run(self, start: Start, fds: tuple[int, ...], load: Callable[[], Service]) -> int:
        """Serve until drained; returns the exit status. Runs in the worker's main thread."""
        self._generation = start.generation
        self.job.introduce("worker", start.slot, start.generation)
        if start.log_level:
            self.job.set_log_level(start.log_level)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, self._on_quit)
        self._listen_to_master()
        signals.keep_from_forks(
            {signal.SIGTERM: self._on_term, signal.SIGQUIT: self._on_quit, signal.SIGIO: self._on_io}
        )
        _hush_drained_threads()
        try:
            signal.pthread_sigmask(
                signal.SIG_UNBLOCK, {signal.SIGTERM}
            )  # from here on `except` sees what it raises
            listeners = self._take_in(start, fds)
            self.service = load()
            self._serve(self.service.serve, listeners)
        except SystemExit as left:
            if left.code is not None and not isinstance(left.code, int):
                self.job.report(str(left.code))  # what Python would print
            return _status_of(left)
        except asyncio.CancelledError:
            return EXIT_OK if self.gate.is_draining else EXIT_FAILURE
        except Exception as error:  # whatever the application raises ends here
            signals.be_deaf()  # it leaves anyway, and says why
            status = self._crash(error)
            self.gate.drain()  # its other threads wait in `accept`, and `leave` waits for them
            return status
        finally:
            self.gate.close()
        return EXIT_OK

    def _take_in(self, start: Start, fds: tuple[int, ...]) -> list[Listener]:
        if not fds:
            raise OSError("no descriptor is left to take the listeners in: raise RLIMIT_NOFILE")
        entry: Entry | None = None
        if start.entry is not None:
            *listening, board = fds
            fds = tuple(listening)
            entry = self._join(board, start.entry)
        self.gate.is_undecided = lambda: self._is_undecided(entry)
        self.gate.is_last_call = lambda: self._is_last_call(entry)
        for inherited, own in zip(start.inherited, fds, strict=False):
            if inherited not in fds and _is_same(inherited, own):
                os.close(inherited)
        wear = Wear(start.requests, lambda why: self._tell(Worn(why)))
        self._pulse = Pulse(lambda: self._tell(Awake()), is_watched=start.is_watched and entry is not None)
        return [Listener(fd, self.gate, entry, wear, self._pulse) for fd in fds]

    def _is_last_call(self, entry: Entry | None) -> bool:
        if self._is_orphan:  # and so are its siblings
            return True
        return entry is not None and (entry.is_last_call or self._is_undecided(entry))

    def _is_undecided(self, entry: Entry | None) -> bool:
        """Who ends a whole process group or control group tells us, perhaps before our master has heard of it."""
        if entry is None or self._is_orphan or not self.gate.is_draining:
            return False
        return not entry.is_dismissed and not entry.is_last_call

    def _join(self, board: int, index: int) -> Entry | None:
        """Our record on the scoreboard. Serving goes on without: siblings then know nothing of us, nor we of them."""
        try:
            return Entry(board, index)
        except (OSError, ValueError) as error:
            self.job.report(f"this worker shares connections out by chance: {error}")
            return None
        finally:
            os.close(board)

    def _serve(self, serve: Callable[[list[Listener]], Any], listeners: list[Listener]) -> None:
        result = serve(listeners)
        if inspect.isawaitable(result):
            serving = self._await(result)
            try:
                # A drain while a loop is made or closed would leave half of one behind.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.get_loop()
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                    try:
                        runner.run(serving)
                    finally:
                        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            finally:
                # A drain may come before they have begun; asyncio would warn of what was never awaited.
                serving.close()
                if inspect.iscoroutine(result):
                    result.close()

    async def _await(self, awaitable: Any) -> None:
        task = asyncio.ensure_future(awaitable)
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            with woken_loop():
                await task
        except asyncio.CancelledError:
            if not self.gate.is_draining:
                raise

    def _crash(self, error: Exception) -> int:
        if self.gate.is_ready:
            self.job.report(traceback_of(error).rstrip())
            return EXIT_FAILURE
        failure = failed_serve(error)
        self._tell(failure)
        return EXIT_APPLICATION if failure.is_final else EXIT_FAILURE

    # -- the channel ------------------------------------------------------------------------------

    def _tell(self, message: Ready | BootFailed | Stacks | Worn | Awake) -> None:
        try:
            self.channel.send(message)
        except OSError as error:  # the master is gone; `_on_io` acts on that
            self.job.report(f"the master cannot be told {type(message).__name__}: {error}")

    def _say_ready(self) -> None:
        self._tell(Ready())

    def _listen_to_master(self) -> None:
        """Have the kernel signal us when the channel has something to read, end-of-file included."""
        import fcntl  # not on Windows, where this module must import all the same

        fd = self.channel.fileno()
        signal.signal(signal.SIGIO, self._on_io)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
        # A stopped process (SIGSTOP) hears of nothing; the kernel lets it go on when the master dies.
        system.ask_signal_at_parent_death(signal.SIGCONT)
        self._read_channel(None)  # what came before we listened

    def _on_io(self, _signum: int, frame: FrameType | None) -> None:
        self._read_channel(frame)

    def _read_channel(self, frame: FrameType | None) -> None:
        if self._is_reading:  # a signal within the handler of the last: that one goes on reading
            self._has_more = True
            return
        if self._is_orphan:
            return
        self._has_more = True
        while self._has_more:
            self._is_reading, self._has_more = True, False
            try:
                # Several signals may come as one: a message and, behind it, the end.
                while not self.channel.is_closed and self.channel.has_waiting(0):
                    for message, _ in self.channel.receive():
                        self._heed(message, frame)
            finally:
                self._is_reading = False
        if self.channel.is_closed:
            self._is_orphan = True
            if self.job.on_master_death is not None:
                self.job.on_master_death()

    def _heed(self, message: Message, frame: FrameType | None) -> None:
        if isinstance(message, Reopen):
            self.job.reopen_logs()
        elif isinstance(message, LogLevel):
            self.job.set_log_level(message.level)
        elif isinstance(message, Renumber):
            self.job.introduce("worker", message.slot, self._generation)
        elif isinstance(message, ShowStacks):
            in_flight = () if self._pulse is None else self._pulse.describe(frame)
            text = stacks(frame, Worker.run.__code__, in_flight)
            if message.client == NOBODY and self._pulse is not None:
                try:
                    self._pulse.part(frame)
                except Exception as error:  # the master waits for what follows
                    self.job.report(f"no last word could be said: {error!r}")
            self._tell(Stacks(message.client, text))

    # -- leaving ----------------------------------------------------------------------------------

    def _on_term(self, _signum: int, _frame: FrameType | None) -> None:
        self.drain()

    def _on_quit(self, _signum: int, _frame: FrameType | None) -> None:
        raise DrainedError

    def drain(self) -> None:
        """Finish what is open and leave. Runs in a signal handler; does not block. Once is enough."""
        if self.gate.is_draining:
            return
        self.gate.drain()
        if not self.gate.is_ready or self.service is None:
            # What has been made to be awaited, and has not begun, is as it should be.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            raise DrainedError  # nothing was accepted, so nothing can be lost
        if self.service.drain is not None:
            self.service.drain()
        elif self._cancel is not None:
            self._cancel()
        elif not self.gate.is_cooperative:
            self._interrupt()

    def _interrupt(self) -> None:
        """End a server that has no drain and does not wait in our `accept`: it has a loop of its own."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise DrainedError from None
        for task in asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(task.cancel)


def _is_same(one: int, other: int) -> bool:
    """Whether two descriptors are of one socket; a command producer need not have passed the first on."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _hush_drained_threads() -> None:
    """A thread that the drain ends in `accept` ends in silence: `threading` spares SystemExit itself only."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, DrainedError):
            before(args)

    threading.excepthook = hook


def run_forked(job: Job, service: Service) -> Callable[[Channel], NoReturn]:
    """Settle in a process that the zygote has just forked; gives the worker's life, which never returns."""
    leaving.start_afresh()
    signals.settle(blocked={signal.SIGTERM})
    random.seed()
    _reseed_numpy()
    gc.enable()

    def live(channel: Channel) -> NoReturn:
        status = EXIT_FAILURE
        try:
            start, fds = _await_start(channel)
            job.follow_logs()
            status = Worker(channel, job).run(start, fds, lambda: service)
        except DrainedError:
            status = EXIT_OK  # told to leave in the last moment, when it was leaving
        except BaseException as error:  # nothing may unwind into the zygote's stack below us
            job.report(traceback_of(error).rstrip())
        leaving.leave(status)

    return live


def run_executed(channel: Channel, job: Job, start: Start, fds: tuple[int, ...]) -> NoReturn:
    """Be a worker that is a program of its own (start method "exec"). Raises SystemExit when it is over."""
    signals.settle(blocked={signal.SIGTERM})
    status = Worker(channel, job).run(start, fds, job.load)
    # The interpreter gives signals their defaults back while it ends: a TERM that comes twice would kill it then.
    signals.be_deaf()
    raise SystemExit(status)


def _await_start(channel: Channel) -> tuple[Start, tuple[int, ...]]:
    messages: list[Any] = []
    while not messages:
        if channel.is_closed:
            leaving.leave(EXIT_OK)  # the master was gone before we were
        messages = channel.receive()
    start, fds = messages[0]
    return start, fds


def _reseed_numpy() -> None:
    """A fork copies the state of numpy's global generator, unlike `random`'s and the system's."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _status_of(left: SystemExit) -> int:
    if left.code is None:
        return EXIT_OK
    return left.code if isinstance(left.code, int) else EXIT_FAILURE
