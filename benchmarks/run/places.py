"""Where things lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
APPS: Final = ROOT / "benchmarks" / "apps"
BUILD: Final = ROOT / "build"
LOGS: Final = BUILD / "benchmark-logs"
"""What each subject has said, for a figure that surprises."""
