"""Values as people write them: two numbers, bytes, a share. Each raises ConfigError for what cannot be read."""

from __future__ import annotations

import math
import re
from typing import Final

from prefork.errors import ConfigError

_SPAN: Final = re.compile(r"(\d+):(\d+)", re.ASCII)
_SIZE: Final = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGTkmgt]?)(i?[Bb])?")


def span_of(text: str) -> tuple[int, int]:
    """How few and how many, as people write it: "2:8". Raises ConfigError."""
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        least, most = int(found[1]), int(found[2])
        if 1 <= least <= most:
            return least, most
    raise ConfigError(f"workers must be a whole number from 1, or two such as 2:8, not {text!r}")


def bytes_of(text: str) -> int:
    """Bytes, as people write them: "512M", "1.5G", "65536"; units of 1024. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no size: write bytes, or 64K, 512M, 1.5G")
    return int(float(found["number"]) * 1024 ** " KMGT".index((found["unit"] or " ").upper()))


def share_or_bytes(text: str) -> tuple[float | None, int | None]:
    """As a share of what there is, or as bytes: "85%" is (0.85, None), "2G" is (None, 2 GiB). Raises ConfigError."""
    if not isinstance(text, str):
        raise ConfigError(f"max_fleet_memory must be a text, such as 2G or 85%, not {text!r}")
    if not text.endswith("%"):
        size = bytes_of(text)
        if size < 1:
            raise ConfigError(f"max_fleet_memory must be above 0, not {text!r}")
        return None, size
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ConfigError(f"{text!r} is no share of memory: write 1% to 100%")
    return share, None
