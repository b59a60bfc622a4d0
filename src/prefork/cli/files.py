"""The configuration file: prefork.toml, or the table [tool.prefork] of pyproject.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prefork.errors import ConfigError

OWN: Final = "prefork.toml"
SHARED: Final = "pyproject.toml"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says, and what it is called in messages; nothing and "" if there is none."""

    name: str = ""
    table: dict[str, Any] = field(default_factory=dict)


def find(folder: Path) -> ConfigFile:
    """The file of a folder: prefork.toml, else pyproject.toml if it has [tool.prefork]. Raises ConfigError."""
    if (folder / OWN).is_file():
        return read(folder / OWN)
    if (folder / SHARED).is_file():
        try:
            found = read(folder / SHARED)
        except ConfigError:
            # Whether it speaks of prefork at all cannot be known; other tools will tell of it.
            return ConfigFile()
        return found if found.table else ConfigFile()
    return ConfigFile()


def read(path: Path) -> ConfigFile:
    """The file at `path`. Raises ConfigError if it cannot be read, or is no TOML."""
    import tomllib  # most masters have no file, and would carry it about for nothing

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    if path.name != SHARED:
        return ConfigFile(str(path), data)
    tools = data.get("tool")
    table = tools.get("prefork", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.prefork must be a table: write [tool.prefork]")
    return ConfigFile(f"{path} [tool.prefork]", table)
