"""What a new master takes over from the old one when it is ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prefork.errors import ConfigError
from prefork.master import commands as c
from prefork.master.succession import Succession


class Stage:
    """A succession whose every step is written down; the steps named fail."""

    def __init__(self, *failing: str) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self._failing = failing
        parts: dict[str, Any] = {
            "upgrade": SimpleNamespace(is_successor=True, say_ready=lambda: self.step("ready")),
            "notifier": SimpleNamespace(ready=lambda status: None),
            "scribe": SimpleNamespace(warn=self.warnings.append),
            "pidfile": SimpleNamespace(write=lambda: self.step("pidfile")),
            "controls": SimpleNamespace(open=lambda *, takes_over: self.step("control socket")),
        }
        household: Any = None
        self.succession = Succession(household, **parts)

    def step(self, name: str) -> None:
        if name in self._failing:
            raise ConfigError(f"no {name}")
        self.steps.append(name)

    def announce(self) -> None:
        self.succession.deeds()[c.Announce](c.Announce("ready", "serving"))


def test_names_are_taken_before_the_old_master_is_told() -> None:
    """At every moment somebody is found by them."""
    stage = Stage()
    stage.announce()
    assert stage.steps == ["pidfile", "control socket", "ready"]


def test_a_pidfile_that_cannot_be_written_leaves_the_control_socket_answered() -> None:
    """A full disk is told, and spoils nothing else: the old master's socket goes with the old master."""
    stage = Stage("pidfile")
    stage.announce()
    assert stage.steps == ["control socket", "ready"]
    assert stage.warnings == ["no pidfile"]
