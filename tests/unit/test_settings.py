"""Where an option's value comes from: command line, environment, file, default; and what is said of a slip."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from prefork.cli.declared import GROUPS, Declared, declared
from prefork.cli.files import ConfigFile, find, read
from prefork.cli.kinds import from_toml
from prefork.cli.reference import reference
from prefork.cli.serve import serve
from prefork.cli.settings import DEFAULT, Settings, resolve
from prefork.errors import ConfigError

OPTIONS = list(declared())
EACH = pytest.mark.parametrize("option", [pytest.param(option, id=option.name) for option in OPTIONS])
PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def settings(
    *arguments: str, environ: Mapping[str, str] | None = None, file: Mapping[str, Any] | None = None
) -> Settings:
    """What a start with these would be given."""
    context = serve.make_context("prefork", list(arguments))
    return resolve(context, environ or {}, ConfigFile("prefork.toml", dict(file)) if file else ConfigFile())


def refusal(**given: Any) -> str:
    """The one line that it is refused with."""
    with pytest.raises(ConfigError) as caught:
        settings(**given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sample(option: Declared) -> tuple[list[str], str, Any]:
    """A value that is not the default: as arguments, as text in the environment, as TOML has it."""
    about, hint = option.field.metadata, option.hint
    if hint is bool:
        return [f"--no-{option.flag[2:]}"], "no", False
    if "choices" in about:
        other = next(x for x in about["choices"] if x != option.field.default)
        return [option.flag, other], other, other
    if about.get("octal"):
        return [option.flag, "027"], "027", "027"
    if about.get("size"):
        return [option.flag, "3M"], "3M", "3M"
    if about.get("span"):
        return [option.flag, "2:8"], "2:8", "2:8"
    if option.name == "bind":
        return ["--bind", ":1", "--bind", ":2"], ":1 :2", [":1", ":2"]
    if not about["flag"]:
        return ["main:app"], "main:app", "main:app"
    for kind, text, value in ((str, "text", "text"), (float, "2.5", 2.5), (int, "3", 3)):
        if kind in (hint, *getattr(hint, "__args__", ())):
            return [option.flag, text], text, value
    raise AssertionError(hint)


@EACH
def test_every_option_can_be_given_in_each_of_the_three_places(option: Declared) -> None:
    """One declaration, three ways, one value."""
    arguments, text, value = sample(option)
    name = option.field.name
    over = [
        settings(*arguments)[name],
        settings(environ={option.variable: text})[name],
        settings(file={option.name: value})[name],
        settings(file={option.name.replace("-", "_"): value})[name],
    ]
    assert len({x.value for x in over}) == 1
    assert [x.origin for x in over] == [
        "command line",
        f"environment {option.variable}",
        "prefork.toml",
        "prefork.toml",
    ]
    assert settings()[name].is_default
    assert settings()[name].value == option.field.default


@EACH
def test_the_command_line_comes_before_the_environment_and_that_before_the_file(option: Declared) -> None:
    """Also where the first gives what is the default anyway."""
    arguments, text, value = sample(option)
    everywhere = {"environ": {option.variable: text}, "file": {option.name: value}}
    assert settings(*arguments, **everywhere)[option.field.name].origin == "command line"
    assert settings(**everywhere)[option.field.name].origin == f"environment {option.variable}"


def test_a_switch_of_the_file_can_be_taken_back() -> None:
    """Who is nearer to the start has the last word."""
    assert settings("--no-reuseport", file={"reuseport": True})["reuseport"].value is False
    assert settings(environ={"PREFORK_REUSEPORT": "0"}, file={"reuseport": True})["reuseport"].value is False


def test_the_control_socket_can_be_switched_off_in_two_ways() -> None:
    """By name, and by an empty path; not both together with a path."""
    assert settings("--no-control")["control"].value == ""
    assert settings("--control", "")["control"].value == ""
    with pytest.raises(ConfigError, match="contradict each other"):
        settings("--no-control", "--control", "/run/x")


def test_an_empty_variable_says_nothing() -> None:
    """The usual way of containers to leave something out."""
    assert settings(environ={"PREFORK_WORKERS": " "})["workers"].is_default


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"file": {"worker": 4}}, "prefork.toml: there is no option 'worker': did you mean 'workers'?"),
        ({"file": {"shutdown_grace_period_s": 4}}, "did you mean 'grace-period'?"),
        ({"file": {"colour": 4}}, "prefork.toml: there is no option 'colour'"),
        ({"file": {"http": {"threads": 4}}}, "there is no option 'http'"),
        ({"file": {"keep-alive": 1, "keep_alive": 2}}, "given twice"),
        ({"file": {"workers": "4"}}, "workers must be a whole number, not '4'"),
        ({"file": {"workers": True}}, "workers must be a whole number, not True"),
        ({"file": {"workers": 1.5}}, "workers must be a whole number, not 1.5"),
        ({"file": {"grace-period": "4"}}, "grace-period must be a number, not '4'"),
        ({"file": {"reuseport": 1}}, "reuseport must be true or false, not 1"),
        ({"file": {"bind": 8000}}, "bind must be a text, or a list of texts, not 8000"),
        ({"file": {"bind": [8000]}}, "bind must be a text, or a list of texts"),
        ({"file": {"unix-mode": 660}}, 'unix-mode must be a text in octal, such as "660", not 660'),
        ({"file": {"unix-mode": "999"}}, "is not a number in octal"),
        ({"file": {"max-memory": "much"}}, "'much' is no size"),
        ({"file": {"log-level": "loud"}}, "log-level: 'loud' is not one of"),
        ({"environ": {"PREFORK_WORKER": "4"}}, "did you mean PREFORK_WORKERS?"),
        ({"environ": {"PREFORK_KEEPALIVE": "4"}}, "did you mean PREFORK_KEEP_ALIVE?"),
        (
            {"environ": {"PREFORK_WORKERS": "many"}},
            "environment PREFORK_WORKERS: 'many' is not a valid integer",
        ),
        (
            {"environ": {"PREFORK_REUSEPORT": "perhaps"}},
            "PREFORK_REUSEPORT: 'perhaps' is not a valid boolean",
        ),
    ],
)
def test_a_slip_is_told_with_its_place_and_the_nearest_name(given: dict[str, Any], said: str) -> None:
    """One line, that says what to write."""
    assert said in refusal(**given)


def test_variables_of_others_are_let_be() -> None:
    """Ours among each other, Kubernetes' links to a service called prefork, and, with a warning, what resembles nothing."""
    ours = {"PREFORK_CHILD": "1", "PREFORK_UPGRADE": "{}", "PREFORK_CONFIG": "x"}
    links = {
        "PREFORK_SERVICE_HOST": "10.0.0.1",
        "PREFORK_SERVICE_PORT": "80",
        "PREFORK_SERVICE_PORT_HTTP": "80",
        "PREFORK_PORT": "tcp://10.0.0.1:80",
        "PREFORK_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert settings(environ={**ours, **links}).warnings == []
    (warning,) = settings(environ={"PREFORK_HAT": "red"}).warnings
    assert "PREFORK_HAT names no option" in warning


def test_no_two_options_have_the_same_name() -> None:
    """Neither in a file, nor in the environment, nor in a program; and every one is explained."""
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)
    assert len({option.field.name for option in OPTIONS}) == len(OPTIONS)
    assert all(option.field.metadata["help"].endswith(".") for option in OPTIONS)


def test_all_that_is_declared_is_an_option_of_the_command() -> None:
    """But for what only a program can say."""
    names = {field.name for group in GROUPS for field in dataclasses.fields(group.kind)}
    assert names - {option.field.name for option in OPTIONS} == {"network"}


def test_what_is_printed_can_be_read_again() -> None:
    """--print-config is a file that says the same; what is not set is a comment."""
    environ = {option.variable: sample(option)[1] for option in OPTIONS}
    asked = settings(environ=environ)
    table = tomllib.loads(asked.printed())
    again = settings(file=table)
    assert {x.option.name: x.value for x in again} == {x.option.name: x.value for x in asked}
    plain = settings()
    assert {x.option.name: x.value for x in settings(file=tomllib.loads(plain.printed()))} == {
        x.option.name: x.value for x in plain
    }


def test_what_is_printed_says_where_it_came_from() -> None:
    """Each line with its origin."""
    lines = (
        settings("--workers", "2", environ={"PREFORK_BACKLOG": "7"}, file={"threads": 3})
        .printed()
        .splitlines()
    )
    said = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in lines if " = " in line}
    assert said["workers"] == "command line"
    assert said["backlog"] == "environment PREFORK_BACKLOG"
    assert said["threads"] == "prefork.toml"
    assert said["bind"] == DEFAULT


class TestFiles:
    def test_our_own_file_comes_first(self, tmp_path: Path) -> None:
        """prefork.toml, else [tool.prefork], else nothing."""
        assert find(tmp_path) == ConfigFile()
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        assert find(tmp_path) == ConfigFile()
        (tmp_path / "pyproject.toml").write_text("[tool.prefork]\nworkers = 2\n")
        assert find(tmp_path).table == {"workers": 2}
        assert find(tmp_path).name.endswith("[tool.prefork]")
        (tmp_path / "prefork.toml").write_text("workers = 3\n")
        assert find(tmp_path).table == {"workers": 3}

    def test_a_broken_pyproject_is_not_ours_to_tell_of(self, tmp_path: Path) -> None:
        """It may say nothing of prefork at all; a broken file of our own is told."""
        (tmp_path / "pyproject.toml").write_text("[tool\n")
        assert find(tmp_path) == ConfigFile()
        (tmp_path / "prefork.toml").write_text("workers = \n")
        with pytest.raises(ConfigError, match="is no TOML"):
            find(tmp_path)

    def test_a_file_that_is_asked_for_must_be_there(self, tmp_path: Path) -> None:
        """And a table must be one."""
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            read(tmp_path / "no.toml")
        (tmp_path / "pyproject.toml").write_text("[tool]\nprefork = 4\n")
        with pytest.raises(ConfigError, match=r"write \[tool.prefork\]"):
            read(tmp_path / "pyproject.toml")


def test_the_reference_is_current() -> None:
    """docs/options.md is made of the declarations: `make docs-reference`."""
    assert PAGE.read_text() == reference()


@EACH
def test_the_reference_names_every_option(option: Declared) -> None:
    """By its flag and its variable."""
    (row,) = [line for line in reference().splitlines() if f"`{option.variable}`" in line]
    assert f"`{option.flag}`" in row


def test_the_help_says_the_precedence() -> None:
    """Where people look first."""
    said = " ".join(serve.get_help(click.Context(serve)).split())
    assert "The command line comes before the environment, that before the file" in said


def test_no_type_is_taken_for_another() -> None:
    """Every option refuses a table."""
    for option in OPTIONS:
        with pytest.raises(ValueError, match="must be"):
            from_toml(option.field, option.hint, {"a": 1})
