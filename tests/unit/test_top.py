"""`preforkctl top`, as people read it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from prefork import control
from prefork.cli import top
from prefork.errors import ConfigError
from prefork.observe.figures import Figures, Looks
from prefork.observe.usage import Usage
from tests.unit.test_figures import look, worker

EVENT = control.EventReport(1, 3.0, "crash", "worker 1 (pid 9, generation 1) crashed: killed by signal 9")
THEN = look(1000, worker(1, 100, 900), worker(2, 0, 0, statuses=(), latencies=()))
NOW = look(
    2000,
    worker(1, 300, 1900, in_flight=3, connections=4, worn="old"),
    worker(2, 0, 0, phase="booting", statuses=(), latencies=(), pid=None, age_s=None, connections=None),
    name="shop:app",
    events=(EVENT,),
    queued=7,
    addresses=("http://127.0.0.1:80",),
)
USAGES = {501: Usage(0.42, 24 * 2**20)}


def figures() -> Figures:
    looks = Looks()
    looks.add(THEN)
    return looks.add(NOW)


def drawn(width: int) -> list[str]:
    console = pytest.importorskip("rich.console")
    file = io.StringIO()
    console.Console(file=file, width=width).print(top.shown(figures(), USAGES, width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_line_for_each_worker() -> None:
    """Numbers in units that suit them, and nothing where nothing is known."""
    lines = drawn(160)
    assert lines[3].split() == list(top.COLUMNS)
    assert lines[4].split() == (
        [
            "0",
            "501",
            "1",
            "ready,",
            "worn",
            "9",
            "s",
            "200",
            "300",
            "3",
            "4",
            "983",
            "µs",
            "1.0",
            "ms",
            "42%",
            "24",
            "MiB",
        ]
    )
    assert lines[5].split() == ["1", "-", "1", "booting", "-", "-", "-", "0", "-", "-", "-", "-", "-"]


def test_two_lines_for_the_fleet_and_what_has_happened() -> None:
    """The totals are those of the counters."""
    lines = drawn(160)
    assert lines[0].startswith("shop:app  serving, 2 of 2 workers  generation 1  http://127.0.0.1:80")
    assert lines[1].startswith(
        "200 req/s  p50 983 µs  p99 1.0 ms  3 in flight  4 connections  queue 7  300 requests"
    )
    assert lines[-1] == f"    3 s ago  crash    {EVENT.text}"


def test_a_narrow_terminal_goes_without_some_columns() -> None:
    """And loses none of the others."""
    lines = drawn(80)
    names = next(line for line in lines if line.startswith("SLOT")).split()
    assert names == [name for name in top.COLUMNS if name not in top.LEFT_OUT]
    assert any("24 MiB" in line for line in lines)


@pytest.mark.parametrize(
    ("per_s", "said"),
    [
        (None, "-"),
        (0, "0"),
        (0.25, "0.25"),
        (9.996, "10.0"),
        (41.72, "41.7"),
        (99.96, "100"),
        (1234.5, "1234"),
    ],
)
def test_a_rate(per_s: float | None, said: str) -> None:
    """With as many digits as mean something."""
    assert top.rate(per_s) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.0000052, "5.2 µs"),
        (0.000085, "85 µs"),
        (0.00099999, "1.0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (75, "75 s"),
    ],
)
def test_a_latency(seconds: float | None, said: str) -> None:
    """In the unit that suits it."""
    assert top.latency(seconds) == said


def test_sizes() -> None:
    """Of a process, and of many."""
    assert [top.size(x) for x in (None, 24 * 2**20, 1536 * 2**20)] == ["-", "24 MiB", "1.50 GiB"]


def test_looks_are_an_interval_apart_and_the_first_is_not_shown() -> None:
    """Nothing can be told of its pace."""
    reports = iter([THEN, NOW, replace(NOW, now_ms=3000)])
    slept: list[float] = []
    seen = top.looks(lambda: next(reports), 2.0, slept.append)
    shown, _ = next(seen)
    assert shown.fleet.requests_per_s == 200
    assert len(slept) == 1
    assert 1.0 < slept[0] <= 2.0


def test_json_needs_no_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs; a table does, and says what to install."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    reports = iter([THEN, NOW, THEN, NOW])
    top.top(lambda: next(reports), 0.001, is_once=True, is_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["requests"] == 300
    with pytest.raises(ConfigError, match=r"pip install 'prefork\[top\]'"):
        top.top(lambda: next(reports), 0.001, is_once=True, is_json=False)


def test_the_module_loads_no_rich() -> None:
    """The other commands of preforkctl go without."""
    assert not any(
        isinstance(each, ModuleType) and each.__name__.startswith("rich") for each in vars(top).values()
    )
