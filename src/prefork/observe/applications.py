"""The application's own metrics (`prefork.shared.Metrics`), behind ours: one page for the scraper, whichever worker counted.

The store is where the master's environment says. It is only looked at once a worker has made it: an application that shares
nothing has no files because somebody looks. Blocks for microseconds. Runs in the admin process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from prefork.errors import PreforkError
from prefork.shared.place import VARIABLE, parse


def applications_metrics() -> Callable[[], str]:
    """What gives them as text; "" where there are none, and a comment that says why where they cannot be had."""

    def metrics() -> str:
        said = os.environ.get(VARIABLE)
        if not said:
            return ""
        try:
            place = parse(said)
            if place.scheme == "memory" or (
                place.scheme == "lmdb" and not Path(place.path, "data.mdb").exists()
            ):
                return ""
            from prefork.shared import Metrics  # noqa: PLC0415  (loads the store's library)

            return Metrics().prometheus()
        except PreforkError as error:
            return f"# the application's own metrics: {' '.join(str(error).split())}\n"

    return metrics
