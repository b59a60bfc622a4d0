"""Every option, declared once: its name, type, default, meaning, rule, and its name on the command line.

`FleetOptions` is what a program gives to `Prefork(...)`, of which it is the base; `CommandOptions` is what the command
has on top. The command line, the environment, the file, `--print-config` and docs/options.md are made from these
declarations (`cli/declared.py`), and nothing restates them.
"""

from __future__ import annotations

from prefork.options.command import LOG_LEVELS, CommandOptions
from prefork.options.declaring import about
from prefork.options.fleet import FleetOptions
from prefork.options.spelling import bytes_of, share_or_bytes, span_of

__all__ = [
    "LOG_LEVELS",
    "CommandOptions",
    "FleetOptions",
    "about",
    "bytes_of",
    "share_or_bytes",
    "span_of",
]
