"""How an option is declared: as a field of a dataclass, with what the command, the reference and the check need to know of it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def about(text: str, flag: str = "", **extra: Any) -> dict[str, Any]:
    """An option's metadata: its meaning, and its name on the command line ("" for none).

    The name without its dashes is the option's name in a file, and in capitals its name in the environment.

    extra: `must`, the rule that its value has to keep (`rules`); `choices`, the values it may have; `metavar`, what the help
    calls the value; `octal`, permissions; `size`, bytes that may be written 512M; `span`, a number or two of them (2:8); `off`,
    a second flag that gives it an empty value; `name`, where there is no flag.
    """
    return {"help": text, "flag": flag, **extra}


def check_each(group: type[Any], options: object) -> None:
    """Hold each option that `group` declares to its rule. Raises ConfigError for the first that does not keep it."""
    for option in fields(group):
        if "must" in option.metadata:
            option.metadata["must"](option.name, getattr(options, option.name))
