"""From the one declaration of each option to the command line's flags."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

import click

_Command = Callable[..., Any]


if TYPE_CHECKING:
    _IntType = click.ParamType[int]
else:
    _IntType = click.ParamType  # generic from click 8.4 on only


class _Octal(_IntType):
    """Permissions as people write them: 660."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value!r} is not a number in octal, such as 660", param, ctx)


def flags_of(kind: type[Any]) -> Callable[[_Command], _Command]:
    """A decorator that gives a click command one flag for each option that the dataclass `kind` declares."""

    def decorate(command: _Command) -> _Command:
        hints = typing.get_type_hints(kind)
        for option in reversed(fields(kind)):
            if option.metadata.get("flag"):
                command = _flag(option, hints[option.name])(command)
        return command

    return decorate


def _flag(option: Field[Any], hint: Any) -> Callable[[_Command], _Command]:
    about = option.metadata
    settings: dict[str, Any] = {
        "help": about["help"],
        "default": option.default,
        "show_default": option.default is not None,
    }
    if hint is bool:
        settings |= {"is_flag": True, "show_default": False}
    elif typing.get_origin(hint) is tuple:
        settings |= {"multiple": True, "type": str, "metavar": about.get("metavar", "ADDRESS")}
    else:
        settings["type"] = _type(hint, about)
        if "metavar" in about:
            settings["metavar"] = about["metavar"]
    return click.option(about["flag"], option.name, **settings)


def _type(hint: Any, about: Any) -> click.ParamType[Any] | type:
    if "choices" in about:
        return click.Choice(about["choices"])
    if about.get("octal"):
        return _Octal()
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in (str, float, int):
        if kind in kinds:
            return kind
    raise TypeError(f"no flag can be made of {hint}")
