"""Promise 5: idle means idle. Nobody who serves, or waits to, is woken by anything but a client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.apps import ask, reload, serving, wait_until_ready
from tests.process.harness import Fleet, wait_until

QUIET_S = 4.0
"""Longer than any timer that may be left by what was done before. Whoever wakes up more often is found."""
SETTLES_WITHIN_S = 40.0
"""Ten times that."""

PROGRAM = """
    import asyncio, socket, sys
    from prefork import Prefork, Server

    def blocking(listener):
        while True:
            listener.accept()[0].close()

    async def coroutine(listener):
        async def close(reader, writer):
            writer.close()
        async with await asyncio.start_server(close, sock=listener) as server:
            await server.serve_forever()

    async def own_loop(listener):
        listener.setblocking(False)
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            connection.close()

    Prefork(serve_func=globals()[sys.argv[1]], workers=2, start_method=sys.argv[2]).listen_and_serve("127.0.0.1:0")
    """


def _switches(fleet: Fleet, seconds: float) -> dict[int, int] | None:
    """Context switches of every process of the family in so many seconds; None if one came or went meanwhile."""
    before = fleet.context_switches()
    # Time is the matter of this test: there is no event to wait for where nothing may happen.
    threading.Event().wait(seconds)
    after = fleet.context_switches()
    if before.keys() != after.keys():
        return None
    return {pid: sum(after[pid]) - sum(before[pid]) for pid in before}


def _assert_idle(fleet: Fleet, processes: int) -> None:
    """So many processes, and after what their start left to be done none of them wakes up.

    The first long silence is what counts: a short one, and then a long one, would be disturbed by a last timer that a busy
    machine has made late.
    """
    seen: list[dict[int, int] | None] = []

    def is_at_rest() -> bool:
        # So many may be there for a moment, one of a reload leaving and the parked one still to come.
        found = _switches(fleet, QUIET_S)
        seen.append(found)
        return found is not None and len(found) == processes and not any(found.values())

    wait_until(
        is_at_rest, "nobody wakes up", SETTLES_WITHIN_S, show=lambda: f"{fleet.pid}: {seen}\n{fleet.output}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
@pytest.mark.parametrize("app", ["web", "wsgi"])
def test_the_command(fleet_of: Callable[..., Fleet], app: str, sharing: tuple[str, ...]) -> None:
    """Master, zygote, parked process and two workers, that have served already: not one context switch."""
    fleet = fleet_of(*serving(app, *sharing))
    wait_until_ready(fleet)
    for _ in range(4):
        assert ask(fleet)
    _assert_idle(fleet, processes=5)
    assert fleet.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("method", "processes"), [("fork", 5), ("exec", 3)])
@pytest.mark.parametrize("function", ["blocking", "coroutine", "own_loop"])
def test_a_program_of_ones_own(
    python_script: Callable[..., Path],
    fleet_of_script: Callable[..., Fleet],
    function: str,
    method: str,
    processes: int,
) -> None:
    """A serve_func, plain or `async def`: waiting for its master costs a worker nothing either."""
    fleet = fleet_of_script(python_script(PROGRAM), function, method)
    wait_until_ready(fleet)
    with fleet.connect() as connection:
        assert connection.recv(1) == b""
    _assert_idle(fleet, processes)
    assert fleet.stop() == 0


@pytest.mark.slow
def test_after_a_crash_and_a_reload(fleet_of: Callable[..., Fleet]) -> None:
    """What was going on has ended, and no timer of it is left behind."""
    fleet = fleet_of(*serving("web", "--reuseport"))
    workers = wait_until_ready(fleet)
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for_workers(1, since=mark)
    reload(fleet)
    _assert_idle(fleet, processes=5)
