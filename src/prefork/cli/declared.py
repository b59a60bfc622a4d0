"""Every option of the command, from its declaration: what it is called on the command line, in the environment, in a file."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Any, Final

from prefork.http.limits import HttpLimits
from prefork.http.options import HttpOptions
from prefork.options import CommandOptions, FleetOptions

PREFIX: Final = "PREFORK_"


@dataclass(frozen=True, slots=True)
class Group:
    """A dataclass that declares options, and what it is called in the reference."""

    title: str
    kind: type[Any]
    python: str
    """What takes its options in a program; "" if they are the command's alone."""


GROUPS: Final = (
    Group("The command", CommandOptions, ""),
    Group("The fleet", FleetOptions, "Prefork(...)"),
    Group("The HTTP server", HttpOptions, "Server(app, ...)"),
    Group("Limits of the HTTP server", HttpLimits, "Server(app, ...)"),
)


@dataclass(frozen=True, slots=True)
class Declared:
    """One option, as people meet it."""

    group: Group
    field: Field[Any]
    hint: Any
    name: str
    """Its name in a file: "grace-period"."""

    @property
    def variable(self) -> str:
        """Its name in the environment: "PREFORK_GRACE_PERIOD"."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def flag(self) -> str:
        """Its name on the command line: "--grace-period"; for what stands there without a flag its metavar."""
        return str(self.field.metadata["flag"] or self.field.metadata["metavar"])


def declared() -> Iterator[Declared]:
    """All options of the command, in the order of their declaration."""
    for group in GROUPS:
        hints = typing.get_type_hints(group.kind)
        for option in fields(group.kind):
            name = option.metadata.get("name") or option.metadata["flag"][2:]
            if name:
                yield Declared(group, option, hints[option.name], name)
