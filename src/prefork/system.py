"""The port to the operating system: processes, their ends, the clock. Everything the master needs and no more.

Rules: nothing here decides; nothing here knows of workers or generations. A process is held by a pidfd where
the kernel has them (Linux 5.3), so a signal never reaches a stranger that was given the same pid. Elsewhere
(macOS) it is held by its pid, which stays ours until we reap it.

Not here: CPU counting (`cpus.py`), sockets (`net`), messages (`channel.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefork.errors import ForkWithThreadsError

PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_GET_PDEATHSIG = 2
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4
_PR_GET_CHILD_SUBREAPER = 37

LOST_STATUS = 255
"""Stands for the exit status of a child that somebody else in this process has reaped."""

STACKS_SIGNAL: int | None = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else None
"""Has a worker write its stacks to standard error, even if its interpreter is stuck. A real-time signal, because
applications use the others. None where there are none (macOS)."""

HAS_PIDFD = hasattr(os, "pidfd_open") and sys.platform == "linux"


def now_s() -> float:
    """Seconds of CLOCK_MONOTONIC: not moved by a stepped clock, and halted while the machine sleeps."""
    return time.monotonic()


def _prctl(option: int, value: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """While it lasts, orphans among our descendants become our children, not init's (prctl(2)). Linux only."""
    before = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def ask_signal_at_parent_death(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent's thread ends (prctl(2)). No-op elsewhere."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signum)


def signal_at_parent_death() -> int:
    """The signal that has been asked for, 0 for none (prctl(2))."""
    if sys.platform != "linux":
        return 0
    found = ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.byref(found))
    return found.value


def be_dumpable() -> None:
    """Have our files in /proc belong to us again after a change of credentials (prctl(2)). No-op elsewhere."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 1)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """While it lasts, what is asked of our process group by a signal waits; also in a process that is made meanwhile.

    That one hears of it when it has handlers, and takes the mask back (`worker.signals.settle`). Before that an INT from a
    terminal, which the master obeys, would show its traceback, and a HUP would end it. Calling thread only.
    """
    names = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name] for name in names})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def refuse_threads(doing: str) -> None:
    """Raise ForkWithThreadsError, naming them, if Python threads other than this one are alive.

    Native threads (a BLAS pool, say) cannot be seen from here, and guard themselves with pthread_atfork(3).
    """
    others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    if others:
        raise ForkWithThreadsError(
            f"cannot fork while {doing}: {len(others)} more thread(s) are alive ({', '.join(sorted(others))}) and "
            "their locks would be copied locked; start them in the worker (at its startup), "
            'or use start method "exec"'
        )


def fork(doing: str) -> int:
    """`os.fork()`, refused while other Python threads are alive. Raises OSError (EAGAIN, ENOMEM).

    What is still in the buffers of standard output and error is written first, or each side would write it.
    """
    refuse_threads(doing)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # closed, or full: a copy cannot write either
            stream.flush()
    return os.fork()


class Process:
    """A child process of this one: told apart, signalled and reaped without a race."""

    def __init__(self, pid: int) -> None:
        """Take hold of `pid`, a child that has not been reaped. Raises OSError (EMFILE) if it cannot be held."""
        self.pid = pid
        self.fd = os.pidfd_open(pid) if HAS_PIDFD else -1
        self._ended: tuple[int | None, int | None] | None = None

    def send(self, signum: int) -> None:
        """Send a signal; a process that is gone already is no error."""
        with contextlib.suppress(ProcessLookupError):  # gone between its end and our reaping
            if self.fd >= 0:
                signal.pidfd_send_signal(self.fd, signum)
            elif self._ended is None:
                os.kill(self.pid, signum)

    def poll(self) -> tuple[int | None, int | None] | None:
        """Reap it if it has ended: (exit code, None) or (None, signal); None while it runs. Never blocks."""
        if self._ended is None:
            kind, number = (os.P_PIDFD, self.fd) if self.fd >= 0 else (os.P_PID, self.pid)
            try:
                result = os.waitid(kind, number, os.WEXITED | os.WNOHANG)
            except ChildProcessError:  # the program around us reaped it (os.wait): how it ended is lost
                self._ended = (LOST_STATUS, None)
                return self._ended
            if result is not None:
                exited = result.si_code == os.CLD_EXITED
                self._ended = (result.si_status, None) if exited else (None, result.si_status)
        return self._ended

    def end(self, timeout_ms: int) -> None:
        """Wait for its end, kill it if that does not come in time, and reap it. Blocks for that time at most."""
        if self.fd >= 0 and self.poll() is None:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            if not poll.poll(timeout_ms):
                self.send(signal.SIGKILL)
                poll.poll()
            self.poll()

    def close(self) -> None:
        """Let go of the pidfd. Does not touch the process."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class StartedCommand(Process):
    """A child process that was made as a `subprocess.Popen`: reaped through it, so that it knows of its end."""

    def __init__(self, popen: Any) -> None:
        super().__init__(popen.pid)
        self._popen = popen

    def poll(self) -> tuple[int | None, int | None] | None:
        code: int | None = self._popen.poll()
        if code is None:
            return None
        return (code, None) if code >= 0 else (None, -code)


class Meter:
    """What procfs says of a process; 0 of one that is gone, or not ours to look at."""

    def rss_bytes(self, pid: int) -> int:
        """Resident memory, shared pages counted in full. Costs microseconds."""
        fields = _proc(pid, "statm").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0

    def pss_bytes(self, pid: int) -> int:
        """Resident memory, shared pages counted by their share; RSS where the kernel does not say (before 4.14)."""
        for line in _proc(pid, "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return self.rss_bytes(pid)

    def cpu_ticks(self, pid: int) -> int:
        """CPU time that it has used, in ticks of the clock."""
        fields = _proc(pid, "stat").rpartition(")")[2].split()  # the name, before, may hold anything
        return int(fields[11]) + int(fields[12]) if fields else 0

    def busy_s(self, pid: int) -> float:
        """CPU time that it has used, and that its main thread has waited for a CPU, in seconds.

        Who waits for a CPU has something to do: on a machine that others use, too, nobody gets all of one.
        """
        fields = _proc(
            pid, "schedstat"
        ).split()  # of the main thread: on a CPU, waiting for one, in ns; proc(5)
        waited_s = int(fields[1]) / 1e9 if len(fields) > 1 else 0.0
        return self.cpu_ticks(pid) / os.sysconf("SC_CLK_TCK") + waited_s


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def zombie_children() -> list[int]:
    """Pids of children of this process that have ended and are not reaped; they stay unreaped."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        pids = [int(pid) for pid in text.split()]
    except OSError:  # no procfs, or a kernel without CONFIG_PROC_CHILDREN
        return []
    return [pid for pid in pids if _has_ended(pid)]


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # reaped by its owner meanwhile
        return False


def reap(pid: int) -> None:
    """Reap one ended child; one that was reaped meanwhile is no error."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
