"""What the value of an option may be: how it is read from text (flag, environment) and taken from a file (TOML)."""

from __future__ import annotations

import types
import typing
from dataclasses import Field
from typing import TYPE_CHECKING, Any, Final

import click

from prefork.errors import ConfigError
from prefork.options import bytes_of, span_of

if TYPE_CHECKING:
    _IntType = click.ParamType[int]
    _ShareType = click.ParamType[float]
    _WorkersType = click.ParamType[int | str]
else:
    _IntType = _ShareType = _WorkersType = click.ParamType  # generic from click 8.4 on only


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


class _Size(_IntType):
    """Bytes as people write them: 512M."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return bytes_of(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class _Workers(_WorkersType):
    """A number of workers, or how few and how many: 4, or 2:8."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if ":" in text:
            try:
                span_of(text)
            except ConfigError as error:
                self.fail(str(error), param, ctx)
            return text
        return click.INT.convert(value, param, ctx)


class _Share(_ShareType):
    """A share as people write it: 10%, or 0.1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{text!r} is no share: write 10%, or 0.1", param, ctx)
        return share


SHARE: Final = _Share()


def is_many(hint: Any) -> bool:
    """Whether the option takes several values."""
    return typing.get_origin(hint) is tuple


def kind_of(option: Field[Any], hint: Any) -> Any:
    """The click type that reads one value of `option`. Raises TypeError for a declaration that has none."""
    about = option.metadata
    if "choices" in about:
        return click.Choice(about["choices"])
    if about.get("octal"):
        return _Octal()
    if about.get("size"):
        return _Size()
    if about.get("span"):
        return _Workers()
    if hint is bool:
        return click.BOOL
    if is_many(hint):
        return click.STRING
    for kind, reads in ((str, click.STRING), (float, click.FLOAT), (int, click.INT)):
        if kind in _alternatives(hint):
            return reads
    raise TypeError(f"no flag can be made of {hint}")


def from_text(option: Field[Any], hint: Any, text: str) -> Any:
    """The value that `text` stands for, as the environment has it; several are set apart by blanks. Raises ValueError."""
    if is_many(hint):
        return tuple(text.split())
    try:
        return kind_of(option, hint).convert(text, None, None)
    except click.BadParameter as error:
        raise ValueError(error.message) from error


def from_toml(option: Field[Any], hint: Any, value: Any) -> Any:
    """The value that TOML's `value` stands for. Raises ValueError that says what it must be."""
    about, kinds = option.metadata, _alternatives(hint)
    if is_many(hint):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(x, str) for x in values):
            raise ValueError("must be a text, or a list of texts")
        return tuple(values)
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value
    if about.get("span"):
        if isinstance(value, str) and ":" in value:
            return from_text(option, hint, value)
        if type(value) is not int:
            raise ValueError("must be a whole number")
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if about.get("octal"):
        if not isinstance(value, str):  # 0o660 and 432 are one to TOML, and 660 would be neither
            raise ValueError('must be a text in octal, such as "660"')
        return from_text(option, hint, value)
    if isinstance(value, str) and (str in kinds or "choices" in about or about.get("size")):
        return from_text(option, hint, value)
    if isinstance(value, int) and is_number and int in kinds:
        return value
    if is_number and float in kinds:
        return float(value)
    raise ValueError(
        "must be a text" if str in kinds else f"must be a {'whole ' * (float not in kinds)}number"
    )


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
