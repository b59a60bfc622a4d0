"""One scenario, measured: all subjects started, warmed, loaded in turns; figures, and what they mean for its goals.

Not here: what is compared with what (scenarios.py), how a figure looks (run/figures.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.http import running as run
from benchmarks.http.load import LoadError, Sample
from benchmarks.http.report import Figures, ratio_verdict
from benchmarks.http.running import DidNotStartError, Running
from benchmarks.http.scenarios import Goal, Scenario
from benchmarks.run.figures import Verdict
from benchmarks.run.steps import Step, in_turns
from benchmarks.run.watch import Watch

PART: Final = "http"
ALL: Final = "starting and warming up"
"""Who is named while all of them are."""
WARM_UP_S: Final = 1
"""Caches, and bytecode that adapts itself to what it runs."""
AT_ONCE: Final = 9
"""Quick: so many are warmed up at the same time."""
START_S: Final = 0.6
OVERHEAD_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `is_brief`: subjects are warmed up at the same time, not each by itself."""

    rounds: int
    seconds: int
    workers: int
    directory: Path
    is_brief: bool = False


def steps(name: str, scenario: Scenario, effort: Effort) -> list[Step]:
    """What `measure` will do."""
    count = len(scenario.subjects)
    warm_up_s = (WARM_UP_S + OVERHEAD_S) * (math.ceil(count / AT_ONCE) if effort.is_brief else count)
    found = [Step(PART, name, ALL, START_S * count + warm_up_s)]
    for subject in scenario.subjects:
        each = Step(PART, name, subject.name, effort.seconds + OVERHEAD_S)
        found += [each] * effort.rounds * len(scenario.connections)
    return found


def measure(
    name: str, scenario: Scenario, effort: Effort, watch: Watch
) -> tuple[list[Figures], list[Verdict]]:
    """Run one scenario: all its figures, and what they mean for its goals."""
    figures: list[Figures] = []
    with contextlib.ExitStack() as stack:
        with watch.step(PART, name, ALL):
            targets, failures = _start(stack, scenario, effort)
            _warm_up(scenario, effort, targets, failures)
        for connections in scenario.connections:
            setting = f"{connections} connections"
            watch.say(f"\n{scenario.title}, {setting}: CPU time of a request, rate, latency, memory")
            found = [
                Figures(name, scenario.title, setting, each.name, is_ours=each.is_ours)
                for each in scenario.subjects
            ]
            for each in found:
                each.failure = failures.get(each.who, "")
            by_name = {each.who: each for each in found}
            _load_in_turns(
                scenario,
                effort,
                targets,
                by_name,
                connections=connections,
                step=partial(watch.step, PART, name),
            )
            figures += found
            failures.update({each.who: each.failure for each in found if each.failure})
            for each in found:
                watch.say(each)
    verdicts = [_verdict(goal, at, figures) for goal in scenario.goals for at in _settings(goal, scenario)]
    return figures, verdicts


def _start(
    stack: contextlib.ExitStack, scenario: Scenario, effort: Effort
) -> tuple[dict[str, Running], dict[str, str]]:
    """Start all subjects at once: those that answer, and what the others have said."""
    targets: dict[str, Running] = {}
    try:
        halves = run.Halves.of_this_machine() if scenario.is_apart else None
    except DidNotStartError as error:
        return {}, {each.name: str(error) for each in scenario.subjects}
    try:
        tls = run.certificate(effort.directory) if scenario.is_tls else None
    except (OSError, subprocess.CalledProcessError) as error:
        return {}, {each.name: f"no certificate could be made: {error}" for each in scenario.subjects}
    failures: dict[str, str] = {}
    workers = min(effort.workers, halves.server_count) if halves else effort.workers
    for subject in scenario.subjects:
        try:
            targets[subject.name] = stack.enter_context(
                run.running(subject, scenario.app, workers, effort.directory, tls, halves=halves)
            )
        except DidNotStartError as error:
            failures[subject.name] = f"did not start: {error}"
    for name, target in list(targets.items()):
        try:
            target.wait_for_answer()
        except DidNotStartError as error:
            failures[name] = f"did not start: {error}"
            del targets[name]
    run.settle()
    return targets, failures


def _load_in_turns(
    scenario: Scenario,
    effort: Effort,
    targets: dict[str, Running],
    figures: dict[str, Figures],
    *,
    connections: int,
    step: Callable[[str], AbstractContextManager[None]],
) -> None:
    """All rounds. A subject that fails is left out from there on, in what follows too, and its figures say why."""
    for who in in_turns(list(targets), effort.rounds):
        if who not in targets:
            continue
        with step(who):
            try:
                sample = scenario.load(targets[who], connections, effort.seconds, effort.directory)
                figures[who].samples.append(_with_memory(sample, targets[who]))
            except LoadError as error:
                figures[who].failure = str(error)
                del targets[who]


def _with_memory(sample: Sample, target: Running) -> Sample:
    with contextlib.suppress(OSError):  # the memory of another user's process cannot be read
        return dataclasses.replace(sample, pss_mb=target.pss_bytes() / 1e6)
    return sample


def _warm_up(
    scenario: Scenario, effort: Effort, targets: dict[str, Running], failures: dict[str, str]
) -> None:
    def warm(name: str) -> None:
        try:
            scenario.load(targets[name], scenario.connections[0], WARM_UP_S, effort.directory)
        except LoadError as error:
            failures[name] = str(error)

    with ThreadPoolExecutor(AT_ONCE if effort.is_brief else 1) as pool:
        list(pool.map(warm, list(targets)))
    for name in failures:
        targets.pop(name, None)


def _settings(goal: Goal, scenario: Scenario) -> list[str]:
    counts = [count for count in scenario.connections if not goal.connections or count in goal.connections]
    return [f"{count} connections" for count in counts]


def _verdict(goal: Goal, setting: str, figures: Sequence[Figures]) -> Verdict:
    here = {each.who: each for each in figures if each.setting == setting}
    ours = here[goal.ours.name]
    peers = [here[goal.peer.name]] if goal.peer else [each for each in here.values() if each is not ours]
    measured = [each for each in peers if each.samples]
    what = f"{goal.what}, {setting}"

    def verdict(ratio: float | None, note: str) -> Verdict:
        return ratio_verdict(what, ratio, goal.limit, is_strict=goal.is_strict, note=note)

    if not ours.samples:
        return verdict(None, f"{ours.who} {ours.failure}")
    if not measured:
        return verdict(None, "; ".join(f"{each.who} {each.failure}" for each in peers))
    best = min(measured, key=lambda each: each.median_of(goal.measure))
    if math.isnan(ours.median_of(goal.measure)) or math.isnan(best.median_of(goal.measure)):
        return verdict(None, "the load generator gave no figure")
    ratio = ours.median_of(goal.measure) / best.median_of(goal.measure)
    pairs = zip(ours.samples, best.samples, strict=False)
    ratios = [getattr(mine, goal.measure) / getattr(theirs, goal.measure) for mine, theirs in pairs]
    unit = "ms" if goal.measure.endswith("_ms") else "µs"
    note = f"{ours.median_of(goal.measure):.1f} / {best.median_of(goal.measure):.1f} {unit}, "
    note += f"rounds {min(ratios):.2f} to {max(ratios):.2f}"
    note += "" if goal.peer else f" ({best.who})"
    missing = [each.who for each in peers if not each.samples]
    note += f"; not measured: {', '.join(missing)}" if missing else ""
    return verdict(ratio, note)
