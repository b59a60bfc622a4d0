from __future__ import annotations

import types
import typing
from dataclasses import Field, dataclass, field, fields
from typing import Any

import click
import pytest
from click.testing import CliRunner

from prefork.cli.flags import flags_of
from prefork.options import CommandOptions, FleetOptions, about

GROUPS = (FleetOptions, CommandOptions)
FLAGGED = [
    pytest.param(group, option, id=option.name)
    for group in GROUPS
    for option in fields(group)
    if option.metadata["flag"]
]


def parse(group: type[Any], *arguments: str) -> dict[str, Any]:
    """The values that these arguments give; a usage error raises."""
    caught: dict[str, Any] = {}

    @click.command()
    @flags_of(group)
    def command(**values: Any) -> None:
        caught.update(values)

    command.main(list(arguments), standalone_mode=False)
    return caught


def text_of(group: type[Any], option: Field[Any]) -> tuple[str, Any]:
    """Something to write after the flag, and the value it stands for."""
    if "choices" in option.metadata:
        choice = option.metadata["choices"][-1]
        return choice, choice
    if option.metadata.get("octal"):
        return "660", 0o660
    if option.metadata.get("span"):
        return "2:8", "2:8"
    hint = typing.get_type_hints(group)[option.name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind, text, value in ((str, "text", "text"), (float, "2.5", 2.5), (int, "3", 3)):
        if kind in kinds:
            return text, value
    raise AssertionError(hint)


@pytest.mark.parametrize("group", GROUPS)
def test_without_flags_every_option_has_its_default(group: type[Any]) -> None:
    """The command line restates nothing."""
    values = parse(group)
    declared = [option for option in fields(group) if option.metadata["flag"]]
    names = [option.name for option in declared]
    assert [name for name in values if name in names] == names
    assert group(**{name: values[name] for name in names}) == group()


@pytest.mark.parametrize(("group", "option"), FLAGGED)
def test_every_flag_parses_to_the_type_of_its_option(group: type[Any], option: Field[Any]) -> None:
    """One declaration, one flag, one type; and the option takes the value."""
    flag = option.metadata["flag"]
    hint = typing.get_type_hints(group)[option.name]
    if hint is bool:
        arguments, value = [flag], True
    elif typing.get_origin(hint) is tuple:
        arguments, value = [flag, ":1", flag, ":2"], (":1", ":2")
    else:
        text, value = text_of(group, option)
        arguments = [flag, text]
    parsed = parse(group, *arguments)[option.name]
    assert parsed == value
    assert type(parsed) is type(value)
    group(**{option.name: parsed})


@pytest.mark.parametrize("group", GROUPS)
def test_every_flag_is_explained(group: type[Any]) -> None:
    """--help says each option's sentence."""
    command = flags_of(group)(click.command()(lambda **_: None).callback)  # type: ignore[arg-type]
    shown = CliRunner().invoke(click.command()(command), ["--help"], terminal_width=200).output
    words = " ".join(shown.split())
    for option in fields(group):
        if option.metadata["flag"]:
            assert option.metadata["flag"] in words
            assert " ".join(option.metadata["help"].split())[:40] in words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--boot-timeout", "soon"], "'soon' is not a valid float"),
        (["--start-method", "spawn"], "is not one of 'fork', 'exec'"),
        (["--unix-mode", "rw"], "'rw' is not a number in octal, such as 660"),
        (["--unix-mode", "999"], "'999' is not a number in octal, such as 660"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_what_does_not_parse_is_a_usage_error(arguments: list[str], said: str) -> None:
    """Click's own, with the value that was given."""
    with pytest.raises(click.UsageError) as caught:
        parse(FleetOptions, *arguments)
    assert said in caught.value.format_message()


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0660", 0o660), ("0o660", 0o660), ("7", 7)])
def test_permissions_are_octal_as_people_write_them(text: str, mode: int) -> None:
    """chmod(1) and Python alike."""
    assert parse(FleetOptions, "--unix-mode", text)["unix_mode"] == mode


def test_numbers_without_an_end() -> None:
    """`inf` is how a command line says math.inf."""
    values = parse(FleetOptions, "--recover-window", "inf", "--recover-threshold", "inf")
    values.pop("no_control")
    FleetOptions(**values).check()


def test_an_option_without_a_flag_is_no_flag() -> None:
    """The command knows the network from each address."""
    assert "network" not in parse(FleetOptions)
    with pytest.raises(click.UsageError):
        parse(FleetOptions, "--network", "tcp")


def test_a_type_that_no_flag_can_be_made_of_is_a_defect_and_told_at_once() -> None:
    """When the command is made, not when it is used."""

    @dataclass(kw_only=True)
    class Odd:
        thing: dict[str, str] | None = field(default=None, metadata=about("A thing.", "--thing"))

    Odd.__annotations__["thing"] = dict[str, str]
    with pytest.raises(TypeError, match="no flag can be made of"):
        flags_of(Odd)(lambda **_: None)
