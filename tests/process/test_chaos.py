"""`make chaos` at its smallest: two real faults, and what it says of a promise that breaks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main, run
from benchmarks.chaos.fault import Fault, LeftOutError
from benchmarks.chaos.stage import Stage
from tests.process.load import ROOT


def _fault(name: str, run: object) -> Fault:
    return Fault(name, "1", "something is done", "nothing is lost", run)  # type: ignore[arg-type]


def test_two_faults_are_survived(tmp_path: Path) -> None:
    """From the command line, as people run it: counted, held, status 0."""
    told = tmp_path / "told.json"
    words = ["--quick", "--only", "kill-workers", "reload-broken", "--json", str(told)]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    faults = json.loads(told.read_text(encoding="utf-8"))["faults"]
    assert [fault["name"] for fault in faults] == ["kill-workers", "reload-broken"]
    for fault in faults:
        assert fault["verdict"] == "held"
        assert fault["tried"] == fault["answered"] + sum(fault["failed"].values())
        assert fault["answered"] > 100
    assert "2 held, 0 broken, 0 left out" in ended.stdout


def test_a_promise_that_breaks_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever breaks it: what was held against it, a wait that is over, an error. The other faults are still made."""

    def lies(stage: Stage) -> None:
        stage.count(3, 2, {"head: reset": 1})
        stage.hold(False, "one request failed, none may")

    def waits(stage: Stage) -> None:
        raise AssertionError("not said in 20 s: 'ready'")

    def errs(stage: Stage) -> None:
        raise ZeroDivisionError

    def leaves(stage: Stage) -> None:
        raise LeftOutError("there is no moon here")

    faults = [_fault("lies", lies), _fault("waits", waits), _fault("errs", errs), _fault("leaves", leaves)]
    assert main([], faults) == 1
    said = capsys.readouterr().out
    assert "BROKEN: one request failed, none may" in said
    assert "BROKEN: not said in 20 s" in said
    assert "BROKEN: ZeroDivisionError" in said
    assert "3 tried, 2 answered, 1 failed (head: reset 1)" in said
    assert "0 held, 3 broken, 1 left out; broken: lies, waits, errs" in said


def test_what_is_left_out_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """It is neither held nor broken, and never silent."""

    def leaves(stage: Stage) -> None:
        raise LeftOutError("there is no moon here")

    assert main(["--quick"], [_fault("moon", leaves)]) == 0
    said = capsys.readouterr().out
    assert "left out: there is no moon here" in said
    assert "0 held, 0 broken, 1 left out" in said


def test_more_failures_than_are_allowed_break_the_promise() -> None:
    """A fault that loses a whole fleet under load, and promises that nothing fails."""

    def loses(stage: Stage) -> None:
        fleet = stage.fleet()
        load = stage.load(fleet, clients=4)
        fleet.kill(fleet.pid)
        fleet.assert_nothing_left()
        stage.finish(load)

    outcome = run(_fault("loses", loses), is_quick=True)
    assert outcome.verdict == "BROKEN"
    assert outcome.failed["connect: refused"] > 0
    assert "requests failed, 0 may" in outcome.broken[0]
    assert "ready: 2 workers" in outcome.said
