"""The table of the master's signals in docs/signals.md: what each becomes, what the plan commands, and what the log says.

Asked of the master's own inbox and of its plan, with a fleet of two workers that serves.
"""

from __future__ import annotations

import signal
import threading
from typing import Any
from unittest import mock

from prefork.master import commands as c
from prefork.master import events as e
from prefork.master import signals
from tests.docs.drawing.stories import Step, Story
from tests.unit.fleets import World

_HOOKS = (c.CallSpawnHook, c.CallReadyHook, c.CallRecoverHook)
WORDS: dict[type, str] = {
    c.Spawn: "a worker is forked",
    c.StartZygote: "a zygote is started",
    c.ReopenLogs: "logs are opened again, in workers too",
    c.StartUpgrade: "a new master is started",
    c.CallLast: "a last call",
    c.RetireZygote: "the zygote may leave",
}


def table() -> str:
    """The table, as Markdown."""
    rows = [_row(name) for name in signals._HEARD]
    return "\n".join(["| signal | becomes | at once | the log says |", "|---|---|---|---|", *rows])


def _row(name: str) -> str:
    event = _event_of(name)
    short = name.removeprefix("SIG")
    if event is None:
        return f"| `{short}` | | whoever has ended is reaped | |"
    first = _first_step(name, event)
    said = [command.text for command in first.commands if isinstance(command, c.Log)]
    logged = f"`{said[0]}`" if said else ""
    return f"| `{short}` | `{_shown(event)}` | {_orders(first)} | {logged} |"


def _first_step(name: str, event: e.Event) -> Step:
    def tell(world: World) -> None:
        world.feed(event)

    return Story(name, tell).steps()[0]


def _event_of(name: str) -> e.Event | None:
    """What the inbox makes of it. Away from any terminal, and in a thread, where it takes no signal over."""
    found: list[e.Event | None] = []

    def ask() -> None:
        inbox = signals.Inbox()
        found.extend(inbox._events(signal.Signals[name]))
        inbox.close()

    with mock.patch.object(signals, "_foreground_group", return_value=None):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    (event,) = found
    return event


def _shown(event: Any) -> str:
    if isinstance(event, e.StopAsked):
        return f"StopAsked({event.how.name.lower()})"
    if isinstance(event, e.ScaleAsked):
        return f"ScaleAsked({event.delta:+d})"
    return f"{type(event).__name__}"


def _orders(step: Step) -> str:
    texts = []
    for command in step.commands:
        if isinstance(command, c.NudgeChild):
            nudge = {"drain": "`TERM`", "quit": "`QUIT`"}[command.nudge.value]
            count = sum(isinstance(x, c.NudgeChild) for x in step.commands)
            texts.append(
                f"{nudge} to {'each worker' if count == len(step.before.children) else 'one worker'}"
            )
        elif type(command) in WORDS:
            texts.append(WORDS[type(command)])
        elif not isinstance(command, (c.Log, c.Announce, *_HOOKS)):
            texts.append(type(command).__name__)
    return ", ".join(dict.fromkeys(texts))
