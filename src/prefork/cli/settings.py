"""The value of every option, and where it came from: command line > environment > file > default.

What is misspelt is refused, and the nearest name is told. A variable of the environment that resembles no option is let be,
with a warning: others may use the prefix.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
from click.core import ParameterSource

from prefork.cli.declared import PREFIX, Declared, declared
from prefork.cli.files import ConfigFile
from prefork.cli.flags import off_name
from prefork.cli.kinds import from_text, from_toml
from prefork.errors import ConfigError
from prefork.identity import MARKER
from prefork.master.upgrade import VARIABLE

DEFAULT: Final = "default"
CONFIG: Final = "PREFORK_CONFIG"
"""Names the file: the one variable that is no option."""
_INTERNAL: Final = frozenset({MARKER, VARIABLE, CONFIG})
_LINKS: Final = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?")
"""What Kubernetes sets in every container beside a service that is called "prefork"."""
_NEAR: Final = 0.75
"""How alike two names must be for one to be a slip of the other: "worker" and "workers" are 0.92."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One option's value, and who gave it."""

    option: Declared
    value: Any
    origin: str
    """"command line", "environment", the name of the file, or "default"."""

    @property
    def is_default(self) -> bool:
        return self.origin == DEFAULT


class Settings:
    """All settings of one start. `warnings` are lines to log."""

    def __init__(self, found: Iterable[Setting], warnings: Iterable[str] = ()) -> None:
        self._of = {setting.option.field.name: setting for setting in found}
        self.warnings = list(warnings)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._of.values())

    def __getitem__(self, name: str) -> Setting:
        """By the name of the field that declares it."""
        return self._of[name]

    def of(self, kind: type[Any]) -> dict[str, Any]:
        """The values of one group, by name, to make it of."""
        return {
            name: setting.value for name, setting in self._of.items() if setting.option.group.kind is kind
        }

    def printed(self) -> str:
        """All settings as TOML, each with its origin: what --print-config shows, and what a file may hold."""
        rows = [(_line(setting), setting.origin) for setting in self]
        width = min(max(len(line) for line, _ in rows), 44)
        return "\n".join(f"{line:<{width}}  # {origin}" for line, origin in rows)


def resolve(context: click.Context, environ: Mapping[str, str], file: ConfigFile) -> Settings:
    """The settings of this start. Raises ConfigError for a name that is none, and for a value that cannot be.

    Args:
        context: the command line, as click has parsed it; of it only what was given counts.
        environ: the environment.
        file: the configuration file.
    """
    options = list(declared())
    said_by_file = _of_file(file, options)
    warnings = list(_strangers(environ, options))
    found = [
        _of_command_line(option, context)
        or _of_environment(option, environ)
        or said_by_file.get(option.name)
        or Setting(option, option.field.default, DEFAULT)
        for option in options
    ]
    return Settings(found, warnings)


def given(context: click.Context, name: str) -> Any:
    """What the command line gave for a parameter; None if nothing."""
    is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    return context.params.get(name) if is_given else None


def _of_command_line(option: Declared, context: click.Context) -> Setting | None:
    value = given(context, option.field.name)
    off = off_name(option.field)
    if off and given(context, off):
        if value is not None:
            raise ConfigError(f"{option.flag} and {option.field.metadata['off']} contradict each other")
        value = ""
    return None if value is None else Setting(option, value, "command line")


def _of_environment(option: Declared, environ: Mapping[str, str]) -> Setting | None:
    text = environ.get(option.variable, "").strip()
    if not text:  # the usual way of containers to say nothing
        return None
    try:
        return Setting(option, from_text(option.field, option.hint, text), f"environment {option.variable}")
    except ValueError as error:
        raise ConfigError(f"environment {option.variable}: {error}") from error


def _of_file(file: ConfigFile, options: list[Declared]) -> dict[str, Setting]:
    by_name = {option.name: option for option in options}
    found: dict[str, Setting] = {}
    for key, value in file.table.items():
        name = key.replace("_", "-")
        option = by_name.get(name)
        if option is None:
            raise ConfigError(f"{file.name}: there is no option {key!r}{_hint(name, options)}")
        if name in found:
            raise ConfigError(f"{file.name}: {name!r} is given twice, with dashes and with underscores")
        try:
            found[name] = Setting(option, from_toml(option.field, option.hint, value), file.name)
        except ValueError as error:
            raise ConfigError(f"{file.name}: {key}{_reason(value, error)}") from error
    return found


def _reason(value: Any, error: ValueError) -> str:
    text = str(error)
    return f" {text}, not {value!r}" if text.startswith("must") else f": {text}"


def _strangers(environ: Mapping[str, str], options: list[Declared]) -> Iterator[str]:
    known = {option.variable for option in options} | _INTERNAL
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if variable == name or variable in known or _LINKS.fullmatch(name):
            continue
        near = _nearest(name.lower().replace("_", "-"), options)
        if near is not None:
            raise ConfigError(
                f"environment {variable}: there is no such option: did you mean {near.variable}?"
            )
        yield f"environment {variable} names no option of prefork, and is ignored"


def _hint(name: str, options: list[Declared]) -> str:
    near = _nearest(name, options)
    return "" if near is None else f": did you mean {near.name!r}?"


def _nearest(name: str, options: list[Declared]) -> Declared | None:
    """The option that `name` is a slip of, or its name in Python."""
    names = {option.field.name.replace("_", "-"): option for option in options}
    names |= {option.name: option for option in options}
    near = difflib.get_close_matches(name, names, 1, _NEAR)
    return names[near[0]] if near else None


def _line(setting: Setting) -> str:
    if setting.value is None:
        return f"# {setting.option.name} ="
    return f"{setting.option.name} = {_toml(setting)}"


def _toml(setting: Setting) -> str:
    value = setting.value
    if setting.option.field.metadata.get("octal"):
        return f'"{value:03o}"'
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(
        value, ensure_ascii=False
    )  # texts, whole numbers, finite numbers, true and false are TOML's, too
