"""From the one declaration of each option to the command line's flags."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

import click

from prefork.cli.kinds import is_many, kind_of

_Command = Callable[..., Any]


def flags_of(kind: type[Any]) -> Callable[[_Command], _Command]:
    """A decorator that gives a click command one flag for each option that the dataclass `kind` declares."""

    def decorate(command: _Command) -> _Command:
        hints = typing.get_type_hints(kind)
        for option in reversed(fields(kind)):
            if option.metadata.get("off"):
                command = _off_flag(option)(command)
            if option.metadata.get("flag"):
                command = _flag(option, hints[option.name])(command)
        return command

    return decorate


def off_name(option: Field[Any]) -> str:
    """The click parameter of the flag that gives `option` an empty value ("" where there is none)."""
    return str(option.metadata.get("off", ""))[2:].replace("-", "_")


def _off_flag(option: Field[Any]) -> Callable[[_Command], _Command]:
    about = option.metadata
    return click.option(about["off"], off_name(option), is_flag=True, help=f'{about["flag"]} "".')


def _flag(option: Field[Any], hint: Any) -> Callable[[_Command], _Command]:
    about = option.metadata
    settings: dict[str, Any] = {
        "help": about["help"],
        "default": option.default,
        "show_default": option.default is not None,
    }
    flag = about["flag"]
    if hint is bool:
        # The second takes back what the environment or a file says.
        flag = f"{flag}/--no-{flag[2:]}"
        settings["show_default"] = False
    elif is_many(hint):
        settings |= {"multiple": True, "type": str, "metavar": about.get("metavar", "ADDRESS")}
    else:
        settings["type"] = kind_of(option, hint)
        if "metavar" in about:
            settings["metavar"] = about["metavar"]
    return click.option(flag, option.name, **settings)
