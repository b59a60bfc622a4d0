"""docs/options.md, made of the declarations: `python -m prefork.cli.reference` prints it, `make docs-reference` writes it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import fields

from prefork.cli.declared import GROUPS, Declared, Group, declared

_HEAD = """\
# Options

<!-- Made by `make docs-reference` of the declarations in src/prefork/options, http/options.py and http/limits.py. -->

Each option is declared once. What is given on the **command line** comes before the **environment**, that before the
**file**, and that before the default. `prefork --print-config` shows each value and where it came from; `prefork --check`
validates them all, imports the application, and leaves with 0, 2 (the options are wrong) or 3 (the application is).

The file is `prefork.toml` in the working directory (or that of `--chdir`), or else the table `[tool.prefork]` of
`pyproject.toml` there; `--config FILE` (or `PREFORK_CONFIG`) names another, and `--config ""` none:

```toml
application = "shop.main:app"
bind = [":8080", "unix:/run/shop/http.sock"]
workers = 4
grace-period = 20
max-memory = "512M"
unix-mode = "660"      # permissions are texts, in octal
```

In the environment an empty value says nothing, several addresses are set apart by blanks, and true and false are `1` and
`0`. What is misspelt is refused, and the nearest name is told. The environment and the file are the command's: a program
gives its options to `Prefork(...)` and `Server(app, ...)`, by the names in the last column.
"""


def reference() -> str:
    """The page."""
    parts = [_HEAD]
    options = list(declared())
    parts += ["\n".join(_section(group, [x for x in options if x.group is group])) for group in GROUPS]
    return "\n".join(parts)


def _section(group: Group, options: list[Declared]) -> Iterator[str]:
    in_program = f" | `{group.python}`" if group.python else ""
    yield f"## {group.title}"
    yield ""
    yield f"| command line and environment | default | what it says{in_program} |"
    yield "|---|---|---" + ("|---|" if group.python else "|")
    for option in options:
        yield _row(option)
    for each in fields(group.kind):
        if not (each.metadata["flag"] or each.metadata.get("name")):
            yield f"| in a program only | `{each.default}` | {each.metadata['help']} | `{each.name}` |"
    yield ""


def _row(option: Declared) -> str:
    about = option.field.metadata
    names = [f"`{option.flag}`"]
    if about.get("off"):
        names.append(f"`{about['off']}`")
    elif option.hint is bool:
        names.append(f"`--no-{option.flag[2:]}`")
    names.append(f"`{option.variable}`")
    text = about["help"].replace("|", "\\|")
    if "choices" in about:
        text += f" One of {', '.join(f'`{choice}`' for choice in about['choices'])}."
    cells = [" ".join(names), _default(option), text]
    if option.group.python:
        cells.append(f"`{option.field.name}`")
    return "| " + " | ".join(cells) + " |"


def _default(option: Declared) -> str:
    value = option.field.default
    if value is None:
        return ""
    if value is False or value is True:
        return "on" if value else "off"
    if isinstance(value, float) and math.isinf(value):
        return "no end"
    if isinstance(value, tuple):
        value = " ".join(value)
    return "empty" if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
