"""Threads of one worker, for applications that wait.

Rules:

* A thread is made when there is more to do than there are threads, so none before the fork, and none that nobody needs.
* No job ends its thread, whatever it raises.
* The threads are daemons: how long a drain waits for them is for the master to say, and not for the interpreter's end.

Nothing bounds the jobs that wait: each belongs to a connection, and their number is bounded (`limits`).

Rejected: `concurrent.futures.ThreadPoolExecutor`, which makes a future with a lock and a condition for each job, and whose
threads the interpreter waits for at its end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from prefork.http.exchange import logger

Job = Callable[[], object]

_PATIENCE_S: Final = 1.0
"""How long `close` waits for threads that have nothing to do any more, all together."""


class ThreadPool:
    """Up to `count` threads. Its methods are called on the loop's thread."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._in_flight = 0

    def submit(self, job: Job) -> None:
        """Have `job` run in a thread; `done` has to follow. Raises RuntimeError if not even one thread can be made."""
        if self._in_flight >= len(self._threads) < self._count:
            self._add_thread()
        self._in_flight += 1
        self._jobs.put(job)

    def done(self) -> None:
        """A job has come to its end."""
        self._in_flight -= 1

    def close(self) -> None:
        """Let the threads go once their work is done. Waits a second at most for those that are idle."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline_s = time.monotonic() + (0 if self._in_flight else _PATIENCE_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self._threads.clear()

    def _add_thread(self) -> None:
        name = f"prefork-wsgi-{len(self._threads) + 1}"
        thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise
            logger.warning(
                "no further thread could be made, and %d of %d go on: %s",
                len(self._threads),
                self._count,
                error,
            )
        else:
            self._threads.append(thread)


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        try:
            job()
        except BaseException:
            logger.exception("a thread's job has raised: a defect of prefork")
        del job  # or a request would live until the next
