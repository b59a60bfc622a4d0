"""How connections that stay are shared out among workers."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator

from benchmarks.supervision.scenario import Reading
from benchmarks.supervision.subjects import (
    GRANIAN,
    GUNICORN,
    HYPERCORN,
    REUSEPORT,
    SHARED,
    UVICORN,
    Subject,
    running,
)

WORKERS = 4
CLIENTS = 64
EVEN = CLIENTS // WORKERS
GOAL = EVEN + 2
SETTLE_S = 0.5
"""Peers have no word for "accepting now"."""
LIMIT_S = 10.0
SUBJECTS = (SHARED, REUSEPORT, GUNICORN, UVICORN, GRANIAN, HYPERCORN)
QUICK_SUBJECTS = (SHARED, GUNICORN, UVICORN, GRANIAN)


def balance(subject: Subject, *, is_quick: bool) -> Iterator[Reading]:  # noqa: ARG001  (as all scenarios)
    """Clients that come one by one, ask once, and keep their connection: how many the busiest worker has."""
    with running(subject, workers=WORKERS) as one:
        one.wait_until_up()
        time.sleep(SETTLE_S)
        try:
            found = _shares(one.port)
        except OSError as error:
            raise AssertionError(f"a client was not answered: {error}") from error
    shares = [*sorted(found.values(), reverse=True), *[0] * (WORKERS - len(found))]
    setting = f"{CLIENTS} clients that stay, {WORKERS} workers (even: {EVEN})"
    # A socket for each worker leaves the choice to the kernel.
    limit = None if subject is REUSEPORT else GOAL
    note = "/".join(map(str, shares))
    yield Reading(
        setting, "connections of the busiest worker", "", (shares[0],), limit, is_each=True, note=note
    )


def _shares(port: int) -> Counter[bytes]:
    found = Counter[bytes]()
    with contextlib.ExitStack() as leaving:
        for _ in range(CLIENTS):
            client = leaving.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S))
            client.sendall(b"GET / HTTP/1.1\r\nHost: benchmark\r\n\r\n")
            answer = b""
            while (pid := re.search(rb"pid (\d+)$", answer)) is None:
                data = client.recv(4096)
                if not data:
                    raise ConnectionError(f"closed after {answer[:80]!r}")
                answer += data
            found[pid[1]] += 1
    return found
