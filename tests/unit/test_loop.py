"""The supervisor's loop: in what order it carries out what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import loop

NO_FLEET = cast(Any, SimpleNamespace(next_deadline_s=lambda: None))


class Hands:
    """A shell that writes down what it is told to do."""

    def __init__(self) -> None:
        self.told: list[c.Command] = []
        self.error = None

    @property
    def is_finished(self) -> bool:
        return any(isinstance(each, c.Finish) for each in self.told)

    def wait(self, _timeout_s: float | None) -> Iterator[e.Event]:
        raise AssertionError("nothing more was to be waited for")

    def execute(self, command: c.Command) -> Iterable[e.Event]:
        self.told.append(command)
        return ()


@pytest.mark.parametrize(
    "stacks",
    [
        c.NudgeChild(1, c.Nudge.DUMP_STACKS),
        c.NudgeZygote(1, c.Nudge.DUMP_STACKS),
        c.DumpStacks(1),
    ],
    ids=["worker", "zygote", "hung"],
)
def test_done_then_said_and_stacks_last(monkeypatch: pytest.MonkeyPatch, stacks: c.Command) -> None:
    """A line that says "its stacks follow" stands above them; nothing else waits for a line to be written."""
    said, done = c.Log("error", "its stacks follow"), c.NudgeChild(2, c.Nudge.KILL)
    hands = Hands()
    monkeypatch.setattr(loop, "decide", lambda *_: (NO_FLEET, (said, stacks, done, c.Finish(None))))
    loop.supervise(NO_FLEET, cast(Any, hands))
    assert hands.told == [done, c.Finish(None), said, stacks]
