"""Fleets that serve the applications of this folder by the real command, and what is compared of their answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.process.harness import WAIT_S, Fleet

APPS = Path(__file__).parent
WORKERS = 2

ServedAs = tuple[str, ...]
"""MODULE:ATTR and the flags beside it."""

_NOT_COMPARED = {"connection", "date", "server", "transfer-encoding"}
"""Each server's own. waitress closes after each answer that has no length, and uvicorn sends it in chunks."""

_BODILESS = (204, 304)
"""Servers differ in whether they take an application's content-length away from these (RFC 9110 §8.6)."""


@contextlib.contextmanager
def serving(app: str, *flags: str, bind: str = "127.0.0.1:0", workers: int = WORKERS) -> Iterator[Fleet]:
    """`prefork APP`, its workers ready; ended by TERM at the end, which must be a clean one."""
    command = (app, "--bind", bind, "--workers", str(workers), "--app-dir", str(APPS), *flags)
    with Fleet.command(*command) as fleet:
        fleet.wait_for_workers(workers)
        yield fleet
        if fleet.is_running:
            assert fleet.stop() == 0, fleet.output
        assert "a defect of prefork" not in fleet.output
        assert not fleet.find_all(r"worker \d+ .*(crashed|killed)"), fleet.output


@contextlib.contextmanager
def client_of(fleet: Fleet, **options: Any) -> Iterator[httpx.Client]:
    """An httpx client for it, which keeps its connections and believes no proxy of the environment."""
    with httpx.Client(base_url=fleet.url, timeout=WAIT_S, trust_env=False, **options) as client:
        yield client


def heard(response: httpx.Response, *, but: str = "") -> tuple[int, list[tuple[str, str]], bytes]:
    """What is the same whichever server an application is served by: status, headers (`but` for one), body.

    A length that says what came is framing, which is the server's.
    """
    left_out = {*_NOT_COMPARED, but}
    length = response.headers.get("content-length", "")
    if response.status_code in _BODILESS or length == str(response.num_bytes_downloaded):
        left_out.add("content-length")
    headers = [pair for pair in response.headers.multi_items() if pair[0] not in left_out]
    return response.status_code, sorted(headers), response.content
