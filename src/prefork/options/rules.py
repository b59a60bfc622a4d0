"""What the value of an option must be. A rule takes the option's name and a value, and raises ConfigError."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from os import PathLike
from typing import Any, Final

from prefork.errors import ConfigError
from prefork.options.spelling import share_or_bytes, span_of

Rule = Callable[[str, Any], object]

MOST_JITTER: Final = 0.9


def must_be(what: str, is_fine: Callable[[Any], bool]) -> Rule:
    """`what` ends the sentence that a value is refused with: "backlog must be a whole number from 1, not 0"."""

    def check(name: str, value: Any) -> None:
        if not is_fine(value):
            raise ConfigError(f"{name} must be {what}, not {value!r}")

    return check


def if_given(rule: Rule) -> Rule:
    """`rule`, and None is fine, too."""
    return lambda name, value: value is None or rule(name, value)


def whole(least: int) -> Rule:
    """A whole number, which True is not."""
    return must_be(f"a whole number from {least}", lambda value: _is_whole(value) and value >= least)


def choice(choices: Collection[str], said: str) -> Rule:
    """One of `choices`; `said` names them."""
    return must_be(said, lambda value: value in choices)


def texts(*kinds: type[Any]) -> Rule:
    """Several values of these types, or none. One alone is a slip, of which each letter would be taken for itself."""

    def check(name: str, values: Any) -> None:
        if isinstance(values, (str, bytes, PathLike)):
            raise ConfigError(f"{name} takes several: give it as [{values!r}]")
        if not isinstance(values, Collection):
            raise ConfigError(f"{name} takes several texts, such as a list of them, not {values!r}")
        for value in values:
            if not isinstance(value, kinds):
                raise ConfigError(f"{name} takes texts, and {value!r} is none")

    return check


def _workers(name: str, value: Any) -> None:
    if isinstance(value, str) and ":" in value:
        span_of(value)
    else:
        whole(1)(name, value)


def _fleet_memory(_name: str, value: Any) -> None:
    share_or_bytes(value)


WORKERS: Final = if_given(_workers)
FLEET_MEMORY: Final = if_given(_fleet_memory)
PERMISSIONS: Final = if_given(
    must_be("permission bits, such as 0o660", lambda value: _is_whole(value) and 0 <= value <= 0o777)
)
COUNT: Final = must_be("0 or more", lambda value: _is_number(value) and value >= 0)
SECONDS: Final = must_be("0 or more seconds", lambda value: _is_number(value) and value >= 0)
SOME_SECONDS: Final = must_be("more than 0 seconds", lambda value: _is_number(value) and value > 0)
JITTER: Final = must_be(
    f"a share from 0 to {MOST_JITTER}", lambda value: _is_number(value) and 0 <= value <= MOST_JITTER
)
TEXTS: Final = texts(str)
DIRECTORIES: Final = texts(str, PathLike)
BYTES: Final = if_given(must_be("a number above 0", lambda value: _is_whole(value) and value > 0))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
