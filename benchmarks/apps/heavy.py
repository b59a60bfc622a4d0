"""The trivial application behind one second of CPU time at import, which leaves 300,000 objects behind (some 150 MB)."""

from __future__ import annotations

import sys
import time

from trivial import app

__all__ = ["DATA", "app"]

IMPORT_CPU_S = 1.0
OBJECTS = 300_000

sys.stderr.write("importing\n")
sys.stderr.flush()
_begun_s = time.process_time()
DATA = {
    number: {"id": number, "name": f"object {number}", "tags": [number, str(number)]}
    for number in range(OBJECTS)
}
while time.process_time() - _begun_s < IMPORT_CPU_S:
    pass
