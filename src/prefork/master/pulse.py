"""What a worker says of itself on the scoreboard, as the plan is told when it looks. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pulse:
    """One worker, in one look."""

    child: int
    is_awake: bool
    """Something happens there; its loop then tells so once a second."""
    tick_s: float
    """When it last did, on the master's clock."""
    in_flight: int = 0
    connections: int = 0
    capacity: int = 0
    """Requests that it works on at once, in threads; 0: no bound is known."""
    served_s: float = 0.0
    """How long all requests together have taken that it has answered."""
    cpu_s: float = 0.0
    """CPU time that it has used, or waited for."""
    statuses: tuple[int, ...] = ()
    latencies: tuple[int, ...] = ()
