"""Counters and histograms of the user's own, added to by all workers, read by any of them, in Prometheus' text format.

    metrics = Metrics()
    orders = metrics.counter("shop_orders_total", "Orders placed", labels=("country",))
    orders.add(country="de")
    seconds = metrics.histogram("shop_seconds", "Time to answer")
    seconds.observe(0.012)
    metrics.prometheus()

Numbers are cells in the store (`Store.add`): no file for each pid, nothing to clean up behind a dead worker, and what
it had counted stays counted. What a metric means is kept in the store too, so any process can export what others
declared.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from prefork.errors import ConfigError
from prefork.shared.face import Face

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Those of the Prometheus client libraries, in seconds."""
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_PREFIX: Final = b"m"
_VALUES_BYTES: Final = 300


class Metrics(Face):
    """A registry of metrics; all that name the same store see the same numbers."""

    def __init__(self, *, url: str | None = None) -> None:
        super().__init__(url)

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> MetricCounter:
        """A number that only grows. Its name ends in `_total` by custom. Raises ConfigError."""
        return MetricCounter(self, _declare("counter", name, about, labels))

    def histogram(
        self, name: str, about: str, labels: Sequence[str] = (), buckets: Sequence[float] = BUCKETS
    ) -> MetricHistogram:
        """How often values fell below each bound. Raises ConfigError."""
        bounds = [float(bound) for bound in buckets if bound != float("inf")]
        if not bounds or bounds != sorted(set(bounds)) or len(bounds) > 100:
            raise ConfigError(
                f"metric {name!r}: buckets must be 1 to 100 bounds in growing order, not {buckets!r}"
            )
        return MetricHistogram(self, _declare("histogram", name, about, labels, bounds))

    def prometheus(self) -> str:
        """All metrics of the store in the text format 0.0.4, sorted. Any process; looks at all numbers. Raises SharedError."""
        lines: list[str] = []
        numbers = self.store.numbers(_PREFIX)
        for name, text in sorted(self.store.descriptions(_PREFIX).items()):
            declared = json.loads(text)
            mine = {key: value for key, value in numbers.items() if key.startswith(name + b"\0")}
            lines += _export(declared, mine, len(name) + 1)
        return "".join(f"{line}\n" for line in lines)


class _Metric:
    """What counters and histograms have in common."""

    def __init__(self, metrics: Metrics, declared: dict[str, Any]) -> None:
        self._metrics = metrics
        self._declared = declared
        self._labels: tuple[str, ...] = tuple(declared["labels"])
        self._prefix: bytes = _PREFIX + declared["name"].encode() + b"\0"
        self._is_described = False
        self._known: dict[tuple[str, ...], bytes] = {}

    def _full(self, labels: dict[str, str]) -> bytes:
        """The name of the number for these labels, without what follows."""
        if not self._is_described:
            text = json.dumps(self._declared, separators=(",", ":")).encode()
            self._metrics.store.describe(self._prefix[:-1], text)
            self._is_described = True
        if not self._labels and not labels:
            return self._prefix
        try:
            values = tuple([str(labels[label]) for label in self._labels])
        except KeyError as error:
            raise ConfigError(f"metric {self._declared['name']!r}: label {error} is missing") from None
        if len(labels) != len(self._labels):
            raise ConfigError(
                f"metric {self._declared['name']!r}: its labels are {self._labels}, not {tuple(labels)}"
            )
        known = self._known.get(values)
        if known is None:
            encoded = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
            if len(encoded) > _VALUES_BYTES:
                raise ConfigError(
                    f"metric {self._declared['name']!r}: its labels are longer than {_VALUES_BYTES} bytes: {values}"
                )
            known = self._prefix + encoded
            self._known[values] = known
        return known


class MetricCounter(_Metric):
    """See `Metrics.counter`."""

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to it. Raises SharedError; ConfigError for a negative amount or other labels than declared."""
        if not amount >= 0:
            raise ConfigError(f"metric {self._declared['name']!r}: a counter only grows, not by {amount!r}")
        self._metrics.store.add(self._full(labels), float(amount))


class MetricHistogram(_Metric):
    """See `Metrics.histogram`."""

    def __init__(self, metrics: Metrics, declared: dict[str, Any]) -> None:
        super().__init__(metrics, declared)
        self._bounds: list[float] = declared["buckets"]

    def observe(self, value: float, **labels: str) -> None:
        """Count a value: two additions. Killed between them, the sum lacks it and the count has it. Raises as `add`."""
        full = self._full(labels)
        place = bisect.bisect_left(self._bounds, value)
        self._metrics.store.add_many([(full + b"\0%d" % place, 1), (full + b"\0s", float(value))])


def _declare(
    kind: str, name: str, about: str, labels: Sequence[str], buckets: Sequence[float] = ()
) -> dict[str, Any]:
    if not _NAME.match(name) or len(name) > 100:
        raise ConfigError(f"metric {name!r}: letters, digits, _ and : are possible, 100 at most")
    for label in labels:
        if not _LABEL.match(label) or label.startswith("__") or label in {"le", "amount", "value"}:
            raise ConfigError(f"metric {name!r}: {label!r} cannot be a label")
    return {"kind": kind, "name": name, "about": about, "labels": list(labels), "buckets": list(buckets)}


def _export(declared: dict[str, Any], numbers: dict[bytes, float], cut: int) -> Iterable[str]:
    name, kind = declared["name"], declared["kind"]
    about = declared["about"].replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    if kind == "counter":
        for key, value in sorted(numbers.items()):
            yield f"{name}{_labels(declared, key[cut:])} {_number(value)}"
        return
    groups: dict[bytes, dict[bytes, float]] = {}
    for key, value in numbers.items():
        values, _, part = key[cut:].rpartition(b"\0")
        groups.setdefault(values, {})[part] = value
    for values, parts in sorted(groups.items()):
        total = 0.0
        for place, bound in enumerate([*declared["buckets"], "+Inf"]):
            total += parts.get(b"%d" % place, 0)
            limit = bound if isinstance(bound, str) else _number(bound)
            yield f"{name}_bucket{_labels(declared, values, le=limit)} {_number(total)}"
        yield f"{name}_sum{_labels(declared, values)} {_number(parts.get(b's', 0.0))}"
        yield f"{name}_count{_labels(declared, values)} {_number(total)}"


def _labels(declared: dict[str, Any], values: bytes, **more: str) -> str:
    pairs = dict(zip(declared["labels"], json.loads(values) if values else (), strict=False)) | more
    if not pairs:
        return ""
    escaped = (
        (label, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for label, value in pairs.items()
    )
    return "{" + ",".join(f'{label}="{value}"' for label, value in escaped) + "}"


def _number(value: float) -> str:
    return f"{int(value)}" if value == int(value) and abs(value) < 1e15 else repr(value)
