"""The quick ones of strangers' collections: gunicorn's requests and http-parser's, some 250, each told four ways.

All of them, and whole suites: `make strangers`, docs/strangers.md. Skipped where the packages cannot be fetched.
"""

from __future__ import annotations

import pytest

from strangers import known
from strangers.catalogue import COLLECTIONS, tell
from strangers.sources import NotToBeHadError


@pytest.mark.slow
@pytest.mark.timeout(240)  # what is fetched the first time may take its time; the rest is seconds
@pytest.mark.parametrize("name", ["gunicorn", "http-parser"])
def test_a_collection_differs_only_where_it_is_meant_to(name: str) -> None:
    """As `strangers/known.toml` has it: no difference without a reason, and no reason without a difference."""
    collection = COLLECTIONS[name]
    try:
        folder = collection.source.folder()
    except NotToBeHadError as error:
        pytest.skip(str(error))
    cases = collection.read(folder)
    assert len(cases) > 100
    verdict = known.judge(known.read(name), tell(cases))
    assert not verdict.unexplained
    assert not verdict.stale
