"""What is said of the faults: a paragraph while they run, a table at the end, JSON for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.chaos.fault import Outcome


def paragraph(outcome: Outcome) -> str:
    """What came of one fault, for people."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.failed.items()))
    lines = [
        f"  {outcome.verdict}, in {outcome.seconds:.1f} s: {outcome.tried} tried, {outcome.answered} answered, "
        f"{outcome.failed.total()} failed" + (f" ({kinds})" if kinds else "")
    ]
    if outcome.left_out:
        lines = [f"  left out: {outcome.left_out}"]
    lines += [f"  {note}" for note in outcome.notes]
    lines += [f"  BROKEN: {what}" for what in outcome.broken]
    if outcome.broken and outcome.said:
        lines += ["  --- what the fleet said:", *(f"  | {line}" for line in outcome.said.splitlines()[-60:])]
    return "\n".join(lines)


def table(outcomes: Iterable[Outcome]) -> str:
    """All of them, as a Markdown table."""
    rows = [
        "| fault | what is done | expected (promise) | tried | answered | failed | slowest | outcome |",
        "|---|---|---|---:|---:|---|---:|---|",
    ]
    for outcome in outcomes:
        fault = outcome.fault
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.failed.items())) or "0"
        end = f"left out: {outcome.left_out}" if outcome.left_out else outcome.verdict
        figures = f"{outcome.tried} | {outcome.answered} | {kinds} | {outcome.slowest_s:.2f} s"
        rows.append(
            f"| `{fault.name}` | {fault.done} | {fault.expected} ({fault.promises}) | {figures} | {end} |"
        )
    return "\n".join(rows)


def write_json(path: Path, outcomes: Iterable[Outcome]) -> None:
    """All of them, and the machine. Raises OSError."""
    faults = [
        {
            "name": one.fault.name,
            "promises": one.fault.promises,
            "done": one.fault.done,
            "expected": one.fault.expected,
            "verdict": one.verdict,
            "tried": one.tried,
            "answered": one.answered,
            "failed": dict(one.failed),
            "slowest_s": one.slowest_s,
            "seconds": round(one.seconds, 3),
            "notes": one.notes,
            "broken": one.broken,
            "left_out": one.left_out,
        }
        for one in outcomes
    ]
    machine = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    path.write_text(json.dumps({"machine": machine, "faults": faults}, indent=2) + "\n", encoding="utf-8")
