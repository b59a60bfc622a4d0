"""The admin process: `python -m prefork.observe.admin FD`, run by a master, beside its workers.

    BeAdmin (line to the master, listeners) -> serve -> Ready -> ... -> end-of-file -> leave

It ends when its channel does: the master has told it to leave, or is gone. Signals are the master's business, so one that is
sent to the whole process group does not end it before the workers have drained; SIGKILL does, and the master makes another.
The kernel kills it with its master, too (`spawn`).

It is the only process that speaks HTTP to whoever looks, so that neither a master nor a worker has to.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Final

from prefork import system
from prefork.channel import BeAdmin, BootFailed, Channel, Ready
from prefork.errors import PreforkError
from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.http.server import HttpServer
from prefork.observe import log
from prefork.observe.applications import applications_metrics
from prefork.observe.line import Line
from prefork.observe.site import Site, Watcher
from prefork.observe.usage import Usages
from prefork.worker import signals
from prefork.worker.listener import Gate, Listener
from prefork.worker.loops import loop_factory
from prefork.worker.privileges import privileges
from prefork.worker.reporting import traceback_of

LEAVES_WITHIN_S: Final = 0.2
"""An answer takes milliseconds, and a stop must not wait for somebody's open page."""
_LIMITS: Final = HttpLimits(
    head_bytes=16 * 1024, body_bytes=1024, head_s=5.0, keep_alive_s=15.0, send_s=10.0, connections=256
)


def main() -> None:
    """Be the admin process. Never raises; a start that fails is told to the master."""
    leaving = (signal.SIGTERM, signal.SIGQUIT)
    signals.settle(blocked=leaving)
    for signum in leaving:
        signal.signal(signum, signals.mute)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, leaving)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    found = channel.receive()
    if not found:
        return  # the master was gone before we were
    message, fds = found[0]
    assert isinstance(message, BeAdmin)
    log.default_logger()
    log.introduce("admin")
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(channel, message, fds))
    except Exception as error:  # whatever it is, the fleet serves on
        summary = str(error) if isinstance(error, PreforkError) else f"{type(error).__name__}: {error}"
        details = "" if isinstance(error, PreforkError) else traceback_of(error)
        with contextlib.suppress(OSError):  # nobody is left to tell
            channel.send(BootFailed(summary, details[-8192:], is_final=False))


async def _serve(channel: Channel, message: BeAdmin, fds: tuple[int, ...]) -> None:
    line_fd, *listening = fds
    names = {name.lower() for name in (*message.names, socket.gethostname())}
    line = Line(socket.socket(fileno=line_fd))
    watcher = Watcher(line.report, Usages(system.Meter()))
    server = HttpServer(
        Site(watcher, names, [applications_metrics()]), options=HttpOptions(lifespan="off"), limits=_LIMITS
    )
    rights = privileges(message.user, message.group)
    if rights is not None:  # nobody has been heard yet; what we load ourselves, only root may be able to read
        rights.give_up()
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(server.serve_many(_listeners(channel, listening), None))

    def heard() -> None:
        channel.receive()
        if channel.is_closed:
            loop.remove_reader(channel.fileno())
            server.drain()
            loop.call_later(LEAVES_WITHIN_S, serving.cancel)

    loop.add_reader(channel.fileno(), heard)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    line.close()


def _listeners(channel: Channel, fds: list[int]) -> list[Listener]:
    """As a worker's: the moment when the server reaches for them is when we are ready."""
    gate = Gate(lambda: channel.send(Ready()))
    return [Listener(fd, gate) for fd in fds]


if __name__ == "__main__":
    main()
