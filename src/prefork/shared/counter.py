"""Counters: numbers that all workers add to."""

from __future__ import annotations

from collections.abc import Iterator

from prefork.errors import ConfigError, NotANumberError
from prefork.shared.face import Face, name_bytes


class Counter(Face):
    """An integer of 64 bits, added to by all workers at once, exactly.

        visits = Counter("visits")
        visits.add()
        visits.get()

    `add` gives back nothing: each process adds to a cell of its own, and the value is their sum, so nobody waits for anybody.
    Where each caller needs a number of its own (an order's, say) take `Cache.increment`.
    """

    def __init__(self, name: str, *, url: str | None = None) -> None:
        super().__init__(url)
        self.name = name
        self._name = b"c" + name_bytes(name, "counter")

    def add(self, amount: int = 1) -> None:
        """Add to it. 0.4 µs on `lmdb://`, contended or not. Raises SharedError, NotANumberError."""
        if type(amount) is not int:
            raise NotANumberError(f"counter {self.name!r}: an integer is wanted, not {amount!r}")
        (self._store or self.store).add(self._name, amount)

    def get(self) -> int:
        """Its value: all that was added before, by whichever process, dead ones included."""
        return int(self.store.number(self._name))

    def reset(self) -> int:
        """Set it to 0; what it was. What others add meanwhile is in the answer or in the new value, never lost."""
        return int(self.store.reset(self._name))


class Counters(Face):
    """Many counters of one group, by name.

    downloads = Counters("downloads")
    downloads.add("setup.exe")
    dict(downloads.items())
    """

    def __init__(self, group: str, *, url: str | None = None) -> None:
        super().__init__(url)
        self.group = group
        self._prefix = b"C" + name_bytes(group, "group of counters") + b"\0"

    def _full(self, name: object) -> bytes:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= 200:
            raise ConfigError(f"the name of a counter must be text of 1 to 200 bytes, not {name!r}")
        return self._prefix + name.encode()

    def add(self, name: str, amount: int = 1) -> None:
        """As `Counter.add`."""
        if type(amount) is not int:
            raise NotANumberError(f"counter {name!r}: an integer is wanted, not {amount!r}")
        self.store.add(self._full(name), amount)

    def get(self, name: str) -> int:
        """As `Counter.get`."""
        return int(self.store.number(self._full(name)))

    def reset(self, name: str) -> int:
        """As `Counter.reset`."""
        return int(self.store.reset(self._full(name)))

    def items(self) -> Iterator[tuple[str, int]]:
        """Name and value of all that were added to."""
        cut = len(self._prefix)
        for name, value in self.store.numbers(self._prefix).items():
            yield name[cut:].decode(), int(value)
