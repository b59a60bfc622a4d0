"""The processes a master has made, and what they say and do: channels, pidfds, and the wait for all of them.

Nothing is decided here, and nothing is started here: `Shell` does that. A process is in exactly one of three places:
children (by serial number), zygotes (by generation), parked (by pid; the next worker, waiting in the nursery).
"""

from __future__ import annotations

import select
import selectors
import signal
from collections.abc import Callable, Iterable, Iterator

from prefork import system
from prefork.channel import Awake, BootFailed, Forked, ForkFailed, Message, Parked, Ready, Stacks, Worn
from prefork.master import events as e
from prefork.master.spawn import Kin, hold
from prefork.master.strangers import Strangers
from prefork.recorder import LastWords

SILENT_END_MS = 100
"""Between a process's end-of-file and its end lie microseconds; a foreign child's is looked at for this long."""
PARKED_END_MS = 1000
"""A parked process leaves within milliseconds of its zygote; after this it is killed."""
FIRST, LAST = 0, 1
"""Order within one wake-up: what people ask for and what processes say, then who has ended."""

Source = Callable[[], Iterable[e.Event]]


class Household:
    """All processes of one master. Used by its loop only."""

    def __init__(self, strangers: Strangers, give_back: Callable[[int], LastWords] | None = None) -> None:
        """`give_back` is told the scoreboard's record of each worker that is gone, and says what it has left there."""
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Kin] = {}
        self._zygotes: dict[int, Kin] = {}
        self._parked: dict[int, system.Process] = {}
        self._strangers = strangers
        self._give_back = give_back

    def wait(self, timeout_s: float | None) -> Iterator[e.Event]:
        """Block until something happens or the time is over, then say what: asked-for things first."""
        ready = self._selector.select(timeout_s)
        if ready:
            # Once more: epoll_wait(2) reports an end without the signal that came before it, whose handler runs only
            # then. A signal to the whole group would look like a worker's crash.
            ready = self._selector.select(0)
        for key, _ in sorted(ready, key=lambda pair: pair[0].data[0]):
            if (
                self._selector.get_map().get(key.fd) is key
            ):  # not closed, or used again, by an earlier one of this round
                yield from key.data[1]()

    def watch(self, fd: int, order: int, source: Source) -> None:
        """From now on `source` says what it means that `fd` is readable."""
        if fd >= 0:
            self._selector.register(fd, selectors.EVENT_READ, (order, source))

    def unwatch(self, fd: int) -> None:
        """Stop watching, if it is watched. Before `fd` is closed: epoll watches the open file, not the number."""
        if fd >= 0 and fd in self._selector.get_map():
            self._selector.unregister(fd)

    @property
    def is_empty(self) -> bool:
        return not self._children and not self._zygotes

    def child(self, serial: int) -> Kin | None:
        return self._children.get(serial)

    def zygote(self, generation: int) -> Kin | None:
        return self._zygotes.get(generation)

    def tell(self, serials: Iterable[int], message: Message) -> list[OSError]:
        """Tell children something; why some could not be told."""
        errors = []
        for serial in serials:
            kin = self._children.get(serial)
            if kin is not None and not kin.channel.is_closed:
                try:
                    kin.channel.send(message)
                except OSError as error:
                    errors.append(error)
        return errors

    def pids(self) -> tuple[dict[int, int], list[int]]:
        """The pids of the children, by serial number, and those of zygotes and parked processes."""
        children = {serial: kin.process.pid for serial, kin in self._children.items() if kin.process}
        zygotes = [kin.process.pid for kin in self._zygotes.values() if kin.process]
        return children, [*zygotes, *self._parked]

    def entries(self) -> dict[int, tuple[int, int]]:
        """The pid, and the record on the scoreboard, of each child that has both, by serial number."""
        return {
            serial: (kin.process.pid, kin.entry)
            for serial, kin in self._children.items()
            if kin.process is not None and kin.entry is not None
        }

    def close(self) -> None:
        """Let go of all of them, without touching the processes. Also for the copy in a forked zygote."""
        for kin in (*self._children.values(), *self._zygotes.values()):
            kin.close()
        for process in self._parked.values():
            process.close()
        self._children, self._zygotes, self._parked = {}, {}, {}
        self._selector.close()

    # -- zygotes ----------------------------------------------------------------------------------

    def add_zygote(self, generation: int, kin: Kin) -> None:
        """A zygote has been started."""
        assert kin.process is not None
        self._zygotes[generation] = kin
        self.watch(kin.channel.fileno(), FIRST, lambda: self._zygote_said(generation))
        self.watch(kin.process.fd, LAST, lambda: self._zygote_ended(generation))

    def retire_zygote(self, generation: int) -> None:
        """Tell it that nothing more comes: it leaves by itself, and is heard until it has."""
        kin = self._zygotes.get(generation)
        if kin is not None:
            kin.channel.finish()

    def _zygote_said(self, generation: int) -> Iterator[e.Event]:
        kin = self._zygotes.get(generation)
        if kin is None:
            return
        for message, _ in kin.channel.receive():
            yield from self._zygote_message(generation, message)
        if kin.channel.is_closed:
            self.unwatch(kin.channel.fileno())

    def _zygote_message(self, generation: int, message: Message) -> Iterator[e.Event]:
        if isinstance(message, Ready):
            yield e.ZygoteReady(generation)
        elif isinstance(message, BootFailed):
            yield e.ZygoteFailed(generation, _failure(message))
        elif isinstance(message, Parked):
            self._park(message.pid)
        elif isinstance(message, Forked):
            yield from self._born(message)
        elif isinstance(message, ForkFailed):
            self.drop_child(message.serial)
            yield e.SpawnFailed(message.serial, message.why)

    def _zygote_ended(self, generation: int) -> Iterator[e.Event]:
        kin = self._zygotes.get(generation)
        status = kin.process.poll() if kin is not None and kin.process is not None else None
        if kin is not None and status is not None:
            yield from self._zygote_said(generation)  # its last words
            del self._zygotes[generation]
            self._let_go(kin)
            yield e.ZygoteExited(generation, e.ExitStatus(*status))

    # -- the parked -------------------------------------------------------------------------------

    def _park(self, pid: int) -> None:
        """Hold a process that waits to be a worker: it is our child, to be reaped should it end as it is."""
        try:
            process = system.Process(pid)
        except OSError:  # no descriptor is left, or it is gone: `Strangers` reaps it
            return
        self._parked[pid] = process
        self.watch(process.fd, LAST, lambda: self._parked_ended(pid))

    def _unpark(self, pid: int) -> system.Process | None:
        process = self._parked.pop(pid, None)
        if process is not None:
            self.unwatch(process.fd)
        return process

    def _parked_ended(self, pid: int) -> Iterable[e.Event]:
        process = self._unpark(pid)
        if process is not None:
            process.poll()
            process.close()
        return ()

    def end_parked(self) -> None:
        """See the parked out: their zygotes are gone, so they are going. Blocks for a moment."""
        for process in self._parked.values():
            process.end(PARKED_END_MS)

    # -- children ---------------------------------------------------------------------------------

    def expect_child(self, serial: int, kin: Kin) -> None:
        """A zygote has been asked for this child; its pid is to come."""
        self._children[serial] = kin

    def add_child(self, serial: int, kin: Kin) -> Iterator[e.Event]:
        """A child exists: watch it, and say so. Only from now on is it heard, so nothing comes before that."""
        assert kin.process is not None
        self._children[serial] = kin
        self.watch(kin.channel.fileno(), FIRST, lambda: self._child_said(serial))
        self.watch(kin.process.fd, LAST, lambda: self._child_ended(serial))
        yield e.ChildSpawned(serial, kin.process.pid)

    def drop_child(self, serial: int) -> LastWords:
        """Let go of a child that is gone, or never came to be; what it has left."""
        kin = self._children.pop(serial, None)
        if kin is not None:
            self._let_go(kin)
            if kin.entry is not None and self._give_back is not None:
                return self._give_back(kin.entry)
        return LastWords()

    def _born(self, message: Forked) -> Iterator[e.Event]:
        kin = self._children.get(message.serial)
        if kin is None:  # given up meanwhile
            if message.pid not in self._parked:
                self._park(message.pid)
            if message.pid in self._parked:
                self._parked[message.pid].send(signal.SIGKILL)
            return
        process = self._unpark(message.pid)
        try:
            kin.process = process or hold(message.pid, kin.channel)
        except OSError as error:
            self.drop_child(message.serial)
            yield e.SpawnFailed(message.serial, f"its pidfd cannot be opened: {error.strerror}")
            return
        yield from self.add_child(message.serial, kin)

    def _child_said(self, serial: int) -> Iterator[e.Event]:
        kin = self._children.get(serial)
        if kin is None:
            return
        for message, _ in kin.channel.receive():
            kin.has_spoken = True
            if isinstance(message, Ready):
                yield e.ChildReady(serial)
            elif isinstance(message, BootFailed):
                yield e.ChildFailed(serial, _failure(message))
            elif isinstance(message, Worn):
                yield e.ChildWorn(serial, message.why)
            elif isinstance(message, Awake):
                yield e.ChildAwake(serial)
            elif isinstance(message, Stacks):
                yield e.StacksSeen(message.client, serial, message.text)
        if kin.channel.is_closed:
            self.unwatch(kin.channel.fileno())
            if kin.is_foreign and not kin.has_spoken and not _ends_soon(kin):
                # It let go of a channel it knows nothing of: all that can be said is that it runs.
                kin.has_spoken = True
                yield e.ChildReady(serial)

    def _child_ended(self, serial: int) -> Iterator[e.Event]:
        kin = self._children.get(serial)
        if kin is None or kin.process is None:
            return
        status = kin.process.poll()
        if status is not None:
            yield from self._child_said(serial)  # its last words
            words = self.drop_child(serial)
            yield e.ChildExited(serial, e.ExitStatus(*status), words)

    def _let_go(self, kin: Kin) -> None:
        self.unwatch(kin.channel.fileno())
        if kin.process is not None:
            self.unwatch(kin.process.fd)
        kin.close()

    # -- whoever ends -----------------------------------------------------------------------------

    def look_after(self, others: set[int]) -> Iterator[e.Event]:
        """A child has ended (CHLD): one of ours if the kernel has no pidfds, or an orphan that was left to us.

        Args:
            others: pids of our own that are not kept here.
        """
        if not system.HAS_PIDFD:
            for serial in list(self._children):
                yield from self._child_ended(serial)
        kin = (*self._children.values(), *self._zygotes.values())
        known = {x.process.pid for x in kin if x.process is not None} | self._parked.keys() | others
        # A forked worker may be our child before the zygote has told us of it.
        is_birth_near = any(x.process is None for x in self._children.values())
        self._strangers.reap(known, is_birth_near=is_birth_near, now_s=system.now_s())


def _failure(message: BootFailed) -> e.BootFailure:
    return e.BootFailure(message.summary, message.details, message.is_final)


def _ends_soon(kin: Kin) -> bool:
    assert kin.process is not None
    if kin.process.fd >= 0:
        poll = select.poll()
        poll.register(kin.process.fd, select.POLLIN)
        return bool(poll.poll(SILENT_END_MS))
    return kin.process.poll() is not None
