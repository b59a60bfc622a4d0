"""The Autobahn test suite for WebSockets, against the real command.

It is a program of its own, for Python 2.7: `wstest` of the package autobahntestsuite 0.8.2. The table of its cases:
https://github.com/crossbario/autobahn-testsuite. Left out here: 9.1.5 to 9.2.6 (messages of 8 and 16 MiB, which say nothing
more) and most of 12 and 13 (compression; a thousand messages a case, minutes in all); see CASES to run more.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ecosystem.apps.http_rig import serving

CASES = [
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"),
    *("9.1.1", "9.1.4", "9.2.1", "9.2.4", "9.3.1", "9.4.1", "9.5.1", "9.6.1", "9.7.1", "9.8.1"),
    *("12.1.1", "12.1.2", "12.5.1", "13.1.1", "13.3.1", "13.7.1"),
]

GOOD = {"OK", "INFORMATIONAL", "NON-STRICT"}
LAX = ("3.", "4.", "5.", "6.4.")
"""Where some are not strict: a message that comes in one read with a mistake behind it is not echoed any more, and text that
is not UTF-8 is told at the end of its message, not within it."""


@pytest.mark.slow
def test_autobahn(tmp_path: Path) -> None:
    """Every case passes, and closes as it should."""
    wstest = shutil.which("wstest")
    if wstest is None:
        pytest.skip("wstest is not installed: make autobahn")
    with serving("http_plain:asgi", "--message-bytes", str(2**24)) as fleet:
        told = {
            "outdir": "reports",
            "servers": [{"agent": "prefork", "url": fleet.url.replace("http:", "ws:")}],
            "cases": CASES,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (tmp_path / "told.json").write_text(json.dumps(told))
        command = [wstest, "-m", "fuzzingclient", "-s", "told.json"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    found = json.loads((tmp_path / "reports" / "index.json").read_text())["prefork"]
    assert len(found) > 250
    bad = {case: each for case, each in found.items() if {each["behavior"], each["behaviorClose"]} - GOOD}
    assert not bad
    lax = [case for case, each in found.items() if each["behavior"] == "NON-STRICT"]
    assert all(case.startswith(LAX) for case in lax), lax
