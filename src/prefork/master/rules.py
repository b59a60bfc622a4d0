"""What the plan goes by: chosen when the master starts, the same for its life."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prefork.master.scaling import Bounds


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change while the master runs. Bounds in seconds."""

    recover_threshold: float
    recover_window_s: float = 60.0
    recover_interval_s: float = 0.1
    grace_s: float = 30.0
    boot_timeout_s: float = 60.0
    uses_zygote: bool = True
    repeats_drain: bool = True
    """Workers may be told twice to drain. Not so commands that the program starts by itself: they are
    strangers, and to some of them a second TERM means haste."""
    reuseport: bool = False
    max_requests: int = 0
    """Requests after which a worker is recycled; 0: never."""
    max_age_s: float = math.inf
    recycle_jitter: float = 0.0
    """Share by which the two bounds above are shortened at random, at most."""
    max_memory_bytes: int | None = None
    max_fleet_bytes: int | None = None
    watches_code: bool = False
    """A change of the application's code is a reload."""
    has_admin: bool = False
    """There is to be an admin process."""
    hang_timeout_s: float = math.inf
    """Silence after which the loop of a worker that is awake is taken to be blocked."""
    bounds: Bounds | None = None
    """How few and how many workers there may be; None: as many as are asked for."""
    refuse_after_kills: int = 0
    """Workers that a request may kill before it is refused; 0: any number."""

    @property
    def watches_memory(self) -> bool:
        return self.max_memory_bytes is not None or self.max_fleet_bytes is not None
