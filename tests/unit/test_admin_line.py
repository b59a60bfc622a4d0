"""The admin process's line to its master: one question at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from prefork import control
from prefork.observe import line as lines
from prefork.observe.line import Line, SilentError
from tests.unit.test_figures import look, worker

REPORT = look(1000, worker(1, 5, 900))
QUESTION = control.encode(control.Status())


def told(story: Callable[[Line, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Run a story with a line, and the master's side of it."""

    async def run() -> None:
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=far)
        line = Line(near)
        try:
            await story(line, reader, writer)
        finally:
            line.close()
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())


def test_those_who_come_meanwhile_share_the_answer() -> None:
    """One question, however many ask; the next one is asked anew."""

    async def story(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asking = [asyncio.ensure_future(line.report()) for _ in range(5)]
        assert await reader.readline() == QUESTION
        writer.write(control.encode(REPORT))
        assert await asyncio.gather(*asking) == [REPORT] * 5
        again = asyncio.ensure_future(line.report())
        assert await reader.readline() == QUESTION
        writer.write(control.encode(REPORT))
        assert await again == REPORT

    told(story)


def test_a_master_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for so long; its answer, when it comes, is not taken for that of a later question."""
    monkeypatch.setattr(lines, "PATIENCE_S", 0.05)

    async def story(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(SilentError, match="has not answered"):
            await line.report()
        monkeypatch.setattr(lines, "PATIENCE_S", 20.0)
        late = asyncio.ensure_future(line.report())
        assert await reader.readline() == QUESTION
        writer.write(control.encode(REPORT))
        assert await late == REPORT

    told(story)


def test_a_master_that_is_gone() -> None:
    """The kernel says so at once."""

    async def story(line: Line, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with pytest.raises(SilentError, match="cannot be asked"):
            await line.report()

    told(story)


def test_a_master_that_says_no() -> None:
    """With its reason."""

    async def story(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asking = asyncio.ensure_future(line.report())
        await reader.readline()
        writer.write(control.encode(control.Failed("not now")))
        with pytest.raises(SilentError, match="not now"):
            await asking

    told(story)
