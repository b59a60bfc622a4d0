"""What a worker was at when it died: the requests whose code it runs, on pages that outlive it; and what is refused for it.

A flight recorder, kept only where `--refuse-after-kills` is set: it lies behind the records of the scoreboard, in the same
nameless file. A worker writes on its own page, before it runs an application's code and after; the master reads the page
when the worker is gone. The other way round the master publishes a list, which workers look at when its number changes.

Rules:

* A request is called by its name: method and target as they came, query included. A longer one than `NAME_BYTES` is cut,
  and its hash stands for the rest; so names differ where requests do.
* A line of a page is 128 bytes: a state of one aligned word, and text. The text is written before the state.
* A page has `SLOTS` lines. Who finds none free has none while it waits; while its code runs it has the last one, which all
  of those share.
* The list has a number that is odd while it is written. Who reads it and finds the number changed reads it again, later.
* A worker that has seen a request of the list through says so on its line, with the list's number: a word that is meant
  for another list says nothing.

Not here: who is to blame (`master.refusals`), how a request is run (`http.recording`).
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

NAME_BYTES: Final = 96
MOST_LISTED: Final = 255
"""Names on the list: those of some hundred waiting requests, and their routes."""
SLOTS: Final = 31
"""Requests of one worker that can be told at once: what a page of memory holds."""
RUNS: Final = 1 << 8
"""In the state of a slot: its code is being run. The lowest byte is the length of the name; 0: nobody's."""
ANY_QUERY: Final = b" ?*"
"""Ends the name of a route, which stands for its requests with every query. No target has a space."""

_MOST_NAMES: Final = 256
"""Names remembered a process, the latest used: a target may be as long as the limits let it."""
_REFUSED: Final = 1 << 8
"""In the state of a line of the list; else it is a suspect."""
_HASHED_BYTES: Final = 8
_LINE_BYTES: Final = 128
_LINE_WORDS: Final = _LINE_BYTES // 8
_TEXT: Final = 24
_PAGE_BYTES: Final = (SLOTS + 1) * _LINE_BYTES
_LIST_BYTES: Final = (MOST_LISTED + 1) * _LINE_BYTES
_LENGTH: Final = 0xFF

# Words of the list's first line.
NUMBER: Final = 0
"""Which list it is; odd while it is written."""
_GONE: Final = 1
# Words of each of the others, behind the state.
_UNTIL_MS: Final = 1
_ENDED: Final = 2
# The word of a page's first line.
_COUNT: Final = 0


@lru_cache(_MOST_NAMES)
def name_of(method: str, path: bytes, query: bytes = b"") -> bytes:
    """What a request is called: "GET /report?id=5". Path and query as they came; or the whole target as the path."""
    target = b"%b?%b" % (path, query) if query else path
    name = b"%b %b" % (method.encode("latin-1", "replace"), target)
    if len(name) <= NAME_BYTES:
        return name
    from hashlib import blake2b  # noqa: PLC0415  (the master would carry OpenSSL about for a name that hardly ever comes)

    digest = blake2b(name, digest_size=_HASHED_BYTES).hexdigest().encode()
    return name[: NAME_BYTES - len(digest) - 1] + b"~" + digest


def route_of(name: bytes) -> bytes:
    """What all requests are called that differ from this one in their query only."""
    return name.partition(b"?")[0] + ANY_QUERY


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a worker that is gone has left, and what the living say of those on the list."""

    running: tuple[bytes, ...] = ()
    """Names of the requests whose code it ran: one on an event loop, several in threads."""
    waiting: tuple[bytes, ...] = ()
    """Of those that waited, and whose answers had not begun."""
    ended: tuple[bytes, ...] = ()
    """Names of the list of which a request has come to its end, anywhere, since the list was published."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list."""

    name: bytes
    is_refused: bool
    until_ms: int = 0
    """CLOCK_MONOTONIC; of a refusal."""


def region_bytes(entries: int) -> int:
    """What the list and the pages of so many workers take. Only what is used takes memory."""
    return _LIST_BYTES + entries * _PAGE_BYTES


class _Region:
    """List and pages, as one process maps them."""

    def __init__(self, fd: int, offset: int) -> None:
        self.map = mmap.mmap(fd, 0, offset=offset)
        self.words = memoryview(self.map).cast("Q")

    def write_text(self, word: int, text: bytes) -> None:
        begin = word * 8 + _TEXT
        self.map[begin : begin + len(text)] = text

    def text(self, word: int, length: int) -> bytes:
        begin = word * 8 + _TEXT
        return self.map[begin : begin + length]

    def close(self) -> None:
        self.words.release()
        self.map.close()


class Recorders:
    """The master's side: reads every page, writes the list."""

    def __init__(self, fd: int, offset: int) -> None:
        self._region = _Region(fd, offset)
        self._listed: tuple[Listed, ...] = ()

    def last_words(self, entry: int) -> LastWords:
        """What the worker of this record has left. It must be gone."""
        running: list[bytes] = []
        waiting: list[bytes] = []
        first = _first_word(entry)
        for slot in range(1, SLOTS + 1):
            word = first + slot * _LINE_WORDS
            state = self._region.words[word]
            if state:
                name = self._region.text(word, state & _LENGTH)
                (running if state & RUNS else waiting).append(name)
        return LastWords(tuple(running), tuple(waiting), self._ended())

    def _ended(self) -> tuple[bytes, ...]:
        words = self._region.words
        number = words[NUMBER]
        return tuple(
            each.name
            for line, each in enumerate(self._listed, 1)
            if words[line * _LINE_WORDS + _ENDED] == number
        )

    def publish(self, listed: Sequence[Listed]) -> None:
        """Have workers know of this list in place of the last. Those beyond the room there is are left out."""
        region, words = self._region, self._region.words
        self._listed = tuple(listed[:MOST_LISTED])
        words[NUMBER] += 1
        for line, each in enumerate(self._listed, 1):
            word = line * _LINE_WORDS
            region.write_text(word, each.name)
            words[word + _UNTIL_MS], words[word + _ENDED] = each.until_ms, 0
            words[word] = len(each.name) | (_REFUSED if each.is_refused else 0)
        if len(self._listed) < MOST_LISTED:
            words[(len(self._listed) + 1) * _LINE_WORDS] = 0
        words[NUMBER] += 1

    def give_back(self, entry: int) -> None:
        """Its worker is gone: the page is empty, and what it has refused stays counted."""
        words, first = self._region.words, _first_word(entry)
        words[_GONE] += words[first + _COUNT]
        for line in range(SLOTS + 1):
            words[first + line * _LINE_WORDS] = 0

    def refused(self, entry: int) -> int:
        """Requests that the worker of this record has refused."""
        return self._region.words[_first_word(entry) + _COUNT]

    def refused_by_the_gone(self) -> int:
        """What those have refused whose records were given back."""
        return self._region.words[_GONE]

    def close(self) -> None:
        self._region.close()


class Recorder:
    """One worker's own page, and its view of the list. Lives in the worker.

    `begin`, `end` and `give_up` may be called in any thread, the others on the loop's.
    """

    def __init__(self, fd: int, offset: int, index: int) -> None:
        """Map the pages. `fd` stays the caller's, and may be closed. Raises OSError, ValueError."""
        self._region = _Region(fd, offset)
        self.words = self._region.words
        """Whoever has a slot writes its state here, by the number that `begin` gives."""
        first = _first_word(index)
        self._count = first + _COUNT
        *slots, self.shared = (first + slot * _LINE_WORDS for slot in range(1, SLOTS + 1))
        self._free = slots[::-1]
        self.number = 0
        """Of the list as it is known here; `words[NUMBER]` is that of the latest."""
        self.refused: dict[bytes, int] = {}
        """Name, and until when (CLOCK_MONOTONIC)."""
        self._suspects: dict[bytes, tuple[int, int]] = {}
        """Name, its word on the list, and which list: another thread may clear one while a new list is taken in."""
        self._told: set[bytes] = set()

    def begin(self, name: bytes) -> int:
        """A slot for a request, whose state is 0 until it is written. `shared`: `share` it before each write."""
        try:
            at = self._free.pop()
        except IndexError:
            self.share(name)  # another's state may be there
            return self.shared
        begin = at * 8 + _TEXT
        self._region.map[begin : begin + len(name)] = name
        return at

    def share(self, name: bytes) -> None:
        """Write a name on the line that those without a slot share."""
        self.words[self.shared] = 0
        self._region.write_text(self.shared, name)

    def end(self, at: int, name: bytes) -> None:
        """The request has come to its end, and has killed nobody."""
        self.words[at] = 0
        if at != self.shared:
            self._free.append(at)
        if self._suspects:
            self._clear(name)

    def give_up(self, at: int) -> None:
        """The slot is not needed any more; the request goes on in another, or waits."""
        self.words[at] = 0
        if at != self.shared:
            self._free.append(at)

    def _clear(self, name: bytes) -> None:
        for each in (name, route_of(name)):
            found = self._suspects.pop(each, None)  # once is enough
            if found is not None:
                word, number = found
                self.words[word] = number

    def refused_until_ms(self, name: bytes) -> int | None:
        """Until when a request is to be refused (CLOCK_MONOTONIC); None: it is not."""
        if self.words[NUMBER] != self.number:
            self._read()
        if not self.refused:
            return None
        until_ms = self.refused.get(name) or self.refused.get(route_of(name))
        return until_ms if until_ms is not None and until_ms > time.monotonic_ns() // 1_000_000 else None

    def count_refused(self) -> None:
        """One more has been."""
        self.words[self._count] += 1

    def is_first_refusal(self, name: bytes) -> bool:
        """Whether nobody has been refused here yet for the same line of the list."""
        name = name if name in self.refused else route_of(name)
        is_first = name not in self._told
        self._told.add(name)
        return is_first

    def _read(self) -> None:
        """Take the list in, unless it is being written just now."""
        words = self.words
        number = words[NUMBER]
        if number % 2:
            return
        refused, suspects = {}, {}
        for line in range(1, MOST_LISTED + 1):
            word = line * _LINE_WORDS
            state = words[word]
            if not state:
                break
            name = self._region.text(word, state & _LENGTH)
            if state & _REFUSED:
                refused[name] = words[word + _UNTIL_MS]
            else:
                suspects[name] = word + _ENDED, number
        if words[NUMBER] == number:
            self.number, self.refused, self._suspects = number, refused, suspects
            self._told &= refused.keys()

    def close(self) -> None:
        """Let go of the pages; what they say stays."""
        self._region.close()


def _first_word(entry: int) -> int:
    return (_LIST_BYTES + entry * _PAGE_BYTES) // 8
