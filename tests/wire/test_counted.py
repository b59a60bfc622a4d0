"""What a worker counts of its answers, whatever way they take."""

from __future__ import annotations

from typing import Any

import pytest

from prefork.http.limits import HttpLimits
from tests.wire.rig import LOOPS, Wire, run

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
HEADERS = [(b"content-length", b"2")]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """With the status that the path says, in one piece or, where it is above 299, in two."""
    status = int(scope["path"][1:])
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    if status > 299:
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"k"})
    else:
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("loop", LOOPS)
def test_each_answer_counts_once_by_its_status(loop: str) -> None:
    """Parsed or known, whole or in pieces, pipelined or not, the application's or ours; and each is timed."""

    async def story() -> tuple[list[int], int]:
        async with Wire(answer, limits=HttpLimits(target_bytes=100)) as wire:
            for piece in [GET % 200] * 4 + [GET % 201 + GET % 404, GET % 302, GET % 799, GET % 999]:
                wire.feed(piece)
                await wire.settle()
            wire.feed(b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            await wire.settle()
            tally = wire.engine.tally
            return tally.statuses, sum(tally._latencies)

    statuses, timed = run(loop, story)
    assert statuses == [0, 1, 5, 1, 2, 0, 0, 1]
    assert timed == 9  # a refusal took no time


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_never_answered_does_not_count(loop: str) -> None:
    """The client left: the next one's time begins with its own request."""

    async def never(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def story() -> tuple[list[int], int]:
        async with Wire(never) as wire:
            wire.feed(GET % 200)
            wire.client.close()
            await wire.until(lambda: not wire.connections)
            return wire.engine.tally.statuses, sum(wire.engine.tally._latencies)

    assert run(loop, story) == ([0] * 8, 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_status_of_no_class_counts_and_harms_nobody(loop: str) -> None:
    """As some sites send 999: in one piece or in two, known or parsed, and the connection stays."""
    failed: list[BaseException] = []

    async def strange(scope: Any, _receive: Any, send: Any) -> None:
        try:
            status = int(scope["path"][1:])
            await send({"type": "http.response.start", "status": status, "headers": HEADERS})
            if status % 2:
                await send({"type": "http.response.body", "body": b"o", "more_body": True})
            await send({"type": "http.response.body", "body": b"k" if status % 2 else b"ok"})
        except Exception as error:
            failed.append(error)

    async def story() -> list[int]:
        async with Wire(strange) as wire:
            for status in (600, 799, 998, 999, 998, 998, 200):
                wire.feed(GET % status)
                await wire.settle()
            return wire.engine.tally.statuses

    statuses = run(loop, story)
    assert not failed
    assert statuses == [0, 4, 1, 0, 0, 0, 1, 1]
