"""What a benchmark is asked for: parts, scenarios, a quick selection, tools that are missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS, main, measure
from benchmarks.http.part import Http
from benchmarks.http.scenarios import SCENARIOS as HTTP
from benchmarks.http.scenarios import narrowed
from benchmarks.run.choosing import UnknownScenarioError, chosen_scenarios, effort, left_out
from benchmarks.run.figures import Run
from benchmarks.run.part import Wish
from benchmarks.run.steps import Step
from benchmarks.run.tools import TOOLS, Tool, ensure
from benchmarks.run.watch import LINE_EVERY_S, Lines, Watch

QUICK = Wish(is_quick=True)
QUICK_S = 180
NOTHING: dict[str, list[str]] = {"http": [], "supervision": [], "shared": []}


def test_without_words_all_is_meant() -> None:
    """Each scenario of each part, in its order."""
    chosen = chosen_scenarios([], PARTS, Wish())
    assert chosen["http"][0] == "hello"
    assert {name: len(found) for name, found in chosen.items()} == {
        part.name: len(part.scenarios(Wish())) for part in PARTS
    }


def test_a_part_a_scenario_and_a_scenario_of_a_part() -> None:
    """A name that two parts have means both, unless the part is said."""
    assert chosen_scenarios(["shared:kills"], PARTS, Wish()) == {**NOTHING, "shared": ["kills"]}
    kills = chosen_scenarios(["kills"], PARTS, Wish())
    assert kills == {**NOTHING, "supervision": ["kills"], "shared": ["kills"]}
    assert len(chosen_scenarios(["http", "hello"], PARTS, Wish())["http"]) == len(HTTP) + 1


@pytest.mark.parametrize("word", ["helo", "http:kills", "http:", ":"])
def test_a_word_that_means_nothing_is_refused(word: str) -> None:
    """With those that there are."""
    with pytest.raises(UnknownScenarioError, match=r"hello, .*; shared: calls"):
        chosen_scenarios([word], PARTS, Wish())


def test_what_a_quick_run_leaves_out_is_said() -> None:
    """And a run of nothing else is refused."""
    said = left_out(chosen_scenarios([], PARTS, QUICK), PARTS, QUICK)
    assert any(re.fullmatch(r"http .*\blarge, .* \(not in a quick run\)", line) for line in said)
    assert any("repetitions" in line for line in said)
    with pytest.raises(UnknownScenarioError, match="not in a quick run"):
        chosen_scenarios(["http:large"], PARTS, QUICK)
    assert left_out(chosen_scenarios([], PARTS, Wish()), PARTS, Wish()) == ()


def test_a_quick_run_is_planned_for_about_three_minutes() -> None:
    """All three parts together, on a machine with nothing else to do; in full it is more than ten times that."""
    quick = sum(step.seconds for step in steps(QUICK))
    assert 0.8 * QUICK_S <= quick <= 1.1 * QUICK_S
    assert sum(step.seconds for step in steps(Wish())) > 10 * quick


def steps(wish: Wish) -> list[Step]:
    chosen = chosen_scenarios([], PARTS, wish)
    return [step for part in PARTS for step in part.steps(chosen[part.name], wish)]


def test_words_narrow_the_subjects() -> None:
    """`--who uvicorn prefork`: theirs and ours, in all parts."""
    found = {step.who for step in steps(Wish(who=("uvicorn", "prefork")))}
    assert {"uvicorn", "prefork ASGI", "prefork"} <= found
    assert not any("granian" in who for who in found)


def test_goals_without_their_subjects_are_left_out() -> None:
    """So is one that is set for a number of connections that nobody opens."""
    hello = HTTP["hello"]
    some = narrowed(hello, lambda name: "Go" in name or "prefork ASGI" in name, (), is_quick=False)
    assert {goal.what for goal in some.goals} == {
        "ASGI / Go fasthttp prefork",
        "ASGI p99 / Go fasthttp prefork p99",
    }
    quick = narrowed(hello, lambda _name: True, (), is_quick=True)
    assert quick.connections == (64,)
    assert not any(goal.measure == "p99_ms" for goal in quick.goals)
    assert narrowed(hello, lambda _name: True, (7,), is_quick=True).connections == (7,)


def test_the_head_says_how_much_is_measured() -> None:
    """A figure of one short round is another than one of five."""
    assert effort(Wish()) == "in full"
    assert effort(Wish(), ["http:tls"]) == "in full, http:tls alone"
    assert (
        effort(Wish(is_quick=True, rounds=2, seconds=1, who=("nginx",)))
        == "quick, 2 rounds, 1 s a load, subjects: nginx"
    )


def test_wrong_words_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is installed or started."""
    with pytest.raises(SystemExit) as ended:
        main(["--only", "helo"])
    assert ended.value.code == 2
    assert "there is no 'helo'; there are http: " in capsys.readouterr().err


def test_a_scenario_that_breaks_takes_no_other_along() -> None:
    """It is told, its goal is missed, and its steps are no longer waited for."""

    class Broken(Http):
        def measure(self, scenario: str, *_: object) -> None:
            raise OSError(f"no {scenario}\nat all")

    run, said = Run(), list[str]()
    with Watch(Broken().steps(["tls"], QUICK), Lines(write=said.append)) as watch:
        measure(Broken(), "tls", QUICK, watch, run, directory=Path())
        assert watch.estimate.left_s == 0
    assert [(each.part, each.what, each.holds, each.note) for each in run.verdicts] == [
        ("http", "tls", False, "OSError: no tls")
    ]
    assert "OSError: no tls" in said[0]


# -- tools ------------------------------------------------------------------------------------------------


def tool(*, is_there: list[bool]) -> dict[str, Tool]:
    return {
        "wrk": replace(TOOLS["wrk"], is_there=lambda: is_there.pop(0) if len(is_there) > 1 else is_there[0])
    }


def test_what_is_missing_is_said_with_what_to_do() -> None:
    """Where we may not install, nothing is run."""
    said = ensure(["wrk"], may_install=False, say=print, tools=tool(is_there=[False]), run=unexpected)
    assert said == [
        "wrk is not installed, so all HTTP load but WebSocket is not measured: apt-get install wrk"
    ]
    assert ensure(["wrk"], may_install=True, say=print, tools=tool(is_there=[True]), run=unexpected) == []


def unexpected(words: list[str]) -> str:
    pytest.fail(f"run: {words}")


def test_root_installs_what_is_missing() -> None:
    """After the lists of packages, which a fresh machine does not have."""
    ran: list[list[str]] = []

    def run(words: list[str]) -> str:
        ran.append(words)
        return ""

    said: list[str] = []
    assert (
        ensure(["wrk"], may_install=True, say=said.append, tools=tool(is_there=[False, True]), run=run) == []
    )
    assert [words[2] for words in ran] == ["update", "install"]
    assert ran[1][-1] == "wrk"
    assert said == ["installing wrk (--no-install forbids it)"]


def test_what_cannot_be_installed_is_said_twice() -> None:
    """Why, at once; and in what is missing, for the report."""
    said: list[str] = []
    missing = ensure(
        ["wrk"],
        may_install=True,
        say=said.append,
        tools=tool(is_there=[False]),
        run=lambda _words: "no network",
    )
    assert said[-1] == "wrk cannot be installed: no network"
    assert len(missing) == 1


# -- progress without a terminal --------------------------------------------------------------------------


def test_lines_of_progress_are_few() -> None:
    """One in ten seconds; what is said is always printed."""
    now, written = [100.0], list[str]()
    step = Step("http", "hello", "prefork", 4.0)
    with Watch([step] * 10, Lines(lambda: now[0], written.append), lambda: now[0]) as watch:
        for _ in range(10):
            with watch.step("http", "hello", "prefork"):
                now[0] += 4.0
        watch.say("over")
    assert written[0] == "[  0%, 0:40 left] http hello: prefork"
    assert len(written) == 1 + 3 + 1
    assert written[-1] == "over"
    assert LINE_EVERY_S == 10


def test_a_step_that_fails_is_over_all_the_same() -> None:
    """Or the time left would never come to its end."""
    with Watch([Step("http", "hello", "x", 5.0)], Lines(write=lambda _line: None)) as watch:
        with pytest.raises(ValueError, match="no"), watch.step("http", "hello", "x"):
            raise ValueError("no")
        assert watch.estimate.left_s == 0
