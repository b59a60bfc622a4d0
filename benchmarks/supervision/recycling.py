"""What recycling costs those who ask: workers that leave after so many requests, under load."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.supervision.scenario import Reading
from benchmarks.supervision.subjects import (
    GUNICORN_RECYCLING,
    HYPERCORN_RECYCLING,
    RECYCLED_AFTER,
    RECYCLING,
    UVICORN_RECYCLING,
    Subject,
    running,
)
from benchmarks.supervision.under_load import CLIENTS, kinds
from tests.process.load import Load

SUBJECTS = (RECYCLING, GUNICORN_RECYCLING, UVICORN_RECYCLING, HYPERCORN_RECYCLING)
QUICK_SUBJECTS = (RECYCLING, GUNICORN_RECYCLING, UVICORN_RECYCLING)


def recycles(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:
    """Clients of which half come fresh and half keep their connection, while workers come and go."""
    seconds = 2 if is_quick else 8
    with running(subject) as one:
        one.wait_until_up()
        mark = one.fleet.mark()
        with Load(one.url, clients=CLIENTS) as load:
            time.sleep(seconds)
            report = load.finish()
        renewed = len(one.fleet.find_all(r"up pid \d+", mark))
    setting = f"workers recycled after {RECYCLED_AFTER} requests, {seconds} s, {CLIENTS} clients"
    yield Reading(setting, "failed requests", "", (report.failed_count,), 0, is_each=True, note=kinds(report))
    yield Reading(setting, "slowest answer", "s", (report.slowest_s,))
    yield Reading(setting, "workers recycled", "", (renewed,))
