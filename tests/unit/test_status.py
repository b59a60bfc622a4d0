"""A status as people read it."""

from __future__ import annotations

import os

import pytest

from prefork import control
from prefork.cli.status import duration, measured, table


def worker(slot: int, pid: int | None, **more: object) -> control.WorkerReport:
    fields: dict[str, object] = {"serial": slot + 1, "generation": 1, "phase": "ready", "age_s": 90.0, **more}
    return control.WorkerReport(slot=slot, pid=pid, **fields)  # type: ignore[arg-type]


def report(*workers: control.WorkerReport, **more: object) -> control.StatusReport:
    fields: dict[str, object] = {
        "state": "serving",
        "generation": 1,
        "incoming": None,
        "wanted": 2,
        "ready": 2,
        "pid": 4711,
        "name": "shop:app",
        "addresses": ("http://0.0.0.0:80", "unix:/run/shop"),
        "uptime_s": 7200.0,
        **more,
    }
    return control.StatusReport(workers=workers, **fields)  # type: ignore[arg-type]


def test_what_is_refused_is_told_below() -> None:
    """Since when is in the log; for how long still is what people ask."""
    refused = (control.RefusalReport("GET /report?…", 3, 1800.0), control.RefusalReport("POST /x", 1, 59.0))
    assert table(report(refused=refused), {}).splitlines()[-2:] == [
        "refused for 30 min: GET /report?…, which has killed 3 workers",
        "refused for 59 s: POST /x, which has killed 1 worker",
    ]


def test_a_line_for_the_fleet_and_one_for_each_worker() -> None:
    """Numbers to the right, and nothing where nothing is known."""
    shown = table(
        report(
            worker(0, 12, connections=3),
            worker(11, 34567, worn="it has served for 3600 s"),
            worker(1, None, phase="spawning", age_s=None),
        ),
        {12: 24 * 2**20},
    )
    assert shown.splitlines() == [
        "shop:app  serving, 2 of 2 workers  generation 1  http://0.0.0.0:80 unix:/run/shop  master 4711, up 2 h",
        "SLOT    PID  GEN  STATE       AGE  CONNECTIONS  MEMORY",
        "   0     12    1  ready     2 min            3  24 MiB",
        "  11  34567    1  ready     2 min            -       -  it has served for 3600 s",
        "   1      -    1  spawning      -            -       -",
    ]


def test_what_a_reload_tries_out() -> None:
    """Beside the generation that serves."""
    assert "generation 1 (trying out 2)" in table(report(incoming=2), {})


def test_a_program_without_a_name() -> None:
    """Nothing stands in its place."""
    assert table(report(name=""), {}).startswith("serving, 2 of 2 workers")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (5400, "2 h"), (86400, "1 d"), (1e6, "12 d")],
)
def test_a_time_in_its_largest_unit(seconds: float, said: str) -> None:
    """As people say it."""
    assert duration(seconds) == said


def test_memory_of_those_that_can_be_seen() -> None:
    """This process can; who is gone, or is not there yet, is left out."""
    found = measured(report(worker(0, os.getpid()), worker(1, None), worker(2, 2**22 + 1)))
    assert list(found) == [os.getpid()]
    assert found[os.getpid()] > 0
