"""`python -m benchmarks.http`: this part alone, with the options of `python -m benchmarks`."""

from __future__ import annotations

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(part="http"))
