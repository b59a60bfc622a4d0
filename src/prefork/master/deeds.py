"""What a part of the shell can do: which commands it carries out, and by which of its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefork.master import events as e

Deeds = Mapping[type, Callable[[Any], Iterable[e.Event] | None]]
"""By the type of the command; what it leads to at once comes back. None of them blocks for longer than a fork."""
