"""Fleets that end with their test, and the mark on every test that runs real processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.harness import Fleet
from tests.process.load import Load

HERE = Path(__file__).parent
PAUSE_S = 0.01


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here, so that `-m "not process"` is the quick part of the suite."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.process)


@pytest.fixture
def fleet_of() -> Iterator[Callable[..., Fleet]]:
    """`fleet_of("app:app", "--bind", …)`: a started `prefork` command, gone when the test is."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **options: object) -> Fleet:
            return stack.enter_context(Fleet.command(*arguments, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def fleet_of_script() -> Iterator[Callable[..., Fleet]]:
    """`fleet_of_script(path, *arguments)`: a started program of the user's own, gone when the test is."""
    with contextlib.ExitStack() as stack:

        def start(path: Path, *arguments: str, **options: object) -> Fleet:
            return stack.enter_context(Fleet.script(path, *arguments, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def load_on() -> Iterator[Callable[..., Load]]:
    """`load_on(url, clients=32)`: load that is running when this returns, ended with the test at the latest.

    Its clients pause between two requests (`pause_s`): in a tight loop they keep all CPUs busy, which the tests beside this one
    need, too. `make chaos` goes without.
    """
    with contextlib.ExitStack() as stack:

        def start(url: str, **options: object) -> Load:
            return stack.enter_context(Load(url, **{"pause_s": PAUSE_S, **options}))  # type: ignore[arg-type]

        yield start
