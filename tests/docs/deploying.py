"""What the tests of deploy/ share: prefork's own options, and the lines of the Dockerfile."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
_ROW = re.compile(r"^\| `(?P<option>--[a-z-]+)`.*?`(?P<variable>PREFORK_[A-Z_]+)` \| (?P<default>.*?) \|")


@cache
def _reference() -> str:
    command = [sys.executable, "-m", "prefork.cli.reference"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout


def options_in_environment() -> frozenset[str]:
    """Every variable that is an option."""
    return frozenset(re.findall(r"`(PREFORK_[A-Z_]+)`", _reference()))


def options() -> frozenset[str]:
    """Every option of the command."""
    return frozenset(re.findall(r"`(--[a-z][a-z-]+)`", _reference())) | {
        "--config",
        "--print-config",
        "--check",
    }


def default_of(option: str) -> float:
    """The default of an option that is a number, as it is declared. AssertionError where it is none."""
    for line in _reference().splitlines():
        row = _ROW.match(line)
        if row and row["option"] == option:
            return float(row["default"].strip("`"))
    raise AssertionError(f"no option {option} with a default that is a number")


def dockerfile() -> dict[str, list[str]]:
    """The Dockerfile's instructions: what follows each of them, in order, joined lines as one."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            found.setdefault(instruction, []).append(" ".join(rest.split()))
    return found
