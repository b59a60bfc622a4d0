"""What gunicorn needs to start its stash: an application that does nothing, twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.dirty.app import DirtyApp  # type: ignore[import-not-found]  # lives in the peers' environment only


class Nothing(DirtyApp):  # type: ignore[misc]
    """One that runs beside the workers, in whose keeper the stash is."""


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The one that is served."""
    start_response("200 OK", [])
    return [b""]
