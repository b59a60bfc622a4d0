"""The page that all processes of one master share: a record for each worker, written by that worker alone, but for a word.

Rules:

* One record is a kilobyte, cache lines of its own, so that a worker's writes disturb no sibling. The one word that is the
  master's says that it dismisses the worker (`Scoreboard.dismiss`). Each field is one
  aligned 64-bit word and is written in one store; readers take no lock and may see the words of one moment ago.
* Records belong to processes, not to slots: in a reload the old and the new worker of a slot live together. The master
  gives one out when it starts a worker and takes it back when the worker has been reaped, so no dead worker is counted.
* `LOAD` is the number of open connections, or `NOT_ACCEPTING`, which is more than any: whoever looks for the least
  loaded worker takes a minimum and passes over those that drain, are full, boot, are gone, or never wrote.
* What a worker has served is counted in the worker, and told here about once a second (`http.tally`). What workers had
  served that are gone is kept in the header's words of the same names, so that a sum over all records never goes back.
* The page is a file without a name. Its descriptor travels to a worker with its first message, which is the same under
  every start method. A program upgrade (USR2) has a page of its own.

Layout: one header record (version, bytes of a record, records in use from the first on, last call, where the flight recorder
lies), then the records, then, where it is asked for, the flight recorder (`recorder`). New fields go to the free words of a
record; a change of what is there counts `VERSION` up.

Not here: who waits for whom (`http.accepting`).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from array import array
from dataclasses import dataclass
from typing import Final

from prefork.latency import BUCKETS
from prefork.recorder import LastWords, Recorder, Recorders, region_bytes

VERSION: Final = 2
RECORD_BYTES: Final = 1024
NOT_ACCEPTING: Final = 2**32 - 1
LAST_CALL_S: Final = 0.5
"""How long those who wait are accepted, when all workers stop: a queue that is filled as fast as it is emptied has no end."""
UNDECIDED_S: Final = 0.005
"""How often a worker that somebody else than the master has told to drain looks whether all of them are to."""
_WORDS: Final = RECORD_BYTES // 8

# Words of the header.
_VERSION_WORD: Final = 0
_RECORD_WORD: Final = 1
_IN_USE_WORD: Final = 2
_LAST_CALL_WORD: Final = 3
_RECORDER_WORD: Final = 4

# Words of a record; those from `_STATUSES` on are in the header, too, for the workers that are gone.
_LOAD: Final = 0
_IS_AWAKE: Final = 1
_TICK_MS: Final = 2
_IN_FLIGHT: Final = 3
_CAPACITY: Final = 4
_IS_DISMISSED: Final = 5
_STATUSES: Final = 8
STATUS_CLASSES: Final = 8
"""By a status's first digit, of which the lowest three bits count: 8xx and 9xx, which nothing stands for, are 0 and 1."""
_BUCKETS: Final = 16
_COUNTED: Final = slice(_STATUSES, _BUCKETS + BUCKETS)


@dataclass(frozen=True, slots=True)
class Told:
    """What one worker has told of itself, as of a second ago at most while it is awake."""

    connections: int | None
    """Open ones; None: it does not accept."""
    is_awake: bool
    """Something has happened within its last second or so."""
    tick_ms: int
    """CLOCK_MONOTONIC of the last time that it told: while it is awake that is a second ago, or its loop is blocked."""
    in_flight: int
    """Requests whose application has not returned, of those that have waited at all."""
    statuses: tuple[int, ...]
    """Answers, by the first digit of their status."""
    latencies: tuple[int, ...]
    """Requests by how long they took (`latency`); estimated from a sample where there are many."""
    capacity: int = 0
    """Requests that it works on at once, the others wait; 0: no bound is known."""

    @property
    def requests(self) -> int:
        """Answers in all."""
        return sum(self.statuses)


class _Page:
    """The words of the page, as one process maps them."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, 0)
        self.words = memoryview(self._map).cast("Q")

    def told(self, first: int) -> Told:
        """What the record says whose first word this is."""
        words = self.words[first : first + _WORDS].tolist()
        return Told(
            connections=None if words[_LOAD] == NOT_ACCEPTING else words[_LOAD],
            is_awake=bool(words[_IS_AWAKE]),
            tick_ms=words[_TICK_MS],
            in_flight=words[_IN_FLIGHT],
            statuses=tuple(words[_STATUSES : _STATUSES + STATUS_CLASSES]),
            latencies=tuple(words[_BUCKETS : _BUCKETS + BUCKETS]),
            capacity=words[_CAPACITY],
        )

    def close(self) -> None:
        self.words.release()
        self._map.close()


class Scoreboard:
    """The master's side of the page: whose record is whose. Make it with `create`."""

    def __init__(self, fd: int, entries: int, recorder_at: int = 0) -> None:
        self._fd = fd
        self._page = _Page(fd)
        self._is_free = [True] * entries
        words = self._page.words
        words[_VERSION_WORD], words[_RECORD_WORD] = VERSION, RECORD_BYTES
        words[_RECORDER_WORD] = recorder_at
        self.recorders: Recorders | None = Recorders(fd, recorder_at) if recorder_at else None
        """What workers were at when they died; None unless it is asked for."""

    @classmethod
    def create(cls, entries: int, *, records: bool = False) -> Scoreboard:
        """A page with room for so many processes, nobody on it yet; `records`: with a flight recorder.

        Master. Raises OSError, ValueError.
        """
        if entries < 1:
            raise ValueError(f"a scoreboard needs room for a process at least, not {entries}")
        fd = _nameless_file()
        size = (entries + 1) * RECORD_BYTES
        recorder_at = 0
        if records:
            recorder_at = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            size = recorder_at + region_bytes(entries)
        try:
            os.ftruncate(fd, size)
            return cls(fd, entries, recorder_at)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The descriptor to send to a worker. It is not inherited."""
        return self._fd

    def take(self) -> int | None:
        """A free record for a process that is to be started; None if all are taken: it does without."""
        if True not in self._is_free:
            return None
        entry = self._is_free.index(True)  # the first, so that none below those in use was never cleared
        self._is_free[entry] = False
        self._clear(entry)
        return entry

    def give_back(self, entry: int) -> LastWords:
        """Its process is gone: nobody counts it from now on. What it has served stays counted; what it was at is told."""
        words, first = self._page.words, _first_word(entry)
        for word in range(_COUNTED.start, _COUNTED.stop):
            words[word] += words[first + word]
        self._is_free[entry] = True
        self._clear(entry)
        if self.recorders is None:
            return LastWords()
        last_words = self.recorders.last_words(entry)
        self.recorders.give_back(entry)
        return last_words

    def told(self, entry: int) -> Told:
        """What the process of this record says of itself."""
        return self._page.told(_first_word(entry))

    def told_by_the_gone(self) -> Told:
        """What those have served whose records were given back."""
        return self._page.told(0)

    def refused(self) -> int | None:
        """Requests that all workers together have refused, those that are gone included; None: they never do."""
        if self.recorders is None:
            return None
        living = (entry for entry, is_free in enumerate(self._is_free) if not is_free)
        return self.recorders.refused_by_the_gone() + sum(self.recorders.refused(entry) for entry in living)

    def load(self, entry: int) -> int | None:
        """Open connections of the process of this record; None where it accepts none, or does not say."""
        connections = self._page.words[_first_word(entry) + _LOAD]
        return None if connections == NOT_ACCEPTING else connections

    def call_last(self) -> None:
        """The whole fleet stops: workers told to drain from now on take in whoever waits, for nobody comes after them."""
        self._page.words[_LAST_CALL_WORD] = 1

    def dismiss(self, entry: int) -> None:
        """The process of this record is about to be told to drain, by us and by nobody else."""
        self._page.words[_first_word(entry) + _IS_DISMISSED] = 1

    def _clear(self, entry: int) -> None:
        words, first = self._page.words, _first_word(entry)
        for word in range(_WORDS):
            words[first + word] = 0
        words[first + _LOAD] = NOT_ACCEPTING
        words[_IN_USE_WORD] = max(
            (i + 1 for i, is_free in enumerate(self._is_free) if not is_free), default=0
        )

    def close(self) -> None:
        """Let go of the page; workers keep theirs. Also for the copy in a forked zygote."""
        if self._fd >= 0:
            self._page.close()
            if self.recorders is not None:
                self.recorders.close()
            os.close(self._fd)
            self._fd = -1


class Entry:
    """One worker's own record, and its view of the others'. Lives in the worker."""

    def __init__(self, fd: int, index: int) -> None:
        """Map the page. `fd` stays the caller's, and may be closed. Raises OSError, ValueError (not our page)."""
        self._page = _Page(fd)
        words = self._words = self._page.words
        self.recorder: Recorder | None = None
        """Where to write what this worker is at; None unless it is asked for."""
        if words[_VERSION_WORD] != VERSION or words[_RECORD_WORD] != RECORD_BYTES:
            self.close()
            raise ValueError("the scoreboard is of another version of prefork")
        if words[_RECORDER_WORD]:
            self.recorder = Recorder(fd, words[_RECORDER_WORD], index)
        self.index = index
        self._first = _first_word(index)
        self._load = self._first + _LOAD

    def set_load(self, connections: int) -> None:
        """Tell the siblings how many connections are open here; from the first call on they count with this worker."""
        self._words[self._load] = connections

    def set_not_accepting(self) -> None:
        """Tell the siblings not to wait for this worker."""
        self._words[self._load] = NOT_ACCEPTING

    @property
    def is_last_call(self) -> bool:
        """The whole fleet stops: who waits in our queue is accepted by us now, or by nobody."""
        return bool(self._words[_LAST_CALL_WORD])

    @property
    def is_dismissed(self) -> bool:
        """The master wants this worker to drain. It may be told by somebody else, who may tell all the others, too."""
        return bool(self._words[self._first + _IS_DISMISSED])

    def wake(self) -> None:
        """Tell that something happens here again."""
        words, first = self._words, self._first
        words[first + _TICK_MS] = (
            time.monotonic_ns() // 1_000_000
        )  # before the other: nobody is to see an old one
        words[first + _IS_AWAKE] = 1

    def set_capacity(self, requests: int) -> None:
        """Tell how many requests are worked on at once here."""
        self._words[self._first + _CAPACITY] = requests

    def tell(
        self, *, tick_ms: int, in_flight: int, statuses: list[int], latencies: list[int], is_awake: bool
    ) -> None:
        """Tell what was served until now (`Told`): the words of a moment later may stand beside those of one before."""
        words, first = self._words, self._first
        words[first + _TICK_MS] = tick_ms
        words[first + _IN_FLIGHT] = in_flight
        words[first + _STATUSES : first + _STATUSES + STATUS_CLASSES] = memoryview(array("Q", statuses))
        words[first + _BUCKETS : first + _BUCKETS + BUCKETS] = memoryview(array("Q", latencies))
        words[first + _IS_AWAKE] = is_awake

    def loads(self) -> list[int]:
        """The load of every record in use, this one's included, by index; `NOT_ACCEPTING` for who is to be ignored."""
        words = self._words
        return words[_WORDS + _LOAD : (words[_IN_USE_WORD] + 1) * _WORDS : _WORDS].tolist()

    def close(self) -> None:
        """Let go of the page. What it says of this worker stays until the master has reaped it."""
        self._page.close()
        if self.recorder is not None:
            self.recorder.close()


def _first_word(entry: int) -> int:
    return (entry + 1) * _WORDS


def _nameless_file() -> int:
    """A file in memory, or, where the kernel has none (macOS), one that is removed already. Close-on-exec."""
    with contextlib.suppress(AttributeError, OSError):  # OSError: an old kernel, or a sandbox
        return os.memfd_create("prefork-scoreboard")
    import tempfile  # noqa: PLC0415  (hardly ever needed, and the master carries what it imports about for ever)

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
