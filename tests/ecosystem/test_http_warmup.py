"""The warm-up with frameworks as they are: what threads they use for a request are gone before the fork."""

from __future__ import annotations

import pytest

from tests.ecosystem.apps.http_rig import client_of, serving

DJANGO = ("/", "/async", "/stream", "/astream", "/session")
SITES = [
    ("django_site.asgi:application", DJANGO),
    ("django_site.wsgi:application", DJANGO),
    ("http_fastapi:app", ("/docs", "/openapi.json")),
    ("http_flask:app", ("/",)),
    ("warm_threads:app", ("/in-a-thread", "/depends", "/file")),
]


@pytest.mark.parametrize(("target", "paths"), SITES, ids=[target for target, _ in SITES])
def test_pages_that_use_threads_are_warmed(target: str, paths: tuple[str, ...]) -> None:
    """Sync views in async servers, and the other way round: nothing is left of them, and the fleet serves."""
    words = [word for path in paths for word in ("--warmup", path)]
    with serving(target, *words) as fleet, client_of(fleet) as client:
        for path in paths:
            assert fleet.find_all(rf"warm-up {path}: status (200|404)"), fleet.output
            assert client.get(path).status_code < 500
        assert not fleet.find_all("left threads")
        assert not fleet.find_all("left connections")
        assert not fleet.find_all("failed")
